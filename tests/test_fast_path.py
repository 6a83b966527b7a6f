"""The fast path answers as the SDK does: every request goes to both, and what comes back is compared."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.world import gateway, http, listening, served

pytestmark = pytest.mark.anyio

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
MODERN = {"MCP-Protocol-Version": "2026-07-28"}
BOTH = "application/json, text/event-stream"


async def item(request: Request) -> JSONResponse:
    wanted = request.path_params["id"]
    if wanted == "none":
        return JSONResponse({"message": "no such item"}, 404)
    return JSONResponse({"id": wanted, "q": request.query_params.get("n")})


def shop(base: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"id": {"type": "string"}, "n": {"type": "integer"}}, "required": ["id"]}
    endpoint = {
        "name": "item",
        "description": "Gets one.",
        "method": "GET",
        "path": "/items/{id}",
        "input_schema": schema,
    }
    return {"name": "shop", "display_name": "Shop", "base_url": base, "endpoints": [endpoint]}


@pytest.fixture(scope="module", params=[True, False], ids=["sessions", "stateless"])
async def pair(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[httpx2.AsyncClient, httpx2.AsyncClient]]:
    """(with the fast path, without) of one registry."""
    home = tmp_path_factory.mktemp("home")
    upstream = Starlette(routes=[Route("/items/{id}", item)])
    async with (
        listening(upstream) as base,
        gateway(home) as quick,
        gateway(home, fast_path=False) as plain,
        served(quick, sessions=request.param) as quick_url,
        served(plain, sessions=request.param) as plain_url,
    ):
        await quick.create(shop(base))
        key = await quick.key("agent")
        async with http(quick_url, key) as one, http(plain_url, key) as other:
            yield one, other


def call(arguments: Any, name: str = "shop_item", **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments, **more}}


def listing(**params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": "a", "method": "tools/list", "params": params}


def modern(body: dict[str, Any], **headers: str) -> tuple[Any, dict[str, str]]:
    params = {"_meta": META, **body["params"]}
    named = {"Mcp-Name": params["name"]} if "name" in params else {}
    return {**body, "params": params}, {**MODERN, "Mcp-Method": body["method"], **named, **headers}


REQUESTS: dict[str, tuple[Any, dict[str, str]]] = {
    "a call": modern(call({"id": "7", "n": 3})),
    "a call that fails upstream": modern(call({"id": "none"})),
    "arguments that don't fit": modern(call({"idd": "7"})),
    "no arguments": modern(call({})),
    "arguments left out": modern({**call({}), "params": {"name": "shop_item"}}),
    "arguments that are null": modern(call(None)),
    "arguments that are a list": modern(call([1])),
    "an unknown tool": modern(call({}, name="shop_itme")),
    "get_result": modern(call({"result_id": "r_none"}, name="get_result")),
    "an integer beyond 64 bits": modern(call({"id": "7", "n": 123456789012345678901234567890})),
    "a name in the header that isn't the body's": modern(call({"id": "7"}), **{"Mcp-Name": "other"}),
    "a method in the header that isn't the body's": modern(call({"id": "7"}), **{"Mcp-Method": "tools/list"}),
    "an envelope without capabilities": (
        call({"id": "7"}, _meta={"io.modelcontextprotocol/protocolVersion": "2026-07-28"}),
        {**MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "shop_item"},
    ),
    "an envelope of another version": (
        call({"id": "7"}, _meta={**META, "io.modelcontextprotocol/protocolVersion": "2025-11-25"}),
        {**MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "shop_item"},
    ),
    "client info that isn't any": (
        call({"id": "7"}, _meta={**META, "io.modelcontextprotocol/clientInfo": {"name": 1}}),
        {**MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "shop_item"},
    ),
    "an unknown version": (call({"id": "7"}), {"MCP-Protocol-Version": "2027-01-01", "Mcp-Method": "tools/call"}),
    "a parameter header": modern(call({"id": "7"}), **{"Mcp-Param-Id": "8"}),
    "a list": modern(listing()),
    "a list with a cursor that isn't one": modern(listing(cursor="nonsense")),
    "a list with a cursor that is no text": modern(listing(cursor=5)),
    "an id that is a float": modern({**call({"id": "7"}), "id": 1.5}),
    "an id that is null": modern({**call({"id": "7"}), "id": None}),
    "an id that is true": modern({**call({"id": "7"}), "id": True}),
    "a batch": ([call({"id": "7"})], {**MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "shop_item"}),
    "another method": modern({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {}}),
    "an unknown method": modern({"jsonrpc": "2.0", "id": 1, "method": "tools/nothing", "params": {}}),
    "no accept for streams": modern(call({"id": "7"}), Accept="application/json"),
    "any accept": modern(call({"id": "7"}), Accept="*/*"),
    "a content type that isn't JSON": modern(call({"id": "7"}), **{"Content-Type": "text/plain"}),
    "a call that asks for progress": modern(call({"id": "7"}, _meta={**META, "progressToken": 4})),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_both_ways_answer_the_same(pair: tuple[httpx2.AsyncClient, httpx2.AsyncClient], name: str) -> None:
    body, headers = REQUESTS[name]
    quick, plain = [await _ask(client, json.dumps(body).encode(), headers) for client in pair]
    assert quick == plain


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"jsonrpc":"2.0","id":1,"id":2}', b"\xff\xfe", b'{"a":NaN}', b"[" * 5000]
)
async def test_both_ways_refuse_what_is_no_request(
    pair: tuple[httpx2.AsyncClient, httpx2.AsyncClient], body: bytes
) -> None:
    headers = {**MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "shop_item"}
    quick, plain = [await _ask(client, body, headers) for client in pair]
    assert quick == plain
    assert quick[0] >= 400


@pytest.mark.parametrize(
    "body", [call({"id": "7"}), call({"id": "none"}), call({"x": 1}), listing(), call({}, name="nothing")], ids=str
)
async def test_both_ways_answer_older_clients_the_same(
    pair: tuple[httpx2.AsyncClient, httpx2.AsyncClient], body: dict[str, Any]
) -> None:
    answers: list[Any] = []
    for client in pair:
        headers = {"MCP-Protocol-Version": "2025-11-25", **await _session(client)}
        answers.append(await _ask(client, json.dumps(body).encode(), headers))
    assert answers[0] == answers[1]


async def test_a_session_is_answered_only_with_the_key_that_opened_it(tmp_path: Path) -> None:
    upstream = Starlette(routes=[Route("/items/{id}", item)])
    async with listening(upstream) as base, gateway(tmp_path) as world, served(world) as url:
        await world.create(shop(base))
        async with http(url, await world.key("agent")) as owner, http(url, await world.key("agent")) as other:
            session = await _session(owner)
            headers = {"MCP-Protocol-Version": "2025-11-25", **session}
            assert (await _ask(owner, json.dumps(call({"id": "7"})).encode(), headers))[0] == 200
            assert (await _ask(other, json.dumps(call({"id": "7"})).encode(), headers))[0] == 404


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_cancelled_call_stops_upstream(tmp_path: Path, era: str) -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def hang(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        arrived.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    async with listening(hang) as base, gateway(tmp_path) as world, served(world) as url:
        await world.create(shop(base))
        async with http(url, await world.key("agent")) as client:
            await _cancel(era, client, arrived)
            async with asyncio.timeout(5):
                await left.wait()


async def _cancel(era: str, client: httpx2.AsyncClient, arrived: asyncio.Event) -> None:
    if era == "modern":
        body, headers = modern(call({"id": "7"}))
        asking = asyncio.ensure_future(_ask(client, json.dumps(body).encode(), headers))
        await arrived.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        return
    headers = {"MCP-Protocol-Version": "2025-11-25", **await _session(client)}
    asking = asyncio.ensure_future(_ask(client, json.dumps(call({"id": "7"})).encode(), headers))
    await arrived.wait()
    note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    assert (await _ask(client, json.dumps(note).encode(), headers))[0] == 202
    status, answer = await asking
    assert (status, answer["error"]["message"]) == (200, "Request cancelled")


async def _session(client: httpx2.AsyncClient) -> dict[str, str]:
    """The header of a session, for a server that has them."""
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    start = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    answer = await client.post("/mcp", json=start, headers={"Accept": BOTH})
    session = answer.headers.get("mcp-session-id")
    named = {"Mcp-Session-Id": session} if session else {}
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    await client.post("/mcp", json=ready, headers={"Accept": BOTH, "MCP-Protocol-Version": "2025-11-25", **named})
    return named


async def _ask(client: httpx2.AsyncClient, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    """(status, the message) without what differs from call to call; a stream of one message is that message."""
    sent = {"Content-Type": "application/json", "Accept": BOTH, **headers}
    answer = await client.post("/mcp", content=body, headers=sent)
    text = answer.text
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        text = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")][-1]
    try:
        message = json.loads(text)
    except json.JSONDecodeError:
        return answer.status_code, text
    if isinstance(message, dict):
        message.pop("request_id", None)
        call = message.get("result", {}).get("_meta", {}).get("dev.integrations-mcp/call")
        if call is not None:
            call.update(call_id="", duration_ms=0)
    return answer.status_code, message
