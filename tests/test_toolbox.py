"""The toolbox: one list of everything a caller can call, in pages that stay right while the list changes."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.world import World, gateway, http, served
from tools.callers import ROLE_PERMISSIONS, Caller
from tools.errors import InvalidRequest

pytestmark = pytest.mark.anyio

AGENT = Caller("k", "acme", permissions=ROLE_PERMISSIONS["agent"])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World, None]:
    async with gateway(tmp_path, tools_page_size=2) as world:
        yield world


def shop(*names: str) -> dict[str, Any]:
    endpoints = [{"name": n, "description": "Does one thing.", "method": "GET", "path": f"/{n}"} for n in names]
    return {"name": "shop", "display_name": "Shop", "base_url": "https://shop.example", "endpoints": endpoints}


async def pages(world: World, caller: Caller = AGENT) -> list[list[str]]:
    found: list[list[str]] = []
    cursor: str | None = None
    while True:
        page, cursor = await world.app.toolbox.page(caller, cursor)
        found.append([e["name"] for e in page])
        if cursor is None:
            return found


async def test_the_list_is_in_the_order_of_names_over_all_pages(world: World) -> None:
    await world.create(shop("c", "a", "b", "d"))
    assert await pages(world) == [["get_result", "shop_a"], ["shop_b", "shop_c"], ["shop_d"]]


async def test_a_tool_that_goes_between_two_pages_hides_no_other(world: World) -> None:
    await world.create(shop("a", "b", "c", "d"))
    first, cursor = await world.app.toolbox.page(AGENT, None)
    assert [e["name"] for e in first] == ["get_result", "shop_a"]
    await world.app.toolbox.call(world.owner, "delete_endpoint", {"tool": "shop_a"})
    second, _ = await world.app.toolbox.page(AGENT, cursor)
    assert [e["name"] for e in second] == ["shop_b", "shop_c"]


@pytest.mark.parametrize("cursor", ["", "%%%", "zzzz\x00", "\u00e9", "c2hvcF9h!"])
async def test_a_cursor_that_the_list_did_not_give_is_refused(world: World, cursor: str) -> None:
    await world.create(shop("a"))
    with pytest.raises(InvalidRequest, match="list from the beginning"):
        await world.app.toolbox.page(AGENT, cursor)


async def test_a_caller_without_tools_is_shown_nothing_to_read_on(world: World) -> None:
    assert await pages(world) == [[]]


async def test_managers_are_told_how_to_change_connections_and_agents_are_not(world: World) -> None:
    await world.create(shop("a"))
    assert "You may change connections" in await world.app.toolbox.instructions(world.owner)
    assert "You may change connections" not in await world.app.toolbox.instructions(AGENT)


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_refused_operation_keeps_its_code_on_the_wire(world: World, mode: Any) -> None:
    async with (
        served(world) as url,
        http(url, await world.key("owner")) as client,
        Client(streamable_http_client(f"{url}/mcp", http_client=client), mode=mode) as mcp,
    ):
        result = await mcp.call_tool("get_integration", {"integration": "nope"})
    assert result.is_error
    assert len(result.content) == 1
    assert result.structured_content is None
    assert result.meta is not None
    assert result.meta["dev.integrations-mcp/error"] == {
        "code": "not_found",
        "fault": "arguments",
        "retryable": False,
        "retry_after_s": None,
        "sent": "no",
    }
