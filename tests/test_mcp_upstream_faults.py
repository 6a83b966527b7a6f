"""MCP upstreams over HTTP that misbehave on the wire: what the caller is told, and that the next call works."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from tests.upstreams import Hostile, Received, head
from tests.world import World, gateway, http, served

pytestmark = pytest.mark.anyio
TOOLS = [
    {"name": "read", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
    {"name": "write", "inputSchema": {"type": "object"}},
]


def reply(request: dict[str, Any]) -> dict[str, Any]:
    """A server of 2025-06-18 that answers everything but tools/call, which is scripted."""
    match request["method"]:
        case "initialize":
            info = {"name": "scripted", "version": "1"}
            result: Any = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            result = {"tools": TOOLS}
        case "tools/call":
            result = {"content": [{"type": "text", "text": "fine"}]}
        case _:
            return {"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32601, "message": "unknown"}}
    return {"jsonrpc": "2.0", "id": request["id"], "result": result}


class Scripted:
    """Steps for `tools/call`, one a call; when they are used up it answers properly."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.methods: list[str] = []
        self.answers: list[Any] = []
        self.session = "s1"

    async def __call__(self, received: Received, writer: asyncio.StreamWriter) -> bool:
        if received.method != "POST":
            writer.write(head(405, {"Content-Length": "0"}))
            return True
        request = json.loads(received.body)
        self.methods.append(request.get("method", "an answer"))
        if "method" not in request:
            self.answers.append(request)
        if "id" not in request or "method" not in request:
            writer.write(head(202, {"Content-Length": "0"}))
            return True
        if request["method"] == "tools/call" and self.calls:
            return await self.calls.pop(0)(request, writer)
        if request["method"] != "initialize" and received.header("mcp-session-id") not in (None, self.session):
            writer.write(head(404, {"Content-Length": "0"}))
            return True
        body = json.dumps(reply(request)).encode()
        sizes = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Mcp-Session-Id": self.session}
        writer.write(head(200, sizes) + body)
        return True


@pytest.fixture
async def hostile() -> AsyncGenerator[tuple[Scripted, str], None]:
    async with Hostile() as server:
        scripted = Scripted()
        server.script("/mcp", scripted)
        yield scripted, server.url + "/mcp"


@pytest.fixture
async def world(tmp_path: Path, hostile: tuple[Scripted, str]) -> AsyncGenerator[World, None]:
    async with gateway(tmp_path) as made:
        await made.create(
            {"name": "up", "display_name": "Up", "protocol": "mcp", "mcp_transport": "http", "mcp_url": hostile[1]}
        )
        yield made


async def closes(request: Any, writer: asyncio.StreamWriter) -> bool:
    return False


async def half_an_answer(request: Any, writer: asyncio.StreamWriter) -> bool:
    writer.write(head(200, {"Content-Type": "application/json", "Content-Length": "1000"}) + b'{"jsonrpc"')
    return False


async def a_stream_without_the_answer(request: Any, writer: asyncio.StreamWriter) -> bool:
    writer.write(head(200, {"Content-Type": "text/event-stream", "Connection": "close"}) + b": hello\n\n")
    return False


async def html(request: Any, writer: asyncio.StreamWriter) -> bool:
    writer.write(head(200, {"Content-Type": "text/html", "Content-Length": "4"}) + b"<h1>")
    return True


async def busy(request: Any, writer: asyncio.StreamWriter) -> bool:
    writer.write(head(503, {"Retry-After": "7", "Content-Length": "0"}))
    return True


async def refuses(request: Any, writer: asyncio.StreamWriter) -> bool:
    body = json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32602, "message": "no id given"}})
    writer.write(head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))}) + body.encode())
    return True


async def unauthorized(request: Any, writer: asyncio.StreamWriter) -> bool:
    writer.write(head(401, {"Content-Length": "0"}))
    return True


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (closes, "outcome_unknown"),
        (half_an_answer, "outcome_unknown"),
        (a_stream_without_the_answer, "outcome_unknown"),
        (html, "invalid_response"),
        (busy, "upstream_unavailable"),
        (refuses, "upstream_refused"),
        (unauthorized, "credential_rejected"),
    ],
)
async def test_a_write_is_told_the_truth_is_not_repeated_and_the_next_call_works(
    world: World, hostile: tuple[Scripted, str], step: Any, code: str
) -> None:
    scripted, _ = hostile
    scripted.calls = [step]
    scripted.methods.clear()
    outcome = await world.app.toolbox.call(world.owner, "up_write", {})
    assert outcome.error is not None
    assert outcome.error.code == code
    assert scripted.methods.count("tools/call") == 1
    assert await world.call("up_write") == "fine"


@pytest.mark.parametrize("step", [closes, half_an_answer, a_stream_without_the_answer])
async def test_a_read_that_lost_its_answer_is_asked_once_more(
    world: World, hostile: tuple[Scripted, str], step: Any
) -> None:
    scripted, _ = hostile
    scripted.calls = [step]
    assert await world.call("up_read") == "fine"
    scripted.calls = [step, step]
    outcome = await world.app.toolbox.call(world.owner, "up_read", {})
    assert outcome.error is not None
    assert outcome.error.code == "answer_lost"


async def test_a_session_that_the_upstream_forgot_is_opened_anew_and_the_call_is_made_once(
    world: World, hostile: tuple[Scripted, str]
) -> None:
    scripted, _ = hostile
    assert await world.call("up_write") == "fine"
    scripted.session = "s2"
    scripted.methods.clear()
    assert await world.call("up_write") == "fine"
    assert "initialize" in scripted.methods


