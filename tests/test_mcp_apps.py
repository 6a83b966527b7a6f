"""Pages of MCP Apps through the gateway: two servers with one URI, who may read them, what is refused."""

import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.client.extension import advertise
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from tests.mcp_upstreams import lowlevel
from tests.world import World, gateway, http, served
from tools.errors import CircuitOpen, UpstreamUnreachable
from tools.kinds.mcp.described import app_of, is_for_pages, meta_of

pytestmark = pytest.mark.anyio
SMALL = str(Path(lowlevel.__file__).with_name("small.py"))
TOKEN = "canary-0123456789"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World, None]:
    async with gateway(tmp_path, stdio_allow=(f"{sys.executable} *",)) as made:
        for name in ("one", "two"):
            body = {"name": name, "display_name": name, "protocol": "mcp", "mcp_transport": "stdio"}
            words = {"mcp_command": sys.executable, "mcp_args": [SMALL, "page", name], "mcp_env": {"TOKEN": TOKEN}}
            await made.create({**body, **words})
        yield made


@pytest.mark.parametrize(("mode", "code"), [("2026-07-28", -32602), ("legacy", -32002)])
async def test_each_tool_points_to_the_page_of_its_own_server(world: World, mode: str, code: int) -> None:
    async with (
        served(world) as url,
        http(url, await world.key("agent")) as client,
        Client(streamable_http_client(url + "/mcp", http_client=client), mode=mode) as mcp,
    ):
        listed: dict[str, Any] = {t.name: t.meta for t in (await mcp.list_tools()).tools}
        for name in ("one", "two"):
            ui = listed[f"{name}_echo"]["ui"]
            assert ui == {"resourceUri": f"ui://{name}/charts/bar.html", "visibility": ["model", "app"]}
            assert listed[f"{name}_echo"]["ui/resourceUri"] == ui["resourceUri"]
            (page,) = (await mcp.read_resource(ui["resourceUri"])).contents
            shown = page.model_dump(mode="json", by_alias=True, exclude_none=True)
            assert shown == {
                "uri": ui["resourceUri"],
                "mimeType": "text/html;profile=mcp-app",
                "text": f"<html>{name} [secret]</html>",
                "_meta": {"ui": {"csp": {"connectDomains": []}}},
            }
        pages = [str(r.uri) for r in (await mcp.list_resources()).resources]
        assert pages == ["ui://one/charts/bar.html", "ui://two/charts/bar.html"]
        for uri in ("ui://charts/bar.html", "ui://one/other.html", "file:///etc/passwd"):
            with pytest.raises(MCPError) as refused:
                await mcp.read_resource(uri)
            assert refused.value.error.code == code


async def test_a_page_is_only_for_callers_who_see_a_tool_that_names_it(world: World) -> None:
    one = (await world.app.admin.get(world.owner, "one")).id
    key = await world.key("agent", integrations=frozenset({one}))
    async with (
        served(world) as url,
        http(url, key) as client,
        Client(streamable_http_client(url + "/mcp", http_client=client)) as mcp,
    ):
        assert [str(r.uri) for r in (await mcp.list_resources()).resources] == ["ui://one/charts/bar.html"]
        with pytest.raises(MCPError, match="no such resource"):
            await mcp.read_resource("ui://two/charts/bar.html")


async def test_a_page_is_read_under_the_limits_of_calls(world: World) -> None:
    tool = (await world.app.catalogs.get("acme")).find(world.owner, "one_echo")
    for _ in range(5):
        world.app.gateway.traffic.breaker.ended(tool.circuit, UpstreamUnreachable("no connection"), answered=False)
    with pytest.raises(CircuitOpen):
        await world.app.gateway.read_app(world.owner, "ui://one/charts/bar.html", 0)
    assert await world.app.gateway.read_app(world.owner, "ui://two/charts/bar.html", 0) is not None


def test_only_a_uri_of_the_ui_scheme_is_a_page_and_a_shaped_tool_has_none() -> None:
    assert app_of({"_meta": {"ui": {"resourceUri": "file:///etc/passwd"}}}, "up") is None
    assert app_of({"_meta": {"ui": "x"}}, "up") is None
    tool = {"_meta": {"ui": {"resourceUri": "ui://a/b", "visibility": ["app"]}, "ui/resourceUri": "ui://a/b", "x": 1}}
    assert meta_of(tool, None) == {"ui": {"visibility": ["app"]}, "x": 1}


UI = "io.modelcontextprotocol/ui"
PAGES = {"mimeTypes": ["text/html;profile=mcp-app"]}


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_page_calls_its_servers_tools_by_their_own_names(world: World, mode: Any) -> None:
    one = (await world.app.admin.get(world.owner, "one")).id
    narrowed = await world.key("agent", integrations=frozenset({one}))

    async def called(key: str, *extensions: Any) -> Any:
        async with (
            served(world) as url,
            http(url, key) as client,
            Client(
                streamable_http_client(url + "/mcp", http_client=client), mode=mode, extensions=list(extensions)
            ) as mcp,
        ):
            return await mcp.call_tool("echo", {"text": "hello"})

    through = await called(narrowed, advertise(UI, PAGES))
    assert [b.text for b in through.content if b.type == "text"] == ["hello"]
    # A client that shows no pages has no page that calls; and where two servers have the name, nobody can tell whose is meant.
    for refused in (await called(narrowed), await called(await world.key("agent"), advertise(UI, PAGES))):
        assert refused.is_error
        assert "[unknown_tool]" in str(refused.content)


def test_what_a_page_may_call_is_what_its_server_says() -> None:
    assert is_for_pages({})
    assert is_for_pages({"_meta": {"ui": {"visibility": ["app"]}}})
    assert not is_for_pages({"_meta": {"ui": {"visibility": ["model"]}}})
    assert not is_for_pages({"_meta": {"ui": {"visibility": "app"}}})
