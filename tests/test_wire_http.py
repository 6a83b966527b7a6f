"""What the HTTP wire refuses before any handler runs, and how: Host, Origin, keys, sizes, methods, JSON; raw requests."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from server.wire import hops_of
from tests.world import World, gateway, http, served

pytestmark = pytest.mark.anyio

LIMIT = 4096
BOTH = "application/json, text/event-stream"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
}


@dataclass(frozen=True)
class Served:
    """One gateway behind both kinds of wire: with legacy sessions, and without."""

    world: World
    sessions: httpx2.AsyncClient
    stateless: httpx2.AsyncClient


@asynccontextmanager
async def serving(home: Path, **settings: Any) -> AsyncGenerator[Served]:
    """Clients with an owner's key."""
    async with gateway(home, **settings) as world, served(world) as one, served(world, sessions=False) as two:
        key = await world.key()
        async with http(one, key) as sessions, http(two, key) as stateless:
            yield Served(world, sessions, stateless)


@pytest.fixture(scope="module")
async def gw(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    async with serving(tmp_path_factory.mktemp("gw"), max_body_bytes=LIMIT) as found:
        yield found


def modern(method: str, params: Mapping[str, Any] | None = None, **headers: str) -> dict[str, Any]:
    """The arguments of a POST in the manner of 2026-07-28."""
    params = {**(params or {}), "_meta": META}
    sent = {"Accept": BOTH, "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method, **headers}
    if "name" in params:
        sent.setdefault("Mcp-Name", params["name"])
    return {"headers": sent, "json": {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}}


def legacy(method: str, params: Mapping[str, Any] | None = None, **headers: str) -> dict[str, Any]:
    """The arguments of a POST in the manner of 2025-11-25."""
    sent = {"Accept": BOTH, "MCP-Protocol-Version": "2025-11-25", **headers}
    return {"headers": sent, "json": {"jsonrpc": "2.0", "id": 1, "method": method, "params": dict(params or {})}}


def result_of(response: httpx2.Response) -> Any:
    """The JSON-RPC message of a JSON answer or of a stream's last event."""
    if response.headers["content-type"].startswith("text/event-stream"):
        lines = [line for line in response.text.splitlines() if line.startswith("data: {")]
        return json.loads(lines[-1].removeprefix("data: "))
    return response.json()


INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "tests", "version": "1"},
}


@pytest.mark.parametrize("path", ["/mcp", "/sse", "/v1/acme/integrations", "/messages/", "/nowhere"])
@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": "evil.example"}, 421, "host_refused"),
        ({"Host": "127.0.0.1.evil.example:80"}, 421, "host_refused"),
        ({"Origin": "https://evil.example"}, 403, "host_refused"),
        ({"Origin": "null"}, 403, "host_refused"),
    ],
)
async def test_a_page_of_another_site_is_refused_everywhere(
    gw: Served, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    response = await gw.sessions.post(path, headers=headers)
    assert response.status_code == status
    assert response.json()["error_code"] == code


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_a_probe_is_answered_under_any_name_without_a_key(gw: Served, path: str) -> None:
    response = await gw.sessions.get(path, headers={"Host": "10.0.0.7:8080", "Authorization": ""})
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("setting", "headers"),
    [
        ({"allowed_hosts": ("gw.example",)}, {"Host": "gw.example"}),
        ({"public_url": "https://gw.example"}, {"Host": "gw.example", "Origin": "https://gw.example"}),
        ({"allowed_origins": ("https://app.example",)}, {"Origin": "https://app.example"}),
        ({}, {"Origin": "http://localhost:6274"}),
    ],
)
async def test_names_that_the_operator_allows_are_answered(
    tmp_path: Path, setting: dict[str, Any], headers: dict[str, str]
) -> None:
    async with serving(tmp_path, **setting) as found:
        request = modern("tools/list")
        response = await found.sessions.post("/mcp", json=request["json"], headers={**request["headers"], **headers})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/mcp", "/sse", "/messages/", "/v1/acme/integrations"])
