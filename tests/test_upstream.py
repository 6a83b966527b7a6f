"""The door to the network against a server that behaves badly; what arrived at the far end is what counts."""

import asyncio
import gzip
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx2
import orjson
import pytest

from tests.httpx_engine import HttpxEngine
from tests.upstreams import (
    Hostile,
    Received,
    Step,
    answer,
    drop,
    endless,
    gzip_bomb,
    head,
    raw,
    reset,
    silence,
    stall,
)
from tools.address_guard import NetworkPolicy
from tools.engine import HttpEngine
from tools.errors import (
    AnswerLost,
    CallError,
    CredentialUnavailable,
    InvalidResponse,
    Misconfigured,
    OutcomeUnknown,
    ResponseTooLarge,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tools.exchange import ConnectFailed, ConnectionLost, Wire
from tools.upstream import Answer, Attempt, Limits, Request, Retry, Upstream, retry_after_s
from tools.way_out import WayOut, strict_tls

pytestmark = pytest.mark.anyio

BUSY = Retry(max_retries=2, statuses=frozenset({429, 500, 502, 503, 504}))
BUSY_WRITE = Retry(max_retries=2, statuses=frozenset({429, 500, 502, 503, 504}), idempotent=False)


class Clock:
    """Time that passes only by sleeping; `slept` are the waits asked for."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def server() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    return strict_tls()  # one for all: it reads the system's CA file


@pytest.fixture
async def upstream(clock: Clock, tls: ssl.SSLContext) -> AsyncIterator[Upstream]:
    open_policy = NetworkPolicy(allow_private=True)
    engine = HttpEngine(open_policy, way=WayOut(tls))
    upstream = Upstream(
        open_policy, engine=engine, clock=clock, wall_clock=clock, sleep=clock.sleep, random=lambda: 1.0
    )
    yield upstream
    await upstream.aclose()


def seen(answer: Answer) -> Any:
    return orjson.loads(answer.body)


# --------------------------------------------------------------------------- what goes out


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/a/../b",
        "/a//b/./c",
        "/%2e%2e/x",
        "/a%2Fb%3F",
        "/x?q=%20+%2B&a=1&a=2",
        "/x?",
        "/p;v=1/(a)'!*",
        "/%7Euser/~",
    ],
)
async def test_the_url_is_sent_as_it_was_built(server: Hostile, upstream: Upstream, target: str) -> None:
    await upstream.send(Request("GET", server.url + target), pool="w")
    assert [request.target for request in server.received] == [target]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
async def test_the_request_arrives_as_it_was_given(server: Hostile, upstream: Upstream, method: str) -> None:
    body = None if method in ("GET", "HEAD") else b'{"a":"\xc3\xa9"}'
    headers = (("Content-Type", "application/fhir+json"), ("X-Two", "a"), ("X-Two", "b"), ("X-Word", "Zoë"))
    await upstream.send(Request(method, server.url + "/x", headers, body), pool="w")
    (request,) = server.received
    assert (request.method, request.body) == (method, body or b"")
    assert [v for k, v in request.headers if k == "X-Two"] == ["a", "b"]
    assert (request.header("x-word") or "").encode("latin-1").decode() == "Zoë"
    assert [v for k, v in request.headers if k.lower() == "content-type"] == ["application/fhir+json"]
    assert request.header("user-agent") == "integrations-mcp"


async def test_a_body_without_content_type_gets_none(server: Hostile, upstream: Upstream) -> None:
    await upstream.send(Request("POST", server.url + "/x", (), b"abc"), pool="w")
    assert server.received[0].header("content-type") is None


async def test_a_body_of_several_megabytes_arrives_whole(server: Hostile, upstream: Upstream) -> None:
    body = bytes(range(256)) * 12_000
    await upstream.send(Request("PUT", server.script("/x", answer(204)), (), body), pool="w", retry=BUSY)
    assert server.received[0].body == body


@pytest.mark.parametrize(
    "header",
    [
        ("X-A", "a\r\nX-Evil: 1"),
        ("X-A", "a\nb"),
        ("X-A", "a\rb"),
        ("X-A", "a\x00"),
        ("X-A", "\udc80"),
        ("X-A\r\nX-Evil", "1"),
        ("X A", "1"),
        ("", "1"),
        ("X-Ä", "1"),
        ("Host", "other"),
        ("Transfer-Encoding", "chunked"),
        ("content-length", "0"),
        ("Connection", "close"),
        ("Expect", "100-continue"),
    ],
)
async def test_a_header_that_would_break_the_request_never_reaches_the_wire(
    server: Hostile, upstream: Upstream, header: tuple[str, str]
) -> None:
    with pytest.raises(Misconfigured):
        await upstream.send(Request("GET", server.url + "/x", (header,)), pool="w")
    assert server.connections == 0


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/ä", "/a\\b", "/\x7f"])
async def test_an_unfinished_url_never_reaches_the_wire(server: Hostile, upstream: Upstream, path: str) -> None:
    with pytest.raises(Misconfigured):
        await upstream.send(Request("GET", server.url + path), pool="w")
    assert server.connections == 0


async def test_the_environments_proxy_is_not_used(
    server: Hostile, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Hostile() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        await upstream.send(Request("GET", server.url + "/x"), pool="w")
        assert (len(server.received), proxy.connections) == (1, 0)


async def test_connections_are_kept_within_a_pool_and_never_shared_between_pools(
    server: Hostile, upstream: Upstream
) -> None:
    for pool in ("a", "a", "b", "a", "b"):
        await upstream.send(Request("GET", server.url + "/x"), pool=pool)
    assert [request.connection for request in server.received] == [1, 1, 2, 1, 2]


async def test_idle_connections_are_closed_after_a_while(server: Hostile, clock: Clock, tls: ssl.SSLContext) -> None:
    engine = HttpEngine(NetworkPolicy(True), way=WayOut(tls), clock=clock, sweep_s=0.001)
    upstream = Upstream(NetworkPolicy(True), engine=engine)
    await upstream.send(Request("GET", server.url + "/x"), pool="idle")
    clock.now += 20
    await upstream.send(Request("GET", server.url + "/x"), pool="young")
    assert engine.connections() == (0, 2)
    clock.now += 15
    await server.until(lambda: server.open == 1)
    for pool in ("young", "idle"):
        await upstream.send(Request("GET", server.url + "/x"), pool=pool)
    assert [request.connection for request in server.received] == [1, 2, 2, 3]
    await upstream.aclose()
    await server.until(lambda: server.open == 0)


async def test_who_dials_while_others_are_swept_keeps_his_connection(server: Hostile, tls: ssl.SSLContext) -> None:
    dialing, go = asyncio.Event(), asyncio.Event()

    async def lookup(name: str, port: int) -> list[str]:
        dialing.set()
        await go.wait()
        return ["127.0.0.1"]

    engine = HttpEngine(NetworkPolicy(True), way=WayOut(tls), lookup=lookup, keepalive_s=0.0, sweep_s=0.001)
    upstream = Upstream(NetworkPolicy(True), engine=engine)
    url = server.url.replace("127.0.0.1", "slow.test") + "/x"
    first = asyncio.ensure_future(upstream.send(Request("GET", url), pool="w"))
    await dialing.wait()
    for n in range(3):  # other new origins, whose connections are swept at once
        await upstream.send(Request("GET", server.url + "/y"), pool=f"other {n}")
        await server.until(lambda: server.open == 0)
    go.set()
    await first
    await server.until(lambda: server.open == 0)  # an origin that was forgotten would keep it open for ever
    assert engine.connections() == (0, 0)
    await upstream.aclose()


# --------------------------------------------------------------------------- what comes back


@pytest.mark.parametrize("status", [200, 201, 204, 304, 400, 401, 404, 418, 429, 500, 503, 599])
async def test_the_answer_is_returned_whatever_its_status(server: Hostile, upstream: Upstream, status: int) -> None:
    body = b"" if status in (204, 304) else b"text"
    server.script("/x", answer(status, body, {"X-Reply": "yes"}))
    got = await upstream.send(Request("GET", server.url + "/x"), pool="w")
    assert (got.status, got.body, got.headers["x-reply"], got.url) == (status, body, "yes", server.url + "/x")


async def test_head_has_no_body_however_long_it_says_that_it_would_be(server: Hostile, upstream: Upstream) -> None:
    server.script("/x", answer(200, b"x" * 5000, {"Content-Encoding": "gzip"}))
    got = await upstream.send(Request("HEAD", server.url + "/x"), pool="w", limits=Limits(max_bytes=10))
    assert (got.status, got.body, got.headers["Content-Length"]) == (200, b"", "5000")


TEXT = b"many words, " * 5000


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("gzip", gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:])),
        ("GZIP", gzip.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)[2:-4]),
        ("identity", TEXT),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_compressed_body_comes_back_plain(
    server: Hostile, upstream: Upstream, encoding: str, data: bytes, chunked: bool
) -> None:
    step = answer(200, data, {"Content-Encoding": encoding})
    if chunked:
        body = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (data[i : i + 7] for i in range(0, len(data), 7)))
        step = raw(head(200, {"Transfer-Encoding": "chunked", "Content-Encoding": encoding}) + body + b"0\r\n\r\n")
    server.script("/x", step)
    assert (await upstream.send(Request("GET", server.url + "/x"), pool="w")).body == TEXT


async def test_an_empty_body_that_claims_gzip_is_empty(server: Hostile, upstream: Upstream) -> None:
    server.script("/x", answer(200, b"", {"Content-Encoding": "gzip"}))
    assert (await upstream.send(Request("GET", server.url + "/x"), pool="w")).body == b""


async def test_a_body_until_the_connection_closes_is_whole(server: Hostile, upstream: Upstream) -> None:
    server.script("/x", raw(b"HTTP/1.1 200 OK\r\n\r\nuntil the end"))
    assert (await upstream.send(Request("GET", server.url + "/x"), pool="w")).body == b"until the end"


async def late_bad_chunk(request: Received, writer: asyncio.StreamWriter) -> bool:
    """A good chunk that the client has, then a broken one."""
    writer.write(head(200, {"Transfer-Encoding": "chunked"}) + b"5\r\nabcde\r\n")
    await writer.drain()
    for _ in range(50):
        await asyncio.sleep(0)
    writer.write(b"zz\r\nabcde\r\n")
    await writer.drain()
    return True


@pytest.mark.parametrize(
    "step",
    [
        raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\nab"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        raw(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc"),
        late_bad_chunk,
        answer(200, b"no gzip", {"Content-Encoding": "gzip"}),
        answer(200, gzip.compress(TEXT)[:-9], {"Content-Encoding": "gzip"}),
        answer(200, zlib.compress(TEXT)[:-5], {"Content-Encoding": "deflate"}),
        answer(200, b"x", {"Content-Encoding": "br"}),
        answer(200, gzip.compress(gzip.compress(b"x")), {"Content-Encoding": "gzip, gzip"}),
        stall(b"HTTP/1.1 101 Switching\r\n\r\n"),
    ],
    ids=lambda step: getattr(step, "__name__", ""),
)
async def test_an_answer_that_is_broken_is_refused_and_not_asked_for_again(
    server: Hostile, upstream: Upstream, step: Step
) -> None:
    server.script("/x", step)
    with anyio.fail_after(10), pytest.raises(InvalidResponse) as caught:
        await upstream.send(Request("GET", server.url + "/x?key=SECRET"), pool="w", retry=BUSY)
    assert len(server.received) == 1
    assert "SECRET" not in f"{caught.value.message}{caught.value.detail}"


UNFINISHED = [
    endless({}, b"x" * 100),
    endless({"Content-Encoding": "gzip"}, gzip.compress(bytes(100_000))),
    stall(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n"),
]


@pytest.mark.parametrize(
    "step",
    [
        answer(200, b"x" * 1001),
        gzip_bomb(1001),
        gzip_bomb(50_000_000),
        gzip_bomb(50_000_000, "deflate"),
        raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001),
        *UNFINISHED,
    ],
)
async def test_an_answer_over_the_limit_is_refused_and_not_asked_for_again(
    server: Hostile, upstream: Upstream, step: Step
) -> None:
    server.script("/x", step)
    with pytest.raises(ResponseTooLarge):
        await upstream.send(Request("GET", server.url + "/x"), pool="w", limits=Limits(max_bytes=1000), retry=BUSY)
    assert len(server.received) == 1
    if step in UNFINISHED:
        await server.until(lambda: server.open == 0)


@pytest.mark.parametrize("step", [answer(200, b"x" * 1000), gzip_bomb(1000), gzip_bomb(1000, "deflate")])
async def test_an_answer_at_the_limit_is_taken(server: Hostile, upstream: Upstream, step: Step) -> None:
    server.script("/x", step)
    got = await upstream.send(Request("GET", server.url + "/x"), pool="w", limits=Limits(max_bytes=1000))
    assert len(got.body) == 1000


async def test_a_bomb_is_not_inflated_beyond_the_limit(server: Hostile, upstream: Upstream) -> None:
    server.script("/x", gzip_bomb(200_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(ResponseTooLarge):
            await upstream.send(Request("GET", server.url + "/x"), pool="w", limits=Limits(max_bytes=1_000_000))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


# --------------------------------------------------------------------------- retries


@pytest.mark.parametrize(
    ("method", "retry", "steps", "requests", "status"),
    [
        ("GET", BUSY, [answer(503), answer(200)], 2, 200),
        ("GET", BUSY, [answer(500), answer(502), answer(200)], 3, 200),
        ("GET", BUSY, [answer(504)], 3, 504),
        ("GET", BUSY, [answer(404)], 1, 404),
        ("GET", Retry(), [answer(503)], 1, 503),
        ("GET", Retry(2, frozenset({404})), [answer(404), answer(200)], 2, 200),
        ("GET", BUSY, [drop, answer(200)], 2, 200),
        ("PUT", BUSY, [reset, answer(200)], 2, 200),
        ("DELETE", BUSY, [drop, answer(404)], 2, 404),
        ("POST", BUSY_WRITE, [answer(503), answer(429), answer(201)], 3, 201),
        ("POST", BUSY_WRITE, [answer(500)], 1, 500),
        ("POST", BUSY_WRITE, [answer(502)], 1, 502),
        ("PATCH", BUSY_WRITE, [answer(504)], 1, 504),
        ("POST", BUSY, [answer(502), drop, answer(200)], 3, 200),
    ],
)
async def test_statuses_and_lost_connections_are_tried_again_by_the_rules(
    server: Hostile, upstream: Upstream, method: str, retry: Retry, steps: list[Step], requests: int, status: int
) -> None:
    attempts: list[Attempt] = []
    url = server.script("/x", *steps)
    body = b"{}" if method in ("POST", "PATCH", "PUT") else None
    got = await upstream.send(
        Request(method, url, (("Idempotency-Key", "k"),), body), pool="w", retry=retry, attempts=attempts
    )
    assert got.status == status
    assert [(r.method, r.header("idempotency-key"), r.body) for r in server.received] == [
        (method, "k", body or b"")
    ] * requests
    assert [attempt.number for attempt in attempts] == list(range(1, requests + 1))
    assert attempts[-1].status == status


@pytest.mark.parametrize(
    "step", [drop, reset, raw(b"HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n{"), raw(b"HTTP/1.1 2")]
)
async def test_a_write_whose_answer_is_lost_is_sent_once_and_its_outcome_is_unknown(
    server: Hostile, upstream: Upstream, step: Step
) -> None:
    attempts: list[Attempt] = []
    with pytest.raises(OutcomeUnknown) as caught:
        await upstream.send(
            Request("POST", server.script("/x", step), (), b"{}"), pool="w", retry=BUSY_WRITE, attempts=attempts
        )
    assert (caught.value.sent, caught.value.retryable, len(server.received)) == ("unknown", False, 1)
    assert [attempt.maybe_done for attempt in attempts] == [True]


@pytest.mark.parametrize("step", [drop, reset, raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")])
async def test_a_read_whose_answers_are_lost_can_be_repeated(server: Hostile, upstream: Upstream, step: Step) -> None:
    with pytest.raises(AnswerLost) as caught:
        await upstream.send(Request("GET", server.script("/x", step)), pool="w", retry=BUSY)
    assert (caught.value.sent, caught.value.retryable, len(server.received)) == ("unknown", True, 3)


async def test_a_kept_connection_that_closes_counts_as_lost_and_nothing_is_sent_twice_in_silence(
    server: Hostile, upstream: Upstream
) -> None:
    await upstream.send(Request("GET", server.url + "/y"), pool="w")
    with pytest.raises(AnswerLost):
        await upstream.send(Request("DELETE", server.script("/x", drop)), pool="w")
    assert [request.path for request in server.received] == ["/y", "/x"]
    assert server.received[0].connection == server.received[1].connection


@pytest.mark.parametrize("retry", [BUSY, BUSY_WRITE])
async def test_no_connection_is_retried_and_nothing_was_sent(upstream: Upstream, clock: Clock, retry: Retry) -> None:
    async with Hostile() as gone:
        url = gone.url
    attempts: list[Attempt] = []
    with pytest.raises(UpstreamUnreachable) as caught:
        await upstream.send(Request("POST", url, (), b"{}"), pool="w", retry=retry, attempts=attempts)
    assert (caught.value.code, caught.value.sent, caught.value.retryable) == ("upstream_unreachable", "no", True)
    assert [(a.number, a.why, a.wait_s, a.maybe_done) for a in attempts] == [
        (1, "first", 0.0, False),
        (2, "no connection", 0.5, False),
        (3, "no connection", 1.0, False),
    ]
    assert clock.slept == [0.5, 1.0]


class Scripted:
    """An engine with these outcomes; ConnectFailed leaves the wire as it was, the others have sent."""

    def __init__(self, *outcomes: int | Exception) -> None:
        self.outcomes = list(outcomes)

    async def exchange(self, request: Request, *, pool: str, max_bytes: int, wire: Wire) -> Answer:
        outcome = self.outcomes.pop(0)
        if not isinstance(outcome, ConnectFailed):
            wire.sent = True
        if isinstance(outcome, Exception):
            raise outcome
        return Answer(outcome, {}, b"", request.url)

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    ("first", "code", "sent"),
    [
        (503, "upstream_unreachable", "no"),
        (429, "upstream_unreachable", "no"),
        (500, "answer_lost", "unknown"),
        (502, "answer_lost", "unknown"),
        (ConnectionLost("gone"), "answer_lost", "unknown"),
        (ConnectFailed("refused"), "upstream_unreachable", "no"),
    ],
)
async def test_an_earlier_attempt_that_may_have_been_done_is_not_forgotten(
    clock: Clock, first: int | Exception, code: str, sent: str
) -> None:
    engine = Scripted(first, ConnectFailed("refused"))
    upstream = Upstream(NetworkPolicy(), engine=engine, clock=clock, sleep=clock.sleep)
    with pytest.raises(CallError) as caught:
        await upstream.send(
            Request("PUT", "https://api.example/x"), pool="w", retry=Retry(1, frozenset({429, 500, 502, 503}))
        )
    assert (caught.value.code, caught.value.sent, engine.outcomes) == (code, sent, [])


async def test_backoff_doubles_up_to_its_cap_with_full_jitter(server: Hostile, clock: Clock) -> None:
    for fraction in (1.0, 0.25):
        upstream = Upstream(NetworkPolicy(True), clock=clock, sleep=clock.sleep, random=lambda f=fraction: f)
        clock.slept.clear()
        retry = Retry(7, frozenset({500}))
        await upstream.send(
            Request("GET", server.script("/x", answer(500))), pool="w", retry=retry, limits=Limits(deadline_s=600)
        )
        assert clock.slept == [fraction * wait for wait in (0.5, 1, 2, 4, 8, 8, 8)]
        await upstream.aclose()


@pytest.mark.parametrize(
    ("headers", "slept", "requests"),
    [
        ({"Retry-After": "7"}, [7.0, 7.0], 3),
        ({"Retry-After": "0"}, [0.5, 1.0], 3),
        ({"Retry-After": "29"}, [29.0], 2),
        ({"Retry-After": "31"}, [], 1),
        ({"Retry-After": "99999999999999999999"}, [], 1),
        ({"Retry-After": "soon"}, [0.5, 1.0], 3),
        ({"Date": "Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2015 07:28:09 GMT"}, [9.0, 9.0], 3),
        ({"Retry-After": "Thu, 01 Jan 1970 00:16:45 GMT"}, [5.0, 1.0], 3),
        ({"Date": "Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2015 07:00:00 GMT"}, [0.5, 1.0], 3),
    ],
)
async def test_retry_after_is_obeyed_while_it_fits_the_deadline(
    server: Hostile, upstream: Upstream, clock: Clock, headers: dict[str, str], slept: list[float], requests: int
) -> None:
    got = await upstream.send(
        Request("POST", server.script("/x", answer(503, b"busy", headers)), (), b"{}"), pool="w", retry=BUSY_WRITE
    )
    assert (got.status, got.body) == (503, b"busy")
    assert (clock.slept, len(server.received)) == (slept, requests)


@pytest.mark.parametrize("value", ["", "-1", "1.5", "٣", "Wed, 99 Oct 2015 07:28:00 GMT", "x" * 1000])
def test_a_retry_after_that_cannot_be_read_is_none(value: str) -> None:
    assert retry_after_s({"Retry-After": value}, 0) is None


# --------------------------------------------------------------------------- deadline and cancelling


@pytest.mark.parametrize(
    ("method", "retry", "sent", "retryable", "step"),
    [
        ("GET", BUSY, "yes", True, silence),
        ("PUT", BUSY, "unknown", True, silence),
        ("POST", BUSY, "unknown", True, silence),
        ("POST", BUSY_WRITE, "unknown", False, silence),
        ("GET", BUSY, "yes", True, stall(b"HTTP/1.1 200 OK\r\nContent-Le")),
        ("POST", BUSY_WRITE, "unknown", False, stall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")),
    ],
)
async def test_the_deadline_ends_the_call_and_the_connection(
    server: Hostile, upstream: Upstream, method: str, retry: Retry, sent: str, retryable: bool, step: Step
) -> None:
    attempts: list[Attempt] = []
    with pytest.raises(UpstreamTimeout) as caught:
        await upstream.send(
            Request(method, server.script("/x", step)),
            pool="w",
            retry=retry,
            limits=Limits(deadline_s=0.4),
            attempts=attempts,
        )
    assert (caught.value.sent, caught.value.retryable) == (sent, retryable)
    assert [(attempt.error, attempt.maybe_done) for attempt in attempts] == [("cut off", True)]
    await server.until(lambda: server.open == 0)
    assert len(server.received) == 1


async def test_a_credential_that_does_not_come_in_time_is_told_as_such(server: Hostile, upstream: Upstream) -> None:
    """The system wasn't asked, so it isn't the one that is slow."""

    class Slow:
        async def sign(self, request: Request) -> tuple[tuple[str, str], ...]:
            await anyio.sleep_forever()
            raise AssertionError

        async def refused(self, answer: Answer) -> bool:
            raise AssertionError

    attempts: list[Attempt] = []
    with pytest.raises(CredentialUnavailable, match=r"none within 0\.2 s: its token endpoint") as told:
        await upstream.send(
            Request("GET", server.url + "/x"), pool="w", limits=Limits(0.2), signer=Slow(), attempts=attempts
        )
    assert (told.value.sent, told.value.retry_after_s, server.received) == ("no", 10.0, [])
    assert [a.maybe_done for a in attempts] == [False]


async def test_a_busy_answer_before_the_deadline_leaves_nothing_unknown(server: Hostile, clock: Clock) -> None:
    """The deadline passes while waiting to send again: the first attempt did nothing, the second never began."""

    async def forever(seconds: float) -> None:
        await anyio.sleep_forever()

    upstream = Upstream(NetworkPolicy(True), clock=clock, sleep=forever, random=lambda: 0.1)
    with pytest.raises(UpstreamTimeout) as caught:
        await upstream.send(
            Request("POST", server.script("/x", answer(503))), pool="w", retry=BUSY_WRITE, limits=Limits(deadline_s=0.4)
        )
    await upstream.aclose()
    assert (caught.value.sent, caught.value.retryable) == ("no", True)


@pytest.mark.parametrize("step", [silence, stall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"), endless({}, b"x")])
async def test_a_cancelled_caller_cancels_the_request_and_closes_the_connection(
    server: Hostile, upstream: Upstream, step: Step
) -> None:
    url = server.script("/x", step)
    task = asyncio.create_task(upstream.send(Request("GET", url), pool="w", retry=BUSY))
    await server.until(lambda: len(server.received) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.until(lambda: server.open == 0)
    assert len(server.received) == 1


# --------------------------------------------------------------------------- signing


class Tokens:
    """A signer with a new token each time that it was refused; `fresh` False has none."""

    def __init__(self, fresh: bool = True) -> None:
        self.number = 1
        self.fresh = fresh
        self.refusals: list[int] = []

    async def sign(self, request: Request) -> tuple[tuple[str, str], ...]:
        return (("Authorization", f"Bearer t{self.number}"),)

    async def refused(self, answer: Answer) -> bool:
        self.refusals.append(answer.status)
        self.number += 1
        return self.fresh


@pytest.mark.parametrize(
    ("fresh", "steps", "tokens", "status"),
    [
        (True, [answer(401), answer(200)], ["Bearer t1", "Bearer t2"], 200),
        (True, [answer(401)], ["Bearer t1", "Bearer t2"], 401),
        (False, [answer(401)], ["Bearer t1"], 401),
        (True, [answer(403)], ["Bearer t1"], 403),
        (
            True,
            [answer(503), answer(401), answer(503), answer(200)],
            ["Bearer t1", "Bearer t1", "Bearer t2", "Bearer t2"],
            200,
        ),
    ],
)
async def test_a_refused_token_is_renewed_once_and_not_counted_as_a_retry(
    server: Hostile, upstream: Upstream, fresh: bool, steps: list[Step], tokens: list[str], status: int
) -> None:
    attempts: list[Attempt] = []
    request = Request("POST", server.script("/x", *steps), (("authorization", "Bearer mine"), ("Idempotency-Key", "k")))
    got = await upstream.send(request, pool="w", retry=BUSY_WRITE, signer=Tokens(fresh), attempts=attempts)
    assert got.status == status
    assert [[v for k, v in r.headers if k.lower() == "authorization"] for r in server.received] == [[t] for t in tokens]
    assert {r.header("idempotency-key") for r in server.received} == {"k"}
    assert len(attempts) == len(tokens)


async def test_a_token_with_a_line_break_never_reaches_the_wire(server: Hostile, upstream: Upstream) -> None:
    tokens = Tokens()
    tokens.number = "1\r\nX-Evil: 1"  # type: ignore[assignment]
    with pytest.raises(Misconfigured):
        await upstream.send(Request("GET", server.url + "/x"), pool="w", signer=tokens)
    assert server.connections == 0


# --------------------------------------------------------------------------- another engine


async def test_another_engine_carries_the_requests_under_the_same_rules(clock: Clock) -> None:
    answers = iter([503, 200])
    asked: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(next(answers), json={"ok": True})

    engine = HttpxEngine(httpx2.MockTransport(handler))
    upstream = Upstream(NetworkPolicy(), engine=engine, clock=clock, sleep=clock.sleep)
    got = await upstream.send(Request("GET", "https://api.example/x"), pool="w", retry=BUSY)
    assert (got.status, got.body, [str(r.url) for r in asked]) == (200, b'{"ok":true}', ["https://api.example/x"] * 2)
    with pytest.raises(CallError, match="isn't allowed here"):
        await upstream.send(Request("GET", "https://10.0.0.1/x"), pool="w")
    await upstream.aclose()


async def test_an_answer_that_nobody_asked_for_is_given_to_nobody(server: Hostile, upstream: Upstream) -> None:
    async def two_at_once(request: Received, writer: asyncio.StreamWriter) -> bool:
        one = head(200, {"Content-Length": "5"}) + b"first"
        writer.write(one + head(200, {"Content-Length": "7"}) + b"planted")
        return True

    server.script("/x", two_at_once, answer(200, b"second"))
    bodies = [(await upstream.send(Request("GET", server.url + "/x"), pool="w")).body for _ in range(2)]
    assert bodies == [b"first", b"second"]
    assert [request.connection for request in server.received] == [1, 2]


async def test_interim_answers_are_passed_over(server: Hostile, upstream: Upstream) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    server.script("/x", raw(early + early + head(200, {"Content-Length": "2"}) + b"ok"))
    got = await upstream.send(Request("GET", server.url + "/x"), pool="w")
    assert (got.status, got.body, "link" in got.headers) == (200, b"ok", False)


async def test_headers_without_end_are_refused(server: Hostile, upstream: Upstream) -> None:
    flood = b"".join(b"X-%d: %s\r\n" % (i, b"y" * 1000) for i in range(100))
    server.script("/x", raw(b"HTTP/1.1 200 OK\r\n" + flood + b"\r\n"))
    with pytest.raises(InvalidResponse):
        await upstream.send(Request("GET", server.url + "/x"), pool="w")
