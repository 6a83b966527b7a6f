"""The guard on the wire (rules H1, H1b, H2, I7): nothing reaches the server, and with the guard open the same attempt does."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from ipaddress import ip_network

import anyio
import psutil
import pytest
import trustme

from tests.upstreams import Hostile, answer, drop, redirect
from tools.address_guard import NetworkPolicy
from tools.dialing import Lookup
from tools.engine import HttpEngine
from tools.errors import (
    AddressRefused,
    CallError,
    CertificateRefused,
    RedirectRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tools.exchange import Request, Wire
from tools.upstream import Attempt, Limits, Retry, Upstream
from tools.way_out import WayOut, strict_tls

pytestmark = pytest.mark.anyio

STRICT = NetworkPolicy()
LOOPBACK = NetworkPolicy(allow_private=(ip_network("127.0.0.0/8"),))
OPEN = NetworkPolicy(allow_private=True)
RETRY = Retry(max_retries=2)


def names(**addresses: Sequence[str]) -> Lookup:
    """A DNS of these names (`a` is a.example); the others don't exist."""

    async def lookup(name: str, port: int) -> Sequence[str]:
        found = addresses.get(name.removesuffix(".example"))
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found

    return lookup


def one_after_the_other(*answers: Sequence[str]) -> Lookup:
    left = list(answers)

    async def lookup(name: str, port: int) -> Sequence[str]:
        return left.pop(0)

    return lookup


Open = Callable[..., Upstream]


async def no_wait(seconds: float) -> None:
    pass


@pytest.fixture
async def server() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    return strict_tls()  # one for all: it reads the system's CA file


@pytest.fixture
async def open_upstream(tls: ssl.SSLContext) -> AsyncIterator[Open]:
    made: list[Upstream] = []
    no_names = names()

    def make(policy: NetworkPolicy, lookup: Lookup = no_names, tls: ssl.SSLContext = tls) -> Upstream:
        made.append(Upstream(policy, engine=HttpEngine(policy, lookup=lookup, way=WayOut(tls)), sleep=no_wait))
        return made[-1]

    yield make
    for upstream in made:
        await upstream.aclose()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::ffff:127.0.0.1]", "inward.example", "INWARD.example", "inward.example.", "mapped.example"]
)
async def test_a_target_inside_is_refused_before_any_packet_and_reached_with_the_guard_open(
    server: Hostile, open_upstream: Open, host: str
) -> None:
    async def lookup(name: str, port: int) -> Sequence[str]:
        return ["::ffff:127.0.0.1"] if name.startswith("mapped") else ["127.0.0.1"]

    request = Request("GET", f"http://{host}:{server.port}/x")
    attempts: list[Attempt] = []
    with pytest.raises(AddressRefused) as caught:
        await open_upstream(STRICT, lookup).send(request, pool="w", retry=RETRY, attempts=attempts)
    assert (caught.value.sent, server.connections, len(attempts) <= 1) == ("no", 0, True)
    if "::ffff" not in host and "mapped" not in host:  # the test's own gate lets 127. through, not ::ffff:127.
        assert (await open_upstream(OPEN, lookup).send(request, pool="w")).status == 200
        assert server.connections == 1


@pytest.mark.parametrize("listener", ["127.0.0.1", "0.0.0.0", "::"])
@pytest.mark.parametrize("host", ["127.0.0.1", "inward.example"])
async def test_our_own_listener_is_refused_where_loopback_is_allowed(
    server: Hostile, open_upstream: Open, listener: str, host: str
) -> None:
    own = NetworkPolicy(allow_private=True, own_listeners=frozenset({(listener, server.port)}))
    request = Request("GET", f"http://{host}:{server.port}/x")
    with pytest.raises(AddressRefused):
        await open_upstream(own, names(inward=["127.0.0.1"])).send(request, pool="w")
    assert server.connections == 0
    await open_upstream(OPEN, names(inward=["127.0.0.1"])).send(request, pool="w")
    assert server.connections == 1


async def test_the_socket_itself_is_guarded_where_nothing_resolves(server: Hostile, tls: ssl.SSLContext) -> None:
    """The engine alone, without Upstream's look at the URL: aiohttp doesn't ask the resolver for a literal address."""
    request = Request("GET", f"{server.url}/x")
    for policy, reached in ((STRICT, 0), (OPEN, 1)):
        engine = HttpEngine(policy, way=WayOut(tls))
        try:
            await engine.exchange(request, pool="w", max_bytes=100_000, wire=Wire())
        except AddressRefused:
            assert policy is STRICT
        await engine.aclose()
        assert server.connections == reached