@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer imcp_wrong", "Basic YTpi", "imcp_wrong"])
async def test_without_a_valid_key_the_answer_says_how_to_give_one(
    gw: Served, path: str, authorization: str | None
) -> None:
    method = "GET" if path in ("/sse", "/v1/acme/integrations") else "POST"
    headers = {} if authorization is None else {"Authorization": authorization}
    async with httpx2.AsyncClient(base_url=gw.sessions.base_url, trust_env=False) as client:
        response = await client.request(method, path, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert "Authorization: Bearer KEY" in response.json()["detail"]
    assert response.json()["request_id"] == response.headers["x-request-id"]


async def test_guessing_keys_is_slowed_down_and_a_good_key_still_works(tmp_path: Path) -> None:
    async with serving(tmp_path) as found:
        client = found.sessions
        statuses: list[int] = []
        for n in range(22):
            wrong = await client.post("/mcp", headers={"Authorization": f"Bearer imcp_guess{n}"})
            statuses.append(wrong.status_code)
        assert statuses[:20] == [401] * 20
        assert statuses[-1] == 429
        assert int(wrong.headers["retry-after"]) >= 1
        assert wrong.json()["error_code"] == "rate_limited"
        fresh = {"Authorization": f"Bearer {await found.world.key('agent')}"}
        assert (await client.post("/mcp", **modern("tools/list", None, **fresh))).status_code == 200


@pytest.mark.parametrize("sessions", [True, False])
@pytest.mark.parametrize("shape", [modern, legacy])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_413_declared_or_not(
    gw: Served, sessions: bool, shape: Any, declared: bool
) -> None:
    request = shape("tools/call", {"name": "x", "arguments": {"a": "b" * LIMIT}})
    body = json.dumps(request["json"]).encode()

    async def pieces() -> AsyncGenerator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    headers = {**request["headers"], "Content-Type": "application/json"}
    client = gw.sessions if sessions else gw.stateless
    response = await client.post("/mcp", content=body if declared else pieces(), headers=headers)
    assert response.status_code == 413


async def test_a_message_over_the_limit_is_413_on_sse(gw: Served) -> None:
    response = await gw.sessions.post("/messages/", params={"session_id": "0" * 32}, content=b"x" * (LIMIT + 1))
    assert response.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "sessions", "allow"),
    [
        ("GET", "/mcp", False, "POST"),
        ("DELETE", "/mcp", False, "POST"),
        ("PUT", "/mcp", False, "POST"),
        ("PUT", "/mcp", True, "GET, POST, DELETE"),
        ("POST", "/sse", True, "GET"),
        ("GET", "/messages/", True, "POST"),
    ],
)
async def test_another_method_is_405_and_says_which(
    gw: Served, method: str, path: str, sessions: bool, allow: str
) -> None:
    client = gw.sessions if sessions else gw.stateless
    response = await client.request(method, path, headers={"Accept": BOTH})
    assert response.status_code == 405
    assert {m.strip() for m in response.headers["allow"].split(",")} == {m.strip() for m in allow.split(",")}


@pytest.mark.parametrize("path", ["/", "/nowhere", "/mcp/", "/mcp/x", "/sse/", "/healthz/x", "/.env", "//mcp"])
async def test_an_unknown_path_is_404_in_the_contracts_shape(gw: Served, path: str) -> None:
    response = await gw.sessions.get(str(gw.sessions.base_url).rstrip("/") + path)
    assert response.status_code == 404
    assert set(response.json()) == {"detail", "error_code", "request_id"}


@pytest.mark.parametrize("sessions", [True, False])
@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"", -32700),
        (b"\xff\xfe", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":', -32700),
        (b"[" * (LIMIT - 1), -32700),
        (b"[]", -32600),
        (b'{"id":1}', -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"tools/list"}', -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]', -32600),
    ],
)
async def test_what_is_not_a_request_is_400_with_the_codes_of_json_rpc(
    gw: Served, sessions: bool, version: str, body: bytes, code: int
) -> None:
    headers = {"Accept": BOTH, "Content-Type": "application/json", "MCP-Protocol-Version": version}
    client = gw.sessions if sessions else gw.stateless
    response = await client.post("/mcp", content=body, headers={**headers, "Mcp-Method": "tools/list"})
    assert response.status_code == 400
    if version == "2025-11-25" and code == -32600:
        code = -32602  # the SDK's word for a wrong envelope in its older transport
    assert response.json()["error"]["code"] == code
    assert response.json()["id"] is None


async def test_an_unknown_method_is_told_as_such(gw: Served) -> None:
    response = await gw.sessions.post("/mcp", **modern("tools/levitate"))
    assert response.json()["error"]["code"] == -32601
    assert response.json()["id"] == 1


@pytest.mark.parametrize(
    ("given", "kept"),
    [("trace-7/a", True), ("a" * 128, True), ("a" * 129, False), ("two words", False), ("é", False), (None, False)],
)
@pytest.mark.parametrize("path", ["/mcp", "/v1/acme/integrations", "/nowhere", "/healthz"])
async def test_every_answer_names_the_request(gw: Served, path: str, given: str | None, kept: bool) -> None:
    headers = [] if given is None else [(b"x-request-id", given.encode("latin-1"))]
    response = await gw.sessions.get(path, headers=headers)
    assert len(response.headers.get_list("x-request-id")) == 1
    if kept:
        assert response.headers["x-request-id"] == given
    else:
        assert response.headers["x-request-id"].startswith("req_")


