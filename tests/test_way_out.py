"""The operator's way out: his proxy, his CA, client certificates and the hosts that a workspace may reach, seen at the far end."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from server.egress import EgressError
from server.settings import SettingsError, read_settings
from tests.upstreams import Hostile, answer, redirect
from tests.world import World, gateway
from tools.callers import local_caller
from tools.engine import HttpEngine

pytestmark = pytest.mark.anyio
READ = {"name": "read", "description": "Reads.", "method": "GET", "path": "/x"}
METADATA = "inward.example"


async def lookup(name: str, port: int) -> Sequence[str]:
    return ["169.254.169.254"] if name == METADATA else ["127.0.0.1"]


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is this machine's but one, which is a metadata service's."""
    monkeypatch.setattr("server.app.HttpEngine", partial(HttpEngine, lookup=lookup))


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


@asynccontextmanager
async def secure(ca: trustme.CA, *, asks: bool = False) -> AsyncGenerator[Hostile, None]:
    """A server over TLS; `asks`: only for clients with a certificate of this CA."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("up.example", "other.example").configure_cert(context)
    if asks:
        ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    async with Hostile(tls=context) as server:
        server.script("/x", answer(200, b"fine"))
        yield server


async def told(world: World, url: str, workspace: str = "acme") -> str:
    """What an agent of the workspace is told of a read there."""
    return await called(world, await written(world, url, workspace), workspace)


async def written(world: World, url: str, workspace: str) -> str:
    """The tool that reads there."""
    name = f"s{len((await world.app.registry.load(workspace))[1])}"
    body = {"name": name, "display_name": name, "base_url": url, "endpoints": [READ]}
    await world.create(body, local_caller(workspace))
    return f"{name}_read"


async def called(world: World, tool: str, workspace: str) -> str:
    return (await world.app.toolbox.call(local_caller(workspace), tool, {})).text


class Tunnels:
    """An HTTP proxy that only makes tunnels; `asked` are (target, credentials), `says` the answer in place of one."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.says = b""
        self._moving: set[asyncio.Future[Any]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[str, None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in self._moving:
                task.cancel()
            await asyncio.gather(*self._moving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        verb, target, _ = head.split(" ", 2)
        assert verb == "CONNECT"
        given = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("Proxy-Authorization")]
        self.asked.append((target, "".join(given)))
        if self.says:
            writer.write(self.says)
            writer.close()
            return
        host, _, port = target.rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for source, to in ((reader, back), (there, writer)):
            self._moving.add(asyncio.ensure_future(self._pass_on(source, to)))

    async def _pass_on(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                to.write(data)
        except OSError:
            pass
        finally:
            to.close()


@pytest.fixture
async def tunnels() -> Tunnels:
    return Tunnels()


@pytest.fixture
async def plain() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        server.script("/x", answer(200, b"fine"))
        yield server


# -- certificates


async def test_an_own_authority_is_trusted_beside_the_systems_and_nothing_else(
    tmp_path: Path, ca: trustme.CA, ca_file: Path
) -> None:
    async with secure(ca) as server, secure(trustme.CA()) as stranger:
        async with gateway(tmp_path / "without") as world:
            assert "[certificate_refused]" in await told(world, f"https://up.example:{server.port}")
        async with gateway(tmp_path / "with", ca_file=ca_file) as world:
            assert await told(world, f"https://up.example:{server.port}") == "fine"
            assert "[certificate_refused]" in await told(world, f"https://wrong.example:{server.port}")
            assert "[certificate_refused]" in await told(world, f"https://up.example:{stranger.port}")
        assert stranger.received == []


async def test_a_client_certificate_is_shown_to_its_origin_in_its_workspace_alone(
    tmp_path: Path, ca: trustme.CA, ca_file: Path
) -> None:
    client = tmp_path / "client.pem"
    ca.issue_cert("gateway.example").private_key_and_cert_chain_pem.write_to_path(str(client))
    async with secure(ca, asks=True) as server, secure(ca, asks=True) as other:
        entry = {"workspace": "Acme", "origins": [f"https://up.example:{server.port}"], "file": client}
        async with gateway(tmp_path / "home", ca_file=ca_file, client_certificates=[entry]) as world:
            await world.app.registry.ensure_workspace("globex")
            assert await told(world, f"https://up.example:{server.port}") == "fine"
            assert len(server.received) == 1
            for url, workspace in (
                (f"https://up.example:{server.port}", "globex"),
                (f"https://other.example:{server.port}", "acme"),
                (f"https://up.example:{other.port}", "acme"),
            ):
                assert await told(world, url, workspace) != "fine"
            assert len(server.received) == 1
            assert other.received == []


# -- a proxy


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_calls_go_through_the_proxy_to_the_address_that_was_checked(
    tmp_path: Path, ca: trustme.CA, ca_file: Path, plain: Hostile, tunnels: Tunnels, scheme: str
) -> None:
    async with secure(ca) as server, tunnels.running() as proxy:
        target = server if scheme == "https" else plain
        settings = {"outbound_proxy": f"http://gw:pass%3Aword@{proxy}", "ca_file": ca_file}
        async with gateway(tmp_path, **settings) as world:
            assert await told(world, f"{scheme}://up.example:{target.port}") == "fine"
            assert tunnels.asked == [(f"127.0.0.1:{target.port}", "Basic Z3c6cGFzczp3b3Jk")]
            assert target.received[0].header("host") == f"up.example:{target.port}"
            assert target.received[0].header("proxy-authorization") is None
            assert "[misconfigured]" in await told(world, f"{scheme}://{METADATA}:{target.port}")
            assert len(tunnels.asked) == 1


async def test_addresses_that_are_excepted_are_reached_directly(
    tmp_path: Path, plain: Hostile, tunnels: Tunnels
) -> None:
    async with tunnels.running() as proxy:
        settings = {"outbound_proxy": f"http://{proxy}", "outbound_proxy_except": "10.0.0.0/8, 127.0.0.0/8"}
        async with gateway(tmp_path, **settings) as world:
            assert await told(world, plain.url) == "fine"
    assert tunnels.asked == []


@pytest.mark.parametrize(
    "says",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
        b"220 smtp.example ESMTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nmore than was asked for",
        b"HTTP/1.1 200",
        b"x" * 20_000,
    ],
)
async def test_a_proxy_that_makes_no_tunnel_is_told_as_not_sent(
    tmp_path: Path, plain: Hostile, tunnels: Tunnels, says: bytes
) -> None:
    tunnels.says = says
    async with tunnels.running() as proxy, gateway(tmp_path, outbound_proxy=f"http://gw:swordfish@{proxy}") as world:
        text = await told(world, plain.url)
        assert text.startswith("Not sent: ")
        assert "[upstream_unreachable]" in text
        assert "swordfish" not in text + repr(world.app.settings)
    assert plain.received == []


async def test_a_proxy_that_is_gone_is_told_as_not_sent(tmp_path: Path, plain: Hostile) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        async with gateway(tmp_path, outbound_proxy=f"http://127.0.0.1:{free.getsockname()[1]}") as world:
            assert "[upstream_unreachable]" in await told(world, plain.url)
    assert plain.connections == 0


# -- hosts


async def test_a_workspace_reaches_only_the_hosts_of_its_list_redirects_too(tmp_path: Path, plain: Hostile) -> None:
    allow = [
        {"hosts": ["shared.example"]},
        {"workspace": "acme", "hosts": ["*.Acme.example", "127.0.0.1"]},
        {"workspace": "globex", "hosts": ["globex.example"]},
    ]
    cases = (
        ("shared.example", "acme", True),
        ("shared.example", "globex", True),
        ("api.acme.example", "acme", True),
        ("API.acme.example.", "acme", True),
        ("127.0.0.1", "acme", True),
        ("acme.example", "acme", False),
        ("notacme.example", "acme", False),
        ("api.acme.example.evil.example", "acme", False),
        ("globex.example", "acme", False),
        ("127.0.0.1", "globex", False),
    )
    async with gateway(tmp_path) as world:  # before there was a list: with it, they couldn't be written
        await world.app.registry.ensure_workspace("globex")
        tools = [await written(world, f"http://{host}:{plain.port}", workspace) for host, workspace, _ in cases]
    async with gateway(tmp_path, upstream_hosts_allow=allow) as world:
        for tool, (host, workspace, reached) in zip(tools, cases, strict=True):
            before = plain.connections
            text = await called(world, tool, workspace)
            assert (text == "fine", plain.connections > before) == (reached, reached), host
            assert reached or text.startswith("Not sent: integration")
        plain.script("/x", redirect(302, f"http://globex.example:{plain.port}/x"))
        asked = len(plain.received)
        assert "[misconfigured]" in await told(world, f"http://shared.example:{plain.port}")
        assert len(plain.received) == asked + 1


# -- settings


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OUTBOUND_PROXY", "proxy:3128", "http://HOST:PORT"),
        ("OUTBOUND_PROXY", "https://proxy:3128", "http://HOST:PORT"),
        ("OUTBOUND_PROXY", "http://u:secret-word@proxy", "http://HOST:PORT"),
        ("OUTBOUND_PROXY_EXCEPT", "10.0.0.0/99", "not a network"),
        ("CLIENT_CERTIFICATES", '[{"origins":["http://a.example"],"file":"/x"}]', "https only"),
        ("CLIENT_CERTIFICATES", '[{"origins":[],"file":"/x"}]', "at least 1"),
        ("UPSTREAM_HOSTS_ALLOW", '[{"hosts":["https://a.example"]}]', "no host"),
        ("UPSTREAM_HOSTS_ALLOW", '[{"hosts":["a.*.example"]}]', "no host"),
        ("UPSTREAM_HOSTS_ALLOW", '[{"workspace":"a b","hosts":[]}]', "pattern"),
    ],
)
def test_what_cant_be_used_is_refused_with_what_to_write(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        read_settings({f"INTEGRATIONS_MCP_{name}": value})
    assert "secret-word" not in str(caught.value)


def test_a_proxy_with_its_password_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "proxy").write_text("http://gw:swordfish@proxy.example:3128\n")
    settings = read_settings({"INTEGRATIONS_MCP_OUTBOUND_PROXY_FILE": str(tmp_path / "proxy")})
    assert settings.outbound_proxy is not None
    assert settings.outbound_proxy.get_secret_value() == "http://gw:swordfish@proxy.example:3128"
    assert "swordfish" not in repr(settings)


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_file_that_cant_be_used_is_told_at_start(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "x.pem"
    if content is not None:
        file.write_text(content)
    entry = {"origins": ["https://a.example"], "file": file}
    for settings in ({"ca_file": file}, {"client_certificates": [entry]}):
        with pytest.raises(EgressError, match=r"x\.pem can't be used"):
            async with gateway(tmp_path / "home", **settings):
                pass
