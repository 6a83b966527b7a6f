"""`connect URL`: a host speaks stdio to the bridge, and the bridge speaks HTTP to a gateway that comes and goes."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.bridge import Bridge
from server.bridge_messages import Message
from tests.processes import SCRIPT, environment
from tests.world import gateway, listening, served

pytestmark = pytest.mark.anyio
SHOP: dict[str, Any] = {
    "name": "shop",
    "display_name": "Shop",
    "endpoints": [{"name": "get_item", "description": "Gets one.", "method": "GET", "path": "/items/{id}"}],
}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
}


async def item(request: Request) -> JSONResponse:
    return JSONResponse({"id": request.path_params["id"]})


@asynccontextmanager
async def shop(home: Path) -> AsyncGenerator[tuple[str, str]]:
    """A served gateway with one tool: (url, key)."""
    upstream = Starlette(routes=[Route("/items/{id}", item)])
    async with listening(upstream) as base, gateway(home) as world, served(world) as url:
        await world.create({**SHOP, "base_url": base})
        yield url, await world.key("agent")


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_host_lists_and_calls_through_the_bridge_in_both_eras(tmp_path: Path, mode: Any) -> None:
    async with shop(tmp_path) as (url, key):
        env = environment(tmp_path, {"INTEGRATIONS_MCP_API_KEY": key, "INTEGRATIONS_MCP_URL": url})
        started = StdioServerParameters(command=str(SCRIPT), args=["connect"], env=env)
        with anyio.fail_after(40):
            async with Client(stdio_client(started), mode=mode) as mcp:
                assert [t.name for t in (await mcp.list_tools()).tools] == ["get_result", "shop_get_item"]
                result = await mcp.call_tool("shop_get_item", {"id": "7"})
        assert result.content[0].text == '{"id":"7"}'  # pyright: ignore


class FakeServer:
    """A gateway whose every answer is told by `answer(message, request)`; notes what arrived."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.arrived: list[tuple[Message, dict[str, str]]] = []

    @property
    def methods(self) -> list[str]:
        return [m.get("method", "(answer)") for m, _ in self.arrived]

    async def handle(self, request: httpx2.Request) -> httpx2.Response:
        if request.method != "POST":
            return httpx2.Response(405)
        message = json.loads(request.content)
        self.arrived.append((message, dict(request.headers)))
        answer = self.answer(message, request)
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def bridged(server: FakeServer, patience_s: float = 5) -> AsyncIterator[tuple[Any, list[Message]]]:
    """(send, told): `send` gives the bridge a message and waits until it has nothing to do; `told` is what the host got."""
    told: list[Message] = []

    async def to_host(message: Message) -> None:
        told.append(message)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(server.handle)) as client:
        bridge = Bridge(client, "http://gw.test/mcp", to_host, patience_s=patience_s)

        async def send(message: Message) -> None:
            with anyio.fail_after(20):
                async with anyio.create_task_group() as tasks:
                    await bridge.from_host(message, tasks)

        yield send, told


def ok(message: Message, result: dict[str, Any] | None = None, **headers: str) -> httpx2.Response:
    if "id" not in message:
        return httpx2.Response(202)
    return httpx2.Response(200, json={"jsonrpc": "2.0", "id": message["id"], "result": result or {}}, headers=headers)


def call(id: int = 1, **more: Any) -> Message:
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "t", "arguments": {}, **more}}


INITIALIZE: Message = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
INITIALIZED: Message = {"jsonrpc": "2.0", "method": "notifications/initialized"}


async def test_a_session_that_the_server_forgot_is_made_anew_and_the_call_goes_through_once() -> None:
    sessions = iter(["one", "two"])
    alive: set[str] = set()
    done: list[Message] = []

    def answer(message: Message, request: httpx2.Request) -> httpx2.Response:
        if message.get("method") == "initialize":
            alive.add(name := next(sessions))
            return ok(message, {"protocolVersion": "2025-11-25"}, **{"mcp-session-id": name})
        if request.headers.get("mcp-session-id") not in alive:
            return httpx2.Response(404, json={"jsonrpc": "2.0", "id": None, "error": {"code": -1, "message": "gone"}})
        if message.get("method") == "tools/call":
            done.append(message)
        return ok(message)

    server = FakeServer(answer)
    async with bridged(server) as (send, told):
        await send(INITIALIZE)
        await send(INITIALIZED)
        alive.clear()  # the server restarted
        await send(call(5))
    assert server.methods == [
        "initialize", "notifications/initialized", "tools/call", "initialize", "notifications/initialized", "tools/call"
    ]  # fmt: skip
    assert len(done) == 1
    assert [m.get("id") for m in told if "result" in m] == [0, 5]
    assert told[1]["method"] == "notifications/tools/list_changed"
    assert server.arrived[-1][1]["mcp-protocol-version"] == "2025-11-25"


