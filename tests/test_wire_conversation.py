"""One conversation over every wire: connect, list, call, an error, progress, cancellation."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import MCPError

from tests.upstreams import Hostile, answer, silence
from tests.wires import ALL, HTTP, LASTING, Wire, connected, version_of
from tests.world import World, gateway

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


async def shop(world: World, base_url: str, name: str = "shop") -> str:
    """An integration with one endpoint that answers, one that fails, one that is busy at first, one that never ends; its id."""
    get: list[dict[str, Any]] = [
        {"name": n, "description": f"Gets {n}.", "method": "GET", "path": f"/{n}"} for n in ("item", "gone", "never")
    ]
    busy = {
        "name": "busy",
        "description": "Busy at first.",
        "method": "GET",
        "path": "/busy",
        "retry_config": {"max_retries": 2, "retry_on_status": [503]},
    }
    body = {"name": name, "display_name": name.title(), "base_url": base_url, "endpoints": [*get, busy]}
    return (await world.create(body)).id


def script(upstream: Hostile) -> None:
    upstream.script("/item", answer(200, b'{"id":7}', JSON))
    upstream.script("/gone", answer(404, b'{"message":"no such thing"}', JSON))
    upstream.script("/busy", answer(503, b"", {"Retry-After": "0"}), answer(200, b'"done"', JSON))
    upstream.script("/never", silence)


@pytest.mark.parametrize("wire", ALL)
async def test_every_wire_holds_the_same_conversation(tmp_path: Path, wire: Wire) -> None:
    told: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append(done)

    async with Hostile() as upstream, gateway(tmp_path) as world:
        script(upstream)
        await shop(world, upstream.url)
        with anyio.fail_after(30):
            async with connected(wire, world, tmp_path) as client:
                assert client.protocol_version == version_of(wire)
                assert client.server_info is not None
                assert client.server_info.name == "integrations-mcp"
                assert "Shop (4 tools" in (client.instructions or "")

                page = await client.list_tools()
                names = [t.name for t in page.tools]
                assert [n for n in names if n.startswith("shop")] == [
                    "shop_busy",
                    "shop_gone",
                    "shop_item",
                    "shop_never",
                ]
                assert names == sorted(names)
                assert page.next_cursor is None
                with pytest.raises(MCPError) as refused:
                    await client.list_tools(cursor="not one of ours")
                assert refused.value.error.code == -32602

                item: Any = await client.call_tool("shop_item", {})
                assert [b.text for b in item.content] == ['{"id":7}']
                assert not item.is_error
                assert item.structured_content is None

                gone: Any = await client.call_tool("shop_gone", {})
                assert gone.is_error
                assert len(gone.content) == 1
                assert "no such thing" in gone.content[0].text
                assert "[upstream_404]" in gone.content[0].text

                unknown: Any = await client.call_tool("shop_itme", {})
                assert unknown.is_error
                assert "did you mean shop_item?" in unknown.content[0].text

                busy: Any = await client.call_tool("shop_busy", {}, progress_callback=progress)
                assert busy.content[0].text == "done"
                assert told == [1.0, 2.0]


@pytest.mark.parametrize("wire", LASTING)
async def test_a_cancelled_call_stops_at_the_upstream(tmp_path: Path, wire: Wire) -> None:
    async with Hostile() as upstream, gateway(tmp_path) as world:
        script(upstream)
        await shop(world, upstream.url)
        with anyio.fail_after(30):
            async with connected(wire, world, tmp_path) as client, anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, "shop_never", {})
                await upstream.until(lambda: upstream.open == 1 and len(upstream.received) == 1)
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await upstream.until(lambda: upstream.open == 0)
                    item: Any = await client.call_tool("shop_item", {})
                    assert [b.text for b in item.content] == ['{"id":7}']


@pytest.mark.parametrize("wire", HTTP)
async def test_each_caller_is_told_of_his_own_systems(tmp_path: Path, wire: Wire) -> None:
    async with Hostile() as upstream, gateway(tmp_path) as world:
        await shop(world, upstream.url, "shop")
        bank = await shop(world, upstream.url, "bank")
        narrowed = await world.key("agent", integrations=[bank])
        with anyio.fail_after(30):
            async with connected(wire, world, tmp_path, narrowed) as client:
                assert "Bank (4 tools" in (client.instructions or "")
                assert "Shop" not in (client.instructions or "")
                names = [t.name for t in (await client.list_tools()).tools]
                assert names == ["bank_busy", "bank_gone", "bank_item", "bank_never", "get_result"]
                result: Any = await client.call_tool("shop_item", {})
                assert result.is_error
                assert "there is no tool shop_item" in result.content[0].text
        assert not upstream.received
