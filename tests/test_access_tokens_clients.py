"""Real MCP clients go from the 401 through the metadata to a real identity provider, sign in, and call a tool."""

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
import jwt
import pytest
from anyio import to_thread
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from oauth_servers.npm import installed
from oauth_servers.running import free_port, process
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.issuer import SCOPES
from tests.nodetools import node_env
from tests.world import World, gateway, listening, served
from tools.history import CallQuery

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.node]
BACK = "http://127.0.0.1:9/callback"


@pytest.fixture(scope="module")
def idp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root, port = installed(), free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["node", root / "oidc_login.mjs", str(port)]
    with process(command, f"{url}/counts", tmp_path_factory.mktemp("idp") / "log", root):
        yield url


@dataclass
class Guarded:
    world: World
    url: str
    seen: list[str]
    """What the upstream was sent, whole."""


@asynccontextmanager
async def guarded(home: Path, idp: str) -> AsyncGenerator[Guarded]:
    seen: list[str] = []

    async def item(request: Request) -> JSONResponse:
        seen.append(f"{request.url} {sorted(request.headers.items())} {await request.body()!r}")
        return JSONResponse({"id": 7, "name": "A lamp"})

    port = free_port()
    provider = {"issuer": idp, "workspace_claim": "workspace", "scopes": SCOPES}
    settings: dict[str, Any] = {"public_url": f"http://127.0.0.1:{port}", "identity_providers": [provider]}
    async with (
        listening(Starlette(routes=[Route("/items/7", item)])) as upstream,
        gateway(home, **settings) as world,
        served(world, port=port) as url,
    ):
        get = [{"name": "get", "description": "Gets.", "method": "GET", "path": "/items/7"}]
        await world.create({"name": "shop", "display_name": "Shop", "base_url": upstream, "endpoints": get})
        yield Guarded(world, url, seen)


class Kept:
    """`TokenStorage` of the SDK."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Browser:
    """Somebody who signs in: follows the redirects until they lead back to the client."""

    def __init__(self) -> None:
        self.asked = ""
        self.came_back = ""

    async def open(self, url: str) -> None:
        self.asked = url
        async with httpx2.AsyncClient(trust_env=False) as http:
            for _ in range(10):
                answer = await http.get(url)
                url = str(httpx2.URL(url).join(answer.headers["location"]))
                if url.startswith(BACK):
                    self.came_back = url
                    return
        raise AssertionError(f"it didn't come back: {url}")

    async def result(self) -> AuthorizationCodeResult:
        found = {name: values[0] for name, values in parse_qs(urlsplit(self.came_back).query).items()}
        return AuthorizationCodeResult(code=found["code"], state=found["state"], iss=found.get("iss"))


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_python_sdk_signs_in_and_calls_a_tool(tmp_path: Path, idp: str, mode: Any) -> None:
    kept, browser = Kept(), Browser()
    with anyio.fail_after(120):
        async with guarded(tmp_path, idp) as gw:
            metadata = OAuthClientMetadata(client_name="tests", redirect_uris=[BACK])  # pyright: ignore[reportArgumentType]
            auth = OAuthClientProvider(f"{gw.url}/mcp", metadata, kept, browser.open, browser.result)
            async with (
                httpx2.AsyncClient(auth=auth, trust_env=False) as http,
                Client(streamable_http_client(f"{gw.url}/mcp", http_client=http), mode=mode) as client,
            ):
                assert "shop_get" in {t.name for t in (await client.list_tools()).tools}
                result: Any = await client.call_tool("shop_get", {})
            assert "A lamp" in result.content[0].text
            assert result.is_error is False
            asked = parse_qs(urlsplit(browser.asked).query)
            assert asked["resource"] == [f"{gw.url}/mcp"]
            assert set(asked["scope"][0].split()) - {"offline_access"} == {"call"}  # the least, never manage
            assert kept.tokens is not None
            token = kept.tokens.access_token
            assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
            calls = await gw.world.app.admin.calls(gw.world.owner, CallQuery())
            assert [(c.caller_kind, c.caller, c.tool) for c in calls] == [("token", f"{idp} user-1", "shop_get")]
            assert len(gw.seen) == 1
            assert token not in gw.seen[0]
            assert "authorization" not in gw.seen[0]


@pytest.mark.parametrize("sdk", ["1", "2"])
async def test_the_typescript_sdks_sign_in_and_call_a_tool(tmp_path: Path, idp: str, sdk: str) -> None:
    tools = node_env()
    async with guarded(tmp_path, idp) as gw:
        arguments = ("--sdk", sdk, "--url", f"{gw.url}/mcp", "--tool", "shop_get")
        done = await to_thread.run_sync(partial(tools.run, tools.script("sign_in_and_call.mjs"), *arguments))
        assert done.returncode == 0, done.stderr[-3000:]
        told = json.loads(done.stdout)
        assert "A lamp" in told["result"]["content"][0]["text"]
        asked = parse_qs(urlsplit(told["asked"]).query)
        assert asked["resource"] == [f"{gw.url}/mcp"]
        assert set(asked["scope"][0].split()) - {"offline_access"} == {"call"}
        calls = await gw.world.app.admin.calls(gw.world.owner, CallQuery())
        assert [(c.caller_kind, c.caller) for c in calls] == [("token", f"{idp} user-1")]
        assert len(gw.seen) == 1
        assert told["token"] not in gw.seen[0]