async def test_every_address_of_this_host_is_our_own_where_we_listen_on_all(open_upstream: Open) -> None:
    own = NetworkPolicy(allow_private=True, own_listeners=frozenset({("0.0.0.0", 8080)}))
    inet = [a.address for card in psutil.net_if_addrs().values() for a in card if a.family == socket.AF_INET]
    assert "127.0.0.1" in inet
    for address in inet:
        with pytest.raises(AddressRefused):
            await open_upstream(own).send(Request("GET", f"http://{address}:8080/"), pool="w")


async def test_no_cookie_is_kept(server: Hostile, open_upstream: Open) -> None:
    server.script("/login", answer(200, b"", {"Set-Cookie": "sid=1; Path=/"}))
    upstream = open_upstream(LOOPBACK, names(a=["127.0.0.1"]))
    for path in ("/login", "/x"):
        await upstream.send(Request("GET", f"http://a.example:{server.port}{path}"), pool="w")
    assert [request.header("cookie") for request in server.received] == [None, None]


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1", "10.0.0.1"],
        ["10.0.0.1", "127.0.0.1"],
        ["127.0.0.1", "::1"],
        ["127.0.0.1", "fe80::1"],
        ["127.0.0.1", "169.254.169.254"],
    ],
)
async def test_one_bad_address_of_a_name_refuses_all(
    server: Hostile, open_upstream: Open, addresses: list[str]
) -> None:
    upstream = open_upstream(LOOPBACK, names(mixed=addresses))
    with pytest.raises(AddressRefused):
        await upstream.send(Request("GET", f"http://mixed.example:{server.port}/"), pool="w", retry=RETRY)
    assert server.connections == 0


async def test_a_good_address_is_reached_where_the_one_before_it_is_dead(server: Hostile, open_upstream: Open) -> None:
    upstream = open_upstream(LOOPBACK, names(two=["127.0.0.2", "127.0.0.1"]))
    assert (await upstream.send(Request("GET", f"http://two.example:{server.port}/"), pool="w")).status == 200


async def test_a_name_that_is_rebound_after_the_first_lookup_reaches_nothing_unchecked(
    server: Hostile, open_upstream: Open
) -> None:
    upstream = open_upstream(
        LOOPBACK, one_after_the_other(["127.0.0.1"], ["10.0.0.1"], ["127.0.0.1", "169.254.169.254"])
    )
    url = f"http://moving.example:{server.port}/"
    server.script("/", drop, drop, answer(200))
    # The retries use the addresses that were checked: the second lookup isn't asked for them.
    assert (await upstream.send(Request("GET", url), pool="a", retry=RETRY)).status == 200
    for pool in ("b", "c"):
        with pytest.raises(AddressRefused):
            await upstream.send(Request("GET", url), pool=pool, retry=RETRY)
    assert len(server.received) == 3


async def test_a_name_that_points_inwards_and_one_that_does_not_exist_read_the_same(open_upstream: Open) -> None:
    upstream = open_upstream(STRICT, names(inward=["10.0.0.1"], empty=[]))
    told: set[tuple[str, ...]] = set()
    details: set[str | None] = set()
    for host in ("inward.example", "nowhere.example", "empty.example", "10.0.0.1", "a.example:22"):
        with pytest.raises(AddressRefused) as caught:
            await upstream.send(Request("GET", f"http://{host}/"), pool="w", retry=RETRY)
        told.add((caught.value.message, caught.value.code, str(caught.value.sent), str(caught.value.retryable)))
        details.add(caught.value.detail)
    assert told == {("this address isn't allowed here", "misconfigured", "no", "False")}
    assert len(details) == 5


async def test_a_lookup_that_fails_for_now_is_tried_again(server: Hostile, open_upstream: Open) -> None:
    asked: list[str] = []

    async def lookup(name: str, port: int) -> Sequence[str]:
        asked.append(name)
        if len(asked) < 3:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return ["127.0.0.1"]

    upstream = open_upstream(LOOPBACK, lookup)
    assert (
        await upstream.send(Request("GET", f"http://a.example:{server.port}/"), pool="w", retry=RETRY)
    ).status == 200
    asked.clear()
    with pytest.raises(UpstreamUnreachable):
        await upstream.send(Request("GET", f"http://b.example:{server.port}/"), pool="w", retry=Retry(1))
    assert asked == ["b.example"] * 2


