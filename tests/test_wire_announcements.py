"""A change of the tools is announced on every wire that lasts, whoever made it, and never to another workspace."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client
from mcp.client.subscriptions import Subscription

from tests.wires import HTTP, LASTING, Wire, connected
from tests.world import World, gateway
from tools.callers import local_caller

pytestmark = pytest.mark.anyio


class Heard:
    """Counts the announcements that a client got."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = anyio.Event()

    async def message(self, message: Any) -> None:
        """A message handler of legacy clients."""
        if isinstance(message, types.ToolListChangedNotification):
            self.add()

    def add(self) -> None:
        self.count += 1
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, count: int) -> None:
        while self.count < count:
            await self._changed.wait()


@asynccontextmanager
async def listening_client(
    wire: Wire, world: World, home: Path, key: str | None = None
) -> AsyncGenerator[tuple[Client, Heard]]:
    """A client that is being told of changes, from here on."""
    heard = Heard()
    if wire not in ("modern http", "modern stdio"):
        async with connected(wire, world, home, key, message_handler=heard.message) as client:
            # With a list and its answer, the session's own stream is open and the connection is known.
            await client.list_tools()
            yield client, heard
        return

    async def count(subscription: Subscription) -> None:
        async for _ in subscription:
            heard.add()

    async with (
        connected(wire, world, home, key) as client,
        client.listen(tools_list_changed=True) as subscription,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(count, subscription)
        yield client, heard
        tasks.cancel_scope.cancel()


def shop(name: str) -> dict[str, Any]:
    get = {"name": "get", "description": "Gets one.", "method": "GET", "path": "/"}
    return {"name": name, "display_name": name.title(), "base_url": "http://127.0.0.1:9", "endpoints": [get]}


@pytest.mark.parametrize("wire", LASTING)
async def test_clients_are_told_when_this_process_or_another_writes(tmp_path: Path, wire: Wire) -> None:
    with anyio.fail_after(30):
        async with (
            gateway(tmp_path) as world,
            gateway(tmp_path) as other_process,
            listening_client(wire, world, tmp_path) as (client, heard),
        ):
            for number, writer in enumerate((world, other_process), 1):
                await writer.create(shop(f"shop{number}"))
                await heard.until(number)
                names = [t.name for t in (await client.list_tools(cache_mode="bypass")).tools]
                assert f"shop{number}_get" in names


@pytest.mark.parametrize("wire", [w for w in HTTP if w != "stateless"])
async def test_another_workspace_is_never_told(tmp_path: Path, wire: Wire) -> None:
    with anyio.fail_after(30):
        async with gateway(tmp_path) as world:
            await world.app.registry.ensure_workspace("other")
            foreign = (await world.app.keys.create("other", role="owner")).api_key
            async with (
                listening_client(wire, world, tmp_path) as (_, ours),
                listening_client(wire, world, tmp_path, foreign) as (stranger, theirs),
            ):
                await world.create(shop("shop"))
                await ours.until(1)
                await world.create(shop("bank"), local_caller("other"))
                await theirs.until(1)
                names = [t.name for t in (await stranger.list_tools(cache_mode="bypass")).tools]
                assert "bank_get" in names
                assert "shop_get" not in names
                assert (ours.count, theirs.count) == (1, 1)