async def test_a_server_that_is_starting_is_waited_for() -> None:
    refusals = [httpx2.ConnectError("refused"), httpx2.Response(503, headers={"retry-after": "5"})]
    server = FakeServer(lambda message, _: refusals.pop() if refusals else ok(message))
    async with bridged(server) as (send, told):
        await send(call())
    assert told == [{"jsonrpc": "2.0", "id": 1, "result": {}}]


async def test_a_server_that_stays_away_is_a_json_rpc_error_that_says_nothing_was_sent() -> None:
    server = FakeServer(lambda message, _: httpx2.ConnectError("refused"))
    async with bridged(server, patience_s=0.2) as (send, told):
        await send(call())
    assert told[0]["id"] == 1
    assert "can't be reached" in told[0]["error"]["message"]
    assert "Nothing was sent" in told[0]["error"]["message"]


async def test_a_call_whose_answer_was_lost_is_never_sent_twice() -> None:
    server = FakeServer(lambda message, _: httpx2.ReadError("lost"))
    async with bridged(server) as (send, told):
        await send(call())
    assert server.methods == ["tools/call"]
    assert "MAY have been carried out" in told[0]["error"]["message"]


async def test_a_list_whose_answer_was_lost_is_asked_for_again() -> None:
    lost = [httpx2.ReadError("lost")]
    server = FakeServer(lambda message, _: lost.pop() if lost else ok(message, {"tools": []}))
    async with bridged(server) as (send, told):
        await send({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert told == [{"jsonrpc": "2.0", "id": 1, "result": {"tools": []}}]


async def test_a_modern_request_is_mirrored_in_its_headers() -> None:
    server = FakeServer(lambda message, _: ok(message))
    async with bridged(server) as (send, _):
        await send(call(_meta=META))
    headers = server.arrived[0][1]
    assert (headers["mcp-protocol-version"], headers["mcp-method"], headers["mcp-name"]) == (
        "2026-07-28",
        "tools/call",
        "t",
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            httpx2.Response(401, json={"detail": "no such key", "error_code": "unauthenticated"}),
            "doesn't accept the API key",
        ),
        (httpx2.Response(308, headers={"location": "https://other.test/mcp"}), "https://other.test/mcp"),
        (httpx2.Response(404, text="nope"), "ends in /mcp"),
        (httpx2.Response(500, text="x"), "answered 500"),
        (httpx2.Response(400, json={"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "bad"}}), "bad"),
    ],
)
async def test_a_refusal_of_the_server_is_told_to_the_host_as_a_sentence(answer: httpx2.Response, said: str) -> None:
    server = FakeServer(lambda message, _: answer)
    async with bridged(server) as (send, told):
        await send(call(9))
    assert told[0]["id"] == 9
    assert said in told[0]["error"]["message"]


async def test_events_before_the_answer_reach_the_host_in_their_order() -> None:
    progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}

    def answer(message: Message, _: httpx2.Request) -> httpx2.Response:
        result = {"jsonrpc": "2.0", "id": message["id"], "result": {}}
        text = f"event: message\ndata: {json.dumps(progress)}\n\nevent: message\ndata: {json.dumps(result)}\n\n"
        return httpx2.Response(200, text=text, headers={"content-type": "text/event-stream"})

    async with bridged(FakeServer(answer)) as (send, told):
        await send(call())
    assert told == [progress, {"jsonrpc": "2.0", "id": 1, "result": {}}]


async def test_the_key_is_in_no_message_to_the_host_even_when_it_is_refused(tmp_path: Path) -> None:
    key = "igw_canary-0123456789"

    async def refuse(request: Request) -> Response:
        return JSONResponse({"detail": "unknown key"}, 401)

    async with listening(Starlette(routes=[Route("/mcp", refuse, methods=["POST"])])) as url:
        env = environment(tmp_path, {"INTEGRATIONS_MCP_API_KEY": key})
        with anyio.fail_after(40):
            async with await anyio.open_process([SCRIPT, "connect", url], env=env, cwd=tmp_path) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                assert process.stderr is not None
                await process.stdin.send(json.dumps(INITIALIZE).encode() + b"\n")
                await process.stdin.aclose()
                out = b"".join([chunk async for chunk in process.stdout])
                err = b"".join([chunk async for chunk in process.stderr])
    assert "doesn't accept the API key" in json.loads(out)["error"]["message"]
    assert key.encode() not in out + err
