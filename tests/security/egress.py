"""The operator's way out in a tenant's hands: his list of hosts, his proxy, his client certificates (rules H1, J7)."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from tests.security.frame import add
from tests.security.ground import OTHER, PUBLIC, Ground, rest
from tests.security.network import (
    Door,
    base_url,
    discovered_token_endpoint,
    endpoint_base_url,
    imported_base_url,
    imported_curl,
    importer_redirect,
    importer_url,
    mcp_sse_url,
    mcp_url,
    redirected,
    token_url,
)
from tests.upstreams import redirect
from tools.errors import RequestError
from tools.host_list import EVERY, HostList
from tools.way_out import Proxy

# --------------------------------------------------------------------------- the list of hosts

LISTED = HostList({EVERY: ("*.public.example",), "globex": ("evil.test",)})
GUARD = "the operator's list of hosts"
DOORS: Mapping[str, tuple[Door, str]] = {
    "base_url": (base_url, "http"),
    "endpoint base_url": (endpoint_base_url, "http"),
    "token_url": (token_url, "https"),
    "discovered token_endpoint": (discovered_token_endpoint, "https"),
    "mcp_url": (mcp_url, "http"),
    "mcp_url (SSE)": (mcp_sse_url, "http"),
    "redirect": (redirected, "http"),
    "importer URL": (importer_url, "http"),
    "importer redirect": (importer_redirect, "http"),
    "imported base_url": (imported_base_url, "http"),
    "imported curl line": (imported_curl, "http"),
}
SOME = ("evil.test", "evilpublic.example", "public.example")
SPELLINGS = (
    *SOME,
    "PUBLIC.example.",
    "public.example.evil.test",
    "EVIL.test",
    "evil.test.",
    "evil.test:8080",
    "xn--pblic-8ya.example",
    OTHER,
    f"{OTHER}:8080",
    PUBLIC,
)
"""A name of another workspace's list, one that only ends like ours, the name above ours, and so on; at last, the very address that
a listed name has."""


def _unlisted(door: Door, url: str, *, stored: bool = False) -> Callable[[Ground], Awaitable[Any]]:
    """`stored`: written before there was a list, so that the call alone must refuse it."""

    async def strike(ground: Ground) -> Any:
        with pytest.MonkeyPatch.context() as patch, ground.way_out(hosts=LISTED):
            if stored:
                patch.setattr("tools.checks.unreached", lambda *_: ())
            return await door(ground, url)

    return strike


for _entry, (_door, _scheme) in DOORS.items():
    for _host in SPELLINGS if _entry == "base_url" else SOME:
        add("address", _entry, f"{_scheme}://{_host}/ off the list", GUARD, _unlisted(_door, f"{_scheme}://{_host}/"))
for _entry in ("base_url", "endpoint base_url", "token_url", "mcp_url", "mcp_url (SSE)"):
    _door, _scheme = DOORS[_entry]
    for _host in SOME:
        _url = f"{_scheme}://{_host}/"
        add("address", f"stored {_entry}", f"{_url} off the list", GUARD, _unlisted(_door, _url, stored=True))


# --------------------------------------------------------------------------- the proxy

PASSWORD = "swordfish-of-the-proxy"


class _Tunnels:
    """The operator's proxy, whose every tunnel leads to the attacker. `asked` are its targets."""

    def __init__(self, ground: Ground, says: bytes = b"") -> None:
        self.ground, self.says = ground, says
        self.asked: list[str] = []
        self._moving: set[asyncio.Future[Any]] = set()
        self._open: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["_Tunnels", None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            with self.ground.way_out(proxy=Proxy("127.0.0.1", port, f"gw:{PASSWORD}")):
                yield self
        finally:
            server.close()
            for task in self._moving:
                task.cancel()
            await asyncio.gather(*self._moving, return_exceptions=True)
            for writer in self._open:
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for writer in self._open), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
        self.asked.append(target)
        self._open.append(writer)
        if self.says:
            writer.write(self.says)
            writer.close()
            return
        secure = target.endswith((":443", ":8443"))
        server = self.ground.secure if secure else self.ground.attacker
        there, back = await asyncio.open_connection(server.host, server.port)
        self._open.append(back)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for source, to in ((reader, back), (there, writer)):
            self._moving.add(asyncio.ensure_future(self._pass_on(source, to)))

    async def _pass_on(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                to.write(data)
        to.close()


def _tunnelled(door: Door, url: str, fine: Callable[[str], bool]) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        async with _Tunnels(ground).running() as proxy:
            await door(ground, url)
        return [target for target in proxy.asked if not fine(target)]

    return strike


def _is_public_address(target: str) -> bool:
    return target.rpartition(":")[0] == PUBLIC


for _entry, (_door, _scheme) in DOORS.items():
    _name = f"{_scheme}://named.public.example/"
    add(
        "address",
        _entry,
        f"{_name} through a proxy",
        "a proxy is asked for addresses",
        _tunnelled(_door, _name, _is_public_address),
    )
    for _host in ("meta.example", "mixed-last.example", "169.254.169.254", "[::ffff:10.0.0.1]"):
        _url = f"{_scheme}://{_host}/"
        add("address", _entry, f"{_url} through a proxy", "address guard", _tunnelled(_door, _url, _is_public_address))


async def _password_told(ground: Ground) -> Any:
    """A proxy that refuses, and everything that is said of it."""
    name, host = ground.name(), ground.host()
    assert await ground.create(rest(name, f"http://{host}")) is not None
    async with _Tunnels(ground, b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").running():
        tested = await ground.call("test_integration_endpoint", {"tool": f"{name}_get", "params": {}})
        health = await ground.app.admin.test_connection(ground.owner, name)
        call = await ground.call(f"{name}_get")
    await ground.drop(name)
    seen = (tested.text, str(health), call.text, repr(call.error and call.error.detail), repr(call.trace))
    return [text for text in seen if PASSWORD in text]


add(
    "injection",
    "own proxy",
    "a refusal that would name its password",
    "the proxy's password is the proxy's",
    _password_told,
)


# --------------------------------------------------------------------------- client certificates

NAMED = "named.public.example"
CERTIFIED = "certificates for named origins"


def _certified(url: str, *, rival: bool = False, first: str | None = None) -> Callable[[Ground], Awaitable[Any]]:
    """Requests over connections for which the certificate of acme and https://named.public.example:9443 was shown. `first` is asked
    before, and redirects there."""

    async def strike(ground: Ground) -> Any:
        name, caller = ground.name(), ground.rival if rival else ground.owner
        if first is not None:
            ground.script("/caught", redirect(302, f"{url}/led"))
        with ground.way_out(shown={("acme", NAMED, 9443): ground.certificate}):
            assert await ground.create(rest(name, first or url), caller) is not None
            await ground.call(f"{name}_get", caller=caller)
        with suppress(RequestError):
            await ground.app.admin.delete(caller, name)
        return [r.target for r in ground.asking.received if first is None or r.path == "/led"]

    return strike


for _what, _strike in {
    "another host": _certified("https://other.public.example:9443"),
    "another port": _certified(f"https://{NAMED}:9444"),
    "a host below": _certified(f"https://a-{NAMED}:9443"),
    "another workspace": _certified(f"https://{NAMED}:9443", rival=True),
    "after a redirect": _certified("https://other.public.example:9443", first=f"https://{NAMED}:9443"),
    "after a redirect to another port": _certified(f"https://{NAMED}:9444", first=f"https://{NAMED}:9443"),
}.items():
    add("cross-tenant", "client certificate", _what, CERTIFIED, _strike)


async def _shared(ground: Ground) -> Any:
    """A connection that was opened with the certificate, asked for by another workspace while it is kept. The second name is the
    pool's where the guard is off."""
    name, url = ground.name(), f"https://{NAMED}:9443"
    shown = {(workspace, NAMED, 9443): ground.certificate for workspace in ("acme", "one for all")}
    with ground.way_out(shown=shown):
        for caller in (ground.owner, ground.rival):
            assert await ground.create(rest(name, url), caller) is not None
            await ground.call(f"{name}_get", caller=caller)
    await ground.drop(name)
    await ground.app.admin.delete(ground.rival, name)
    assert ground.asking.received, "the first call had its certificate"
    return ground.asking.received[1:]


add("cross-tenant", "client certificate", "on a connection that was kept", "connections of one workspace", _shared)
