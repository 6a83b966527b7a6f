"""What one connection may cost: heads, bodies, slow clients, how many there are; on raw sockets, since clients behave."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from anyio.abc import SocketStream
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from server.http_connection import ConnectionLimits, LimitedConfig
from server.listening import bind
from server.serving import Server, Worker
from tests.doors import call, listing
from tests.world import World, gateway, http, listening, served

pytestmark = pytest.mark.anyio
HOST = b"Host: localhost\r\n"
QUICK = 0.3
"""The deadline in tests of deadlines: nothing here fails where the machine is slower than that."""


@asynccontextmanager
async def gw(home: Path, **settings: Any) -> AsyncGenerator[tuple[World, str]]:
    async with gateway(home, **settings) as world, served(world) as url:
        yield world, url


@pytest.fixture(scope="module")
async def plain(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[World, str]]:
    async with gw(tmp_path_factory.mktemp("gw")) as made:
        yield made


@asynccontextmanager
async def connection(url: str) -> AsyncGenerator[SocketStream]:
    at = httpx2.URL(url)
    with anyio.fail_after(60):
        async with await anyio.connect_tcp(at.host, at.port or 0) as stream:
            yield stream


async def rest(stream: SocketStream) -> bytes:
    """What comes until the other side ends it."""
    read = b""
    try:
        while True:
            read += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return read


def error_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error_code"]


async def sent(url: str, raw: bytes) -> bytes:
    async with connection(url) as stream:
        await stream.send(raw)
        return await rest(stream)


# ---------------------------------------------------------------------- heads


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"GET /healthz HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", (431, "headers_too_large")),
        (b"GET /healthz HTTP/1.1\r\na: " + b"b" * 66_000 + b"\r\n\r\n", (431, "headers_too_large")),
        (b"GET /healthz HTTP/1.1\r\na: " + b"b" * 66_000, (431, "headers_too_large")),
        (b"GET /healthz HTTP/1.1\r\n" + b"a" * 66_000, (431, "headers_too_large")),
        (b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\n\r\n", (414, "url_too_long")),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", (400, "invalid_http")),
        (
            b"POST /mcp HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            (400, "invalid_http"),
        ),
        (b"POST /mcp HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", (400, "invalid_http")),
        (b"GET /healthz HTTP/1.1\r\na : b\r\n\r\n", (400, "invalid_http")),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400, "invalid_http")),
    ],
)
async def test_a_head_beyond_the_limits_or_of_two_meanings_is_refused(
    plain: tuple[World, str], raw: bytes, expected: tuple[int, str]
) -> None:
    assert error_of(await sent(plain[1], raw)) == expected


async def test_a_head_within_the_limits_is_answered(plain: tuple[World, str]) -> None:
    lines = HOST + b"a: b\r\n" * 90 + b"c: " + b"d" * 60_000 + b"\r\nConnection: close\r\n\r\n"
    assert (await sent(plain[1], b"GET /healthz HTTP/1.1\r\n" + lines)).startswith(b"HTTP/1.1 200 ")


async def test_limits_count_each_request_of_a_connection_anew(plain: tuple[World, str]) -> None:
    one = b"GET /healthz HTTP/1.1\r\n" + HOST + b"a: b\r\n" * 60 + b"c: " + b"d" * 40_000 + b"\r\n"
    answers = await sent(plain[1], (one + b"\r\n") * 3 + one + b"Connection: close\r\n\r\n")
    assert answers.count(b"HTTP/1.1 200 ") == 4


@pytest.mark.parametrize(
    "trailer", ["Authorization: Bearer {key}", "Host: evil.example", "Origin: https://evil.example"]
)
async def test_trailers_are_no_headers(plain: tuple[World, str], trailer: str) -> None:
    """A proxy has judged the head; what comes behind the body must not change it."""
    world, url = plain
    line = trailer.format(key=await world.key()).encode()
    body = b"2\r\n{}\r\n0\r\n" + line + b"\r\n\r\n"
    head = b"POST /mcp HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert (await sent(url, head + body)).startswith(b"HTTP/1.1 401 ")


# ---------------------------------------------------------------------- slow clients


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"\r\n",
        b"GET /heal",
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"a: ",
        b"POST /mcp HTTP/1.1\r\n" + HOST + b"Authorization: Bearer KEY\r\nContent-Length: 100\r\n\r\n{",
        b"POST /v1/acme/integrations HTTP/1.1\r\n"
        + HOST
        + b"Authorization: Bearer KEY\r\nContent-Length: 100\r\n\r\n{",
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\nGET /heal",
    ],
)
@pytest.mark.parametrize("dribble", [True, False])
async def test_who_sends_too_slowly_hears_so_and_is_cut_off(tmp_path: Path, begun: bytes, dribble: bool) -> None:
    async with gw(tmp_path, client_seconds=QUICK) as (world, url), connection(url) as stream:
        await stream.send(begun.replace(b"KEY", (await world.key()).encode()))

        async def drip() -> None:
            while True:  # each byte in time, the whole never
                try:
                    await stream.send(b"a")
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return
                await anyio.sleep(QUICK / 10)

        async with anyio.create_task_group() as group:
            if dribble and begun.strip():
                group.start_soon(drip)
            answer = await rest(stream)
            group.cancel_scope.cancel()
        assert error_of(answer[answer.rindex(b"HTTP/1.1 ") :]) == (408, "request_timeout")


async def test_who_does_not_take_the_answer_is_cut_off(tmp_path: Path) -> None:
    async with gw(tmp_path, client_seconds=QUICK) as (_, url):
        whole = len(await sent(url, b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"))
        async with connection(url) as stream, connection(url) as other:
            asked = 400
            await stream.send((b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n") * asked)
            assert error_of(await rest(other))[0] == 408  # so much time has passed
            assert error_of(await sent(url, b""))[0] == 408
            assert len(await rest(stream)) < whole * asked


async def test_a_call_that_takes_long_is_no_slow_client(tmp_path: Path) -> None:
    go_on = anyio.Event()

    async def slow(request: Request) -> JSONResponse:
        await go_on.wait()
        return JSONResponse({"done": True})

    async with (
        listening(Starlette(routes=[Route("/x", slow)])) as upstream,
        gw(tmp_path, client_seconds=QUICK) as (world, url),
        http(url, "") as client,
    ):
        get = [{"name": "get", "description": "Gets.", "method": "GET", "path": "/x"}]
        await world.create({"name": "slow", "display_name": "Slow", "base_url": upstream, "endpoints": get})
        asked = call("slow_get", {}, await world.key())
        answers: list[httpx2.Response] = []

        async def ask() -> None:
            answers.append(await client.post("/mcp", **asked))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                for _ in range(2):  # twice the deadline passes
                    assert error_of(await sent(url, b""))[0] == 408
                go_on.set()
        assert "done" in answers[0].text


# ---------------------------------------------------------------------- how many


async def test_connections_beyond_the_limit_are_told_to_come_back(tmp_path: Path) -> None:
    ask = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    async with gw(tmp_path, max_connections=2) as (_, url):
        async with connection(url) as one, connection(url) as two:
            for stream in (one, two):
                await stream.send(ask)
                assert (await stream.receive()).startswith(b"HTTP/1.1 200 ")
            refused = await sent(url, ask)
            assert error_of(refused) == (503, "too_many_connections")
            assert b"retry-after: 5" in refused
            await one.send(ask)
            assert (await one.receive()).startswith(b"HTTP/1.1 200 ")
        while not (answer := await sent(url, ask[:-2] + b"Connection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 "):
            assert error_of(answer) == (503, "too_many_connections")  # the others' end isn't noticed yet


# ---------------------------------------------------------------------- browsers

PAGES = ("/", "/healthz", "/readyz", "/openapi.json", "/v1/acme/integrations", "/mcp", "/sse", "/nowhere")


@pytest.mark.parametrize("path", PAGES)
async def test_what_a_browser_can_open_is_not_run_framed_or_kept(plain: tuple[World, str], path: str) -> None:
    async with httpx2.AsyncClient(base_url=plain[1], trust_env=False) as client:
        for method in ("GET", "HEAD"):
            headers = (await client.request(method, path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:3000"])
@pytest.mark.parametrize("path", PAGES)
async def test_no_page_of_another_origin_may_read_an_answer(plain: tuple[World, str], path: str, origin: str) -> None:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    async with httpx2.AsyncClient(base_url=plain[1], trust_env=False) as client:
        for method in ("OPTIONS", "GET"):
            answer = await client.request(method, path, headers=asked)
            assert [name for name in answer.headers if name.startswith("access-control")] == []


# ---------------------------------------------------------------------- the server's end


async def hello(request: Request) -> JSONResponse:
    return JSONResponse({"hello": (await request.body()).decode()})


@pytest.mark.parametrize("as_worker", [False, True])
async def test_what_was_connected_before_the_server_ended_is_still_answered(as_worker: bool) -> None:
    """Also a connection that nobody had taken from the queue, and one in the middle of its head."""
    app = Starlette(routes=[Route("/", hello, methods=["GET", "POST"])])
    config = LimitedConfig(app, ConnectionLimits(last_request=50), lifespan="off", log_config=None, access_log=False)
    sock = bind("127.0.0.1", 0)
    sock.listen(16)
    server = Worker(config, [sock]).server if as_worker else Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[sock]))
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    async with connection(url) as used, connection(url) as fresh, connection(url) as half:
        await used.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert b"200 OK" in await used.receive()
        await half.send(b"POST / HTTP/1.1\r\n" + HOST)
        queued = socket.create_connection(
            sock.getsockname()
        )  # blocking, so that the server can't take it before it ends
        server.should_exit = True
        try:
            assert await rest(used) == b""  # between two requests: closed at once
            await half.send(b"Content-Length: 3\r\n\r\nabc")
            await fresh.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
            queued.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
            for answer in (await rest(half), await rest(fresh), await anyio.to_thread.run_sync(queued.recv, 4096)):
                assert answer.startswith(b"HTTP/1.1 200 OK")
                assert b"connection: close" in answer.lower()
        finally:
            queued.close()
    await serving


async def test_a_connection_that_asks_nothing_does_not_keep_the_server_from_ending() -> None:
    app = Starlette(routes=[Route("/", hello)])
    config = LimitedConfig(app, ConnectionLimits(last_request=QUICK), lifespan="off", log_config=None, access_log=False)
    sock = bind("127.0.0.1", 0)
    sock.listen(16)
    server = Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[sock]))
    async with connection(f"http://127.0.0.1:{sock.getsockname()[1]}") as silent:
        server.should_exit = True
        assert await rest(silent) == b""
        with anyio.fail_after(20):
            await serving


# ---------------------------------------------------------------------- answers in one piece


def _listing(token: str, version: bytes = b"HTTP/1.1", n: int = 1) -> bytes:
    """tools/list as the fast path takes it, on a raw socket."""
    asked = listing(token)
    body = json.dumps({**asked["json"], "id": n}).encode()
    heads = {**asked["headers"], "Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in heads.items())
    return b"POST /mcp " + version + b"\r\n" + HOST + lines + b"\r\n" + body


async def test_requests_sent_together_are_answered_whole_and_in_their_order(plain: tuple[World, str]) -> None:
    world, url = plain
    key = await world.key("agent")
    async with connection(url) as stream:
        await stream.send(b"".join(_listing(key, n=n) for n in range(3)))
        read = b""
        while read.count(b'"resultType"') < 3:
            read += await stream.receive()
    heads = [part.split(b"\r\n\r\n")[0] for part in read.split(b"HTTP/1.1 ")[1:]]
    bodies = [json.loads(part.split(b"\r\n\r\n")[1]) for part in read.split(b"HTTP/1.1 ")[1:]]
    assert [body["id"] for body in bodies] == [0, 1, 2]
    for head in heads:
        names = {line.split(b":")[0] for line in head.split(b"\r\n")[1:]}
        assert names == {b"date", b"content-type", b"content-length", b"x-request-id"}


async def test_a_client_of_http_1_0_is_answered_whole_and_the_connection_ends(plain: tuple[World, str]) -> None:
    world, url = plain
    answered = await sent(url, _listing(await world.key("agent"), b"HTTP/1.0"))
    head, _, body = answered.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in head
    assert json.loads(body)["result"]["resultType"] == "complete"
