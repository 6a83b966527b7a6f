"""The question before a delete, as real clients of both eras ask and answer it."""

from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.world import gateway, http, served

pytestmark = pytest.mark.anyio

SHOP = {"name": "shop", "display_name": "Shop", "base_url": "https://shop.example"}


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
@pytest.mark.parametrize(
    ("action", "content", "deleted"),
    [
        ("accept", {"confirm": True}, True),
        ("accept", {"confirm": False}, False),
        ("decline", None, False),
        ("cancel", None, False),
    ],
)
async def test_a_delete_is_done_only_if_the_user_agrees(
    tmp_path: Path, mode: Any, action: Any, content: dict[str, Any] | None, deleted: bool
) -> None:
    asked: list[str] = []

    async def answer(ctx: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params.message)
        return types.ElicitResult(action=action, content=content)

    async with gateway(tmp_path) as world, served(world) as url:
        await world.create(SHOP)
        async with (
            http(url, await world.key("owner")) as client,
            Client(
                streamable_http_client(f"{url}/mcp", http_client=client), mode=mode, elicitation_callback=answer
            ) as mcp,
        ):
            result = await mcp.call_tool("delete_integration", {"integration": "shop"})
        assert asked == ["Delete Shop (shop) with 0 tools and its secrets?"]
        assert result.is_error is (not deleted)
        assert ((await world.app.registry.load("acme"))[1] == ()) is deleted


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_client_that_cannot_ask_is_told_that_nobody_was_asked(tmp_path: Path, mode: Any) -> None:
    async with gateway(tmp_path) as world, served(world) as url:
        await world.create(SHOP)
        async with (
            http(url, await world.key("owner")) as client,
            Client(streamable_http_client(f"{url}/mcp", http_client=client), mode=mode) as mcp,
        ):
            result = await mcp.call_tool("delete_integration", {"integration": "shop"})
        assert "The user was not asked first" in result.content[0].text  # pyright: ignore
        assert (await world.app.registry.load("acme"))[1] == ()