async def test_a_lookup_that_never_ends_is_ended_by_the_deadline(open_upstream: Open) -> None:
    async def lookup(name: str, port: int) -> Sequence[str]:
        await anyio.sleep_forever()
        raise AssertionError

    with pytest.raises(UpstreamTimeout) as caught:
        await open_upstream(STRICT, lookup).send(
            Request("POST", "http://a.example/"),
            pool="w",
            retry=Retry(idempotent=False),
            limits=Limits(deadline_s=0.05),
        )
    assert (caught.value.sent, caught.value.retryable) == ("no", True)


@pytest.mark.parametrize("host", ["0x7f.1", "2130706433", "127.1", "0177.0.0.1", "１２７.0.0.1"])
async def test_an_unusual_spelling_never_reaches_the_wire(server: Hostile, open_upstream: Open, host: str) -> None:
    for policy in (STRICT, OPEN):
        with pytest.raises(CallError):
            await open_upstream(policy).send(Request("GET", f"http://{host}:{server.port}/"), pool="w")
    assert server.connections == 0


# --------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def serving(ca: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(name).configure_cert(context)
    return context


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = strict_tls()
    ca.configure_trust(context)
    return context


async def test_the_certificate_is_checked_against_the_name_although_the_address_is_pinned(
    ca: trustme.CA, open_upstream: Open
) -> None:
    async with Hostile(tls=serving(ca, "right.example")) as server:
        lookup = names(right=["127.0.0.1"], wrong=["127.0.0.1"])
        upstream = open_upstream(LOOPBACK, lookup, trusting(ca))
        assert (await upstream.send(Request("GET", f"https://right.example:{server.port}/"), pool="w")).status == 200
        attempts: list[Attempt] = []
        with pytest.raises(CertificateRefused) as caught:
            await upstream.send(
                Request("GET", f"https://wrong.example:{server.port}/"), pool="w", retry=RETRY, attempts=attempts
            )
        assert (caught.value.sent, caught.value.retryable, len(attempts)) == ("no", False, 1)
        assert len(server.received) == 1


async def test_a_certificate_of_an_unknown_authority_is_refused(ca: trustme.CA, open_upstream: Open) -> None:
    async with Hostile(tls=serving(ca, "right.example")) as server:
        upstream = open_upstream(LOOPBACK, names(right=["127.0.0.1"]))
        with pytest.raises(CertificateRefused):
            await upstream.send(Request("GET", f"https://right.example:{server.port}/"), pool="w", retry=RETRY)
        assert server.received == []


def test_tls_verifies_and_begins_at_1_2() -> None:
    context = strict_tls()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


# --------------------------------------------------------------------------- redirects

PRIVATE = frozenset({"x-api-key", "x-static"})
HEADERS = (
    ("X-Api-Key", "k"),
    ("X-Static", "s"),
    ("Authorization", "Bearer t"),
    ("Cookie", "c=1"),
    ("Accept", "text/plain"),
)


class Signed:
    """Signs with a header that no list names."""

    async def sign(self, request: Request) -> tuple[tuple[str, str], ...]:
        return (("X-Signature", "secret"),)

    async def refused(self, answer: object) -> bool:
        raise AssertionError("a 401 of another origin is none of the signer's business")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_redirect_within_the_origin_keeps_everything(
    server: Hostile, open_upstream: Open, status: int, method: str
) -> None:
    server.script("/a/x", redirect(status, "../b%2Fc/é?q=1#part"))
    got = await open_upstream(OPEN).send(
        Request(method, server.url + "/a/x", HEADERS, private_headers=PRIVATE), pool="w", signer=Signed()
    )
    first, second = server.received
    assert (second.method, second.target) == (method, "/b%2Fc/%C3%A9?q=1")
    assert second.headers == first.headers
    assert got.url == server.url + "/b%2Fc/%C3%A9?q=1"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_origin_carries_no_credential_and_never_gets_it_back(
    server: Hostile, open_upstream: Open, status: int
) -> None:
    async with Hostile() as other:
        server.script("/x", redirect(status, f"{other.url}/y"))
        other.script("/y", redirect(status, f"{server.url}/z"))
        server.script("/z", answer(401))
        got = await open_upstream(OPEN).send(
            Request("GET", server.url + "/x", HEADERS, private_headers=PRIVATE), pool="w", signer=Signed()
        )
        assert got.status == 401
        for request in (other.received[0], server.received[1]):
            sent = {name.lower() for name, _ in request.headers}
            assert sent == {"host", "accept", "user-agent", "accept-encoding"}
        assert {name.lower() for name, _ in server.received[0].headers} >= PRIVATE | {
            "authorization",
            "cookie",
            "x-signature",
        }


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://10.0.0.1/",
        "//10.0.0.1/",
        "http://0x0a.1/",
        "http://inward.example/",
        "http://nowhere.example/",
        "http://127.0.0.1:22/",
        "http://user:pw@127.0.0.1/",
    ],
)
async def test_a_redirect_is_judged_like_the_first_url(server: Hostile, open_upstream: Open, location: str) -> None:
    upstream = open_upstream(LOOPBACK, names(inward=["10.0.0.1"]))
    server.script("/x", redirect(302, location))
    with pytest.raises(AddressRefused):
        await upstream.send(Request("GET", server.url + "/x"), pool="w", retry=RETRY)
    assert len(server.received) == 1