async def test_a_busy_upstream_says_when_to_come_back(world: World, hostile: tuple[Scripted, str]) -> None:
    hostile[0].calls = [busy]
    outcome = await world.app.toolbox.call(world.owner, "up_write", {})
    assert outcome.error is not None
    assert outcome.error.retry_after_s == 7


async def test_what_an_upstream_asks_of_its_client_is_refused_and_the_call_goes_on(
    world: World, hostile: tuple[Scripted, str]
) -> None:
    scripted, _ = hostile
    ask = {"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create", "params": {"message": "Who?"}}

    async def asks_first(request: Any, writer: asyncio.StreamWriter) -> bool:
        events = "".join(f"data: {json.dumps(m)}\n\n" for m in (ask, reply(request)))
        writer.write(head(200, {"Content-Type": "text/event-stream", "Connection": "close"}) + events.encode())
        return False

    scripted.calls = [asks_first]
    assert await world.call("up_write") == "fine"
    async with asyncio.timeout(10):
        while not scripted.answers:  # noqa: ASYNC110 - the far end of a socket has no event
            await asyncio.sleep(0.01)
    assert [(a["id"], a["error"]["code"]) for a in scripted.answers] == [("q1", -32601)]


async def test_a_stream_is_taken_up_where_it_broke_off(tmp_path: Path) -> None:
    resumed: list[str | None] = []

    async def step(received: Received, writer: asyncio.StreamWriter) -> bool:
        if received.method == "GET":
            if received.header("last-event-id") is None:
                writer.write(head(405, {"Content-Length": "0"}))
                return True
            resumed.append(received.header("last-event-id"))
            body = f"id: e2\ndata: {json.dumps(reply(asked[0]))}\n\n"
            writer.write(head(200, {"Content-Type": "text/event-stream", "Connection": "close"}) + body.encode())
            return False
        request = json.loads(received.body) if received.body else {}
        if request.get("method") == "tools/call":
            asked.append(request)
            priming = b"id: e1\nretry: 10\ndata: \n\n"
            writer.write(head(200, {"Content-Type": "text/event-stream", "Connection": "close"}) + priming)
            return False
        return await Scripted()(received, writer)

    asked: list[dict[str, Any]] = []
    async with Hostile() as server, gateway(tmp_path) as world:
        server.script("/mcp", step)
        await world.create(
            {
                "name": "up",
                "display_name": "Up",
                "protocol": "mcp",
                "mcp_transport": "http",
                "mcp_url": server.url + "/mcp",
            }
        )
        assert await world.call("up_write") == "fine"
        assert resumed == ["e1"]
        assert len(asked) == 1


async def test_the_old_transport_sends_messages_to_no_other_origin(tmp_path: Path) -> None:
    async def elsewhere(received: Received, writer: asyncio.StreamWriter) -> bool:
        body = b"event: endpoint\ndata: http://127.0.0.2:9/steal\n\n"
        writer.write(head(200, {"Content-Type": "text/event-stream", "Connection": "close"}) + body)
        return False

    async with Hostile() as server, gateway(tmp_path) as world:
        server.script("/sse", elsewhere)
        await world.create(
            {
                "name": "up",
                "display_name": "Up",
                "protocol": "mcp",
                "mcp_transport": "sse",
                "mcp_url": server.url + "/sse",
            }
        )
        health = await world.app.admin.health(world.owner)
        assert health["integrations"][0]["status"] == "misconfigured"


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        ('{"content":[],"structuredContent":{"id":123456789012345678901234}}', '"id":123456789012345678901234'),
        ('{"content":[{"type":"text","text":"done"}],"_meta":[1]}', '"text":"done"'),
        ('{"content":[],"structuredContent":{"a":%s}}' % ("[" * 300 + "]" * 300), "[invalid_response]"),
        ('{"content":[],"structuredContent":{"a":"\\ud800","n":123456789012345678901234}}', "[invalid_response]"),
    ],
    ids=["a long integer", "a list as _meta", "many levels", "half a character"],
)
@pytest.mark.parametrize("token", [{}, {"progressToken": "p"}], ids=["fast path", "SDK"])
async def test_an_odd_result_is_an_answer_on_the_wire_and_no_fault_of_the_gateway(
    world: World, hostile: tuple[Scripted, str], result: str, shown: str, token: dict[str, str]
) -> None:
    """A client that hears 500 of a write which was done would send it again."""

    async def odd(request: Any, writer: asyncio.StreamWriter) -> bool:
        body = f'{{"jsonrpc":"2.0","id":{request["id"]},"result":{result}}}'.encode()
        writer.write(head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))}) + body)
        return True

    hostile[0].calls.append(odd)
    about = "io.modelcontextprotocol/"
    envelope = {"protocolVersion": "2026-07-28", "clientCapabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    params = {"name": "up_write", "arguments": {}, "_meta": {**{about + k: v for k, v in envelope.items()}, **token}}
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "up_write",
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    async with served(world) as url, http(url, await world.key()) as client:
        answer = await client.post("/mcp", json=message, headers=headers)
    assert answer.status_code == 200
    assert shown in answer.text.replace(" ", "")


async def test_a_list_of_tools_that_never_ends_is_refused_and_not_kept(
    world: World, hostile: tuple[Scripted, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.kinds.mcp.session.MAX_LIST_BYTES", 50)
    before = (await world.app.registry.get("acme", "up")).upstream_tools
    tested = await world.app.admin.test_connection(world.owner, "up")
    assert (await world.app.registry.get("acme", "up")).upstream_tools == before
    assert tested["status"] != "healthy"
