"""The whole gateway, in one conversation: write an integration, list its tool, call it over HTTP."""

from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.world import gateway, http, listening, served

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_an_endpoint_is_a_tool_that_an_agent_calls(tmp_path: Path, mode: Any) -> None:
    async def item(request: Request) -> JSONResponse:
        return JSONResponse({"id": request.path_params["id"], "key": request.headers["x-api-key"]})

    upstream = Starlette(routes=[Route("/items/{id}", item)])
    async with listening(upstream) as base, gateway(tmp_path) as world, served(world) as url:
        await world.create(
            {
                "name": "shop",
                "display_name": "Shop",
                "base_url": base,
                "auth": {"type": "api_key_header", "api_key_value": {"value": "canary-0123456789"}},
                "endpoints": [{"name": "get_item", "description": "Gets one.", "method": "GET", "path": "/items/{id}"}],
            }
        )
        async with (
            http(url, await world.key("agent")) as client,
            Client(streamable_http_client(f"{url}/mcp", http_client=client), mode=mode) as mcp,
        ):
            assert [t.name for t in (await mcp.list_tools()).tools] == ["get_result", "shop_get_item"]
            result = await mcp.call_tool("shop_get_item", {"id": "7"})
        assert result.content[0].text == '{"id":"7","key":"[secret]"}'  # pyright: ignore
        assert not result.is_error