async def open_session(client: httpx2.AsyncClient) -> dict[str, str]:
    """Opens a legacy session; the headers of its requests."""
    opened = await client.post("/mcp", **legacy("initialize", INITIALIZE))
    assert result_of(opened)["result"]["protocolVersion"] == "2025-11-25"
    headers = {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
    told = legacy("notifications/initialized", None, **headers)
    del told["json"]["id"], told["json"]["params"]
    assert (await client.post("/mcp", **told)).status_code == 202
    return headers


@pytest.mark.parametrize("method", ["tools/list", "tools/call"])
async def test_a_session_belongs_to_the_key_that_opened_it(gw: Served, method: str) -> None:
    client = gw.sessions
    params = {"name": "list_integrations", "arguments": {}} if method == "tools/call" else {}
    session = await open_session(client)
    other = {**session, "Authorization": f"Bearer {await gw.world.key()}"}
    for verb in ("GET", "DELETE"):
        assert (await client.request(verb, "/mcp", headers={**other, "Accept": BOTH})).status_code == 404
    assert (await client.post("/mcp", **legacy(method, params, **other))).status_code == 404
    assert "result" in result_of(await client.post("/mcp", **legacy(method, params, **session)))
    assert (await client.request("DELETE", "/mcp", headers={**session, "Accept": BOTH})).status_code == 200
    assert (await client.post("/mcp", **legacy(method, params, **session))).status_code == 404


async def test_messages_of_another_keys_sse_connection_are_404(gw: Served) -> None:
    client = gw.sessions
    with anyio.fail_after(10):
        async with client.stream("GET", "/sse") as stream:
            lines = stream.aiter_lines()
            while not (line := await anext(lines)).startswith("data: "):
                pass
            where = line.removeprefix("data: ")
            message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}
            other = {"Authorization": f"Bearer {await gw.world.key()}"}
            assert (await client.post(where, json=message, headers=other)).status_code == 404
            assert (await client.post(where, json=message)).status_code == 202


@pytest.mark.parametrize("blanks", [b" %b ", b"%b\t", b"  %b", b"%b \t "])
@pytest.mark.parametrize("tool", ["list_integrations", "shop_get"])
async def test_blanks_around_a_header_value_are_no_part_of_it(gw: Served, blanks: bytes, tool: str) -> None:
    """RFC 9110 5.5. On a raw connection, since clients refuse to send them."""
    request = modern("tools/call", {"name": tool, "arguments": {}})
    body = json.dumps(request["json"]).encode()
    sent = {**request["headers"], "Authorization": gw.sessions.headers["authorization"], "Host": "localhost"}
    lines = [b"%b:%b" % (name.encode(), blanks % value.encode()) for name, value in sent.items()]
    lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(body), b"Connection: close"]
    url = gw.sessions.base_url
    with anyio.fail_after(10):
        async with await anyio.connect_tcp(url.host, url.port or 0) as stream:
            await stream.send(b"POST /mcp HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + body)
            answer = b"".join([piece async for piece in stream])
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"result"' in answer


async def test_1500_tools_come_in_two_pages_and_a_bad_cursor_is_invalid_params(tmp_path: Path) -> None:
    def many(name: str) -> dict[str, Any]:
        get = [{"name": f"n{n:03}", "description": "Gets.", "method": "GET", "path": f"/{n}"} for n in range(750)]
        return {"name": name, "display_name": name, "base_url": "http://127.0.0.1:9", "endpoints": get}

    async with serving(tmp_path) as found:
        client = found.sessions
        for name in ("alpha", "beta"):
            await found.world.create(many(name))
        session = await open_session(client)
        agent = {"Authorization": f"Bearer {await found.world.key('agent')}"}
        for shape, more in ((modern, agent), (legacy, session)):
            first = result_of(await client.post("/mcp", **shape("tools/list", None, **more)))["result"]
            assert len(first["tools"]) == 1000
            rest = await client.post("/mcp", **shape("tools/list", {"cursor": first["nextCursor"]}, **more))
            second = result_of(rest)["result"]
            assert "nextCursor" not in second
            names = [t["name"] for t in first["tools"] + second["tools"]]
            assert len(set(names)) == len(names)
            expected = {f"{i}_n{n:03}" for i in ("alpha", "beta") for n in range(750)}
            assert {n for n in names if n.startswith(("alpha_", "beta_"))} == expected
            for cursor in ("", "!", "zzz", "AAAA=", first["nextCursor"] + "!", 7):
                bad = result_of(await client.post("/mcp", **shape("tools/list", {"cursor": cursor}, **more)))
                assert bad["error"]["code"] == -32602, cursor


@pytest.mark.parametrize(
    ("value", "hops"), [("0", 0), ("2", 2), ("1000", 1000), ("9" * 5000, 999_999_999), ("", 0), ("-1", 0), ("²", 0)]
)
def test_a_hop_count_is_never_read_as_less_than_it_says(value: str, hops: int) -> None:
    assert hops_of(value) == hops
    assert hops_of(None) == 0