@pytest.mark.parametrize(
    "location",
    ["ftp://127.0.0.1/", "javascript:alert(1)", "http://127.0.0.1:x/", "/a\x00b\\c\x7f", "http://[::1/"],
)
async def test_a_redirect_to_what_is_no_http_url_is_refused(
    server: Hostile, open_upstream: Open, location: str
) -> None:
    server.script("/x", redirect(302, location))
    with pytest.raises(CallError):
        await open_upstream(LOOPBACK).send(Request("GET", server.url + "/x"), pool="w")
    assert [request.path for request in server.received][:1] == ["/x"]
    assert all(request.path in ("/x", "/a%00b%5Cc%7F") for request in server.received)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_write_is_never_redirected_and_the_location_is_masked(
    server: Hostile, open_upstream: Open, method: str, status: int
) -> None:
    server.script("/x", redirect(status, "https://u:pw@other.example/login?token=SECRET#f"))
    with pytest.raises(RedirectRefused) as caught:
        await open_upstream(OPEN).send(Request(method, server.url + "/x"), pool="w", retry=RETRY)
    assert (caught.value.upstream_status, caught.value.detail) == (status, "Location: https://other.example/login?...")
    assert "other.example" not in caught.value.message
    assert len(server.received) == 1


async def test_at_most_so_many_redirects_are_followed(server: Hostile, open_upstream: Open) -> None:
    upstream = open_upstream(OPEN)
    for number in range(5):
        server.script(f"/{number}", redirect(302, f"/{number + 1}"))
    server.script("/loop", redirect(307, "/loop"))
    assert (await upstream.send(Request("GET", server.url + "/2"), pool="w")).status == 200
    for path, limits, requests in (("/1", Limits(), 4), ("/loop", Limits(), 4), ("/4", Limits(redirects=0), 1)):
        server.received.clear()
        with pytest.raises(RedirectRefused):
            await upstream.send(Request("GET", server.url + path), pool="w", limits=limits)
        assert len(server.received) == requests


async def test_a_redirect_to_another_origin_is_refused_where_the_caller_says_so(
    server: Hostile, open_upstream: Open
) -> None:
    async with Hostile() as other:
        server.script("/x", redirect(302, other.url))
        with pytest.raises(RedirectRefused):
            await open_upstream(OPEN).send(
                Request("GET", server.url + "/x"), pool="w", limits=Limits(other_origins=False)
            )
        assert other.connections == 0


async def test_a_redirect_from_https_to_http_is_refused(ca: trustme.CA, server: Hostile, open_upstream: Open) -> None:
    async with Hostile(tls=serving(ca, "right.example")) as safe:
        safe.script("/x", redirect(302, server.url + "/x"))
        upstream = open_upstream(LOOPBACK, names(right=["127.0.0.1"]), trusting(ca))
        with pytest.raises(RedirectRefused):
            await upstream.send(Request("GET", f"https://right.example:{safe.port}/x"), pool="w")
        assert server.connections == 0


@pytest.mark.parametrize("status", [300, 304, 305, 306, 399])
async def test_other_3xx_and_a_redirect_without_location_are_answers(
    server: Hostile, open_upstream: Open, status: int
) -> None:
    upstream = open_upstream(OPEN)
    server.script("/x", redirect(status, "/y"))
    server.script("/none", answer(302, b""))
    assert (await upstream.send(Request("GET", server.url + "/x"), pool="w")).status == status
    assert (await upstream.send(Request("POST", server.url + "/none"), pool="w")).status == 302


async def test_calls_side_by_side_share_a_pool_without_mixing_answers(server: Hostile, open_upstream: Open) -> None:
    upstream = open_upstream(OPEN)
    answers = await asyncio.gather(
        *(upstream.send(Request("GET", f"{server.url}/n/{number}"), pool="w") for number in range(50))
    )
    assert all(f'"/n/{number}"'.encode() in answer.body for number, answer in enumerate(answers))
