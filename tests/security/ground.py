"""Where the attacks run: a whole gateway on a network of its own, on which every address leads to one attacker on loopback.

Nothing but the last step is replaced: where the gateway would connect to an address, the connection goes to the attacker instead,
who keeps what arrives. So an attempt at 169.254.169.254 that gets past the guard is a request that somebody received.
"""

import asyncio
import ipaddress
import socket
import ssl
import unicodedata
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme

from tests.upstreams import Hostile, Received, Step, answer
from tests.world import World, gateway, http, served
from tools.address_guard import NetworkPolicy
from tools.callers import ROLE_PERMISSIONS, Caller, Role
from tools.engine import HttpEngine
from tools.errors import RequestError
from tools.importers.frame import Source
from tools.importers.reading import read_source
from tools.models import Integration
from tools.outcome import Outcome
from tools.parsing import parse_create
from tools.way_out import WayOut, strict_tls

PUBLIC = "93.184.216.34"
"""An address that anybody may reach; the names below `*.public.example` have it."""
NAMES: Mapping[str, Sequence[str]] = {
    "inward.example": ["10.0.0.1"],
    "loop.example": ["127.0.0.1"],
    "meta.example": ["169.254.169.254"],
    "meta6.example": ["fd00:ec2::254"],
    "mapped.example": ["::ffff:169.254.169.254"],
    "nat64.example": ["64:ff9b::a9fe:a9fe"],
    "six.example": ["2002:a9fe:a9fe::"],
    "mixed.example": [PUBLIC, "169.254.169.254"],
    "mixed-last.example": ["169.254.169.254", PUBLIC],
    "azure.example": ["168.63.129.16"],
    "cgnat.example": ["100.64.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
}
OTHER = "93.184.216.66"
ELSEWHERE = frozenset(
    {"public.example", "evilpublic.example", "evil.test", "public.example.evil.test", "xn--pblic-8ya.example"}
)
"""Names of another public address, which an operator's list of `*.public.example` doesn't cover."""
SHOP = "http://shop.public.example"
"""The base URL of the integration `shop`, which is always there: its tool `shop_get` asks for /caught."""
SECRET = "stored-secret-7d1e"
HOSTS = (
    "*.public.example",
    "iamcredentials.googleapis.com.public.example",
    "sts.googleapis.com",
    "iamcredentials.googleapis.com",
    "*.example",
)
OWN_PORT = 8080
STRICTEST: Mapping[str, Any] = {
    "public_url": "https://gw.example",
    "suspicious_tools": "block",
    "mcp_changed_tools": "block",
}


def as_libc(name: str) -> Sequence[str]:
    """What the C library's resolver says: it reads every spelling of an address, after IDNA's normalisation."""
    plain = unicodedata.normalize("NFKC", name).replace("\u3002", ".").replace("\u00ad", "")
    if (known := NAMES.get(plain.lower().rstrip("."))) is not None:
        return known
    if plain.lower().rstrip(".") in ELSEWHERE:
        return [OTHER]
    with suppress(ValueError):
        return [str(ipaddress.ip_address(plain))]
    with suppress(OSError):
        return [socket.inet_ntoa(socket.inet_aton(plain.rstrip(".")))]
    if plain.rstrip(".").endswith(("public.example", "googleapis.com")):
        return [PUBLIC]
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def lookup(name: str, port: int) -> Sequence[str]:
    return as_libc(name)


@dataclass
class Ground:
    """`dialed` are the (address, port) that connections were made to, `attacker` who took them (`secure` with TLS).

    `asking` (ports 9443 and 9444) talks to clients alone that show the certificate in `certificate`.
    """

    world: World
    url: str
    client: httpx2.AsyncClient
    attacker: Hostile
    secure: Hostile
    asking: Hostile
    certificate: ssl.SSLContext
    rival: Caller
    """An owner of another workspace, `globex`."""
    rival_client: httpx2.AsyncClient
    folder: Path
    dialed: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    _number: int = 0

    @property
    def app(self) -> Any:
        return self.world.app

    @property
    def owner(self) -> Caller:
        return self.world.owner

    def name(self, prefix: str = "i") -> str:
        """A name that no attempt had before."""
        self._number += 1
        return f"{prefix}{self._number}"

    def host(self) -> str:
        """A public name of its own, so that no connection or verdict of another attempt is used again."""
        return f"{self.name('h')}.public.example"

    def clean(self) -> None:
        """Before each attempt: what is remembered of earlier ones, at the attacker and on the way to him, is forgotten."""
        upstream = self.app.gateway._sending._upstream
        upstream._passed.clear()
        upstream._engine._dialer._known.clear()
        self.clean_connections()
        self.dialed.clear()
        for server in (self.attacker, self.secure, self.asking):
            server.received.clear()
            server._scripts.clear()

    @property
    def received(self) -> list[Received]:
        return [*self.attacker.received, *self.secure.received]

    @contextmanager
    def way_out(self, **changes: Any) -> Iterator[None]:
        """The operator's way out with these fields of WayOut, for what is written and for what is called."""
        dialer, writer = self.app.gateway._sending._upstream._engine._dialer, self.app.writer
        way, rules = dialer._way, writer._rules
        dialer._way = replace(way, **changes)
        writer._rules = replace(rules, hosts=dialer._way.hosts)
        try:
            yield
        finally:
            dialer._way, writer._rules = way, rules
            self.clean_connections()

    def clean_connections(self) -> None:
        for origin in self.app.gateway._sending._upstream._engine._origins.values():
            while origin.idle:
                origin.idle.pop().abort()

    def arrived(self, *expected: tuple[str, int]) -> list[tuple[str, int]]:
        """Connections that somebody accepted beside those to be `expected` (address, port), each as often as it likes."""
        return [to for to in self.dialed if to not in expected]

    def script(self, path: str, *steps: Step) -> None:
        for server in (self.attacker, self.secure, self.asking):
            server.script(path, *steps)

    async def create(self, body: Mapping[str, Any], caller: Caller | None = None) -> Integration | None:
        """The integration, or None where it was refused."""
        try:
            return (await self.app.admin.create(caller or self.owner, parse_create(dict(body)))).after
        except RequestError:
            return None

    async def call(
        self, tool: str, arguments: Mapping[str, Any] | None = None, caller: Caller | None = None
    ) -> Outcome:
        return await self.app.toolbox.call(caller or self.owner, tool, dict(arguments or {}))

    async def drop(self, name: str) -> None:
        """So that the catalog doesn't grow with every attempt."""
        with suppress(RequestError):
            await self.app.admin.delete(self.owner, name)

    def caller(self, role: Role, workspace: str = "acme", **narrowed: Any) -> Caller:
        return Caller(self.name("k"), workspace, role=role, permissions=ROLE_PERMISSIONS[role], **narrowed)

    async def key(self, role: Role = "owner", workspace: str = "acme", **narrowed: Any) -> str:
        return (await self.app.keys.create(workspace, role=role, **narrowed)).api_key

    def as_(self, key: str | None) -> httpx2.AsyncClient:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, trust_env=False)


def rest(name: str, base_url: str, *endpoints: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The body of a create: one GET without arguments where no endpoint is given."""
    rows = endpoints or ({"name": "get", "description": "Gets it.", "method": "GET", "path": "/caught"},)
    return {"name": name, "display_name": name.title(), "base_url": base_url, "endpoints": list(rows), **more}


class _Network:
    """The way from a checked address to the attacker."""

    def __init__(self, plain: Hostile, secure: Hostile, asking: Hostile) -> None:
        self.plain, self.secure, self.asking = plain, secure, asking
        self.dialed: list[tuple[str, int]] = []

    async def connect(self, infos: Sequence[Any], socket_factory: Callable[[Any], socket.socket]) -> socket.socket:
        """In place of aiohappyeyeballs: the last gate (`socket_factory`) is asked as ever."""
        for info in infos:
            with suppress(OSError):  # no IPv6 on this machine
                socket_factory(info).close()
        address, port = infos[0][4][:2]
        self.dialed.append((address, port))
        server = self.secure if port in (443, 8443) else self.asking if port in (9443, 9444) else self.plain
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (server.host, server.port))
        return sock


_NETWORKS: dict[Any, _Network] = {}


async def _connect(infos: Sequence[Any], *, happy_eyeballs_delay: float, socket_factory: Any) -> socket.socket:
    """Each gateway's dialer on the network of its own ground."""
    return await _NETWORKS[socket_factory.__self__].connect(infos, socket_factory)


def _asking(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*HOSTS).configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def _read(data: bytes, where: str) -> Source:
    return read_source(data, where)


@asynccontextmanager
async def ground(folder: Path, *, lenient: bool) -> AsyncGenerator[Ground, None]:
    """`lenient`: the operator allows all private networks."""
    authority = trustme.CA()
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*HOSTS).configure_cert(serving)
    trusting = strict_tls()
    authority.configure_trust(trusting)
    policy = NetworkPolicy(allow_private=lenient, own_listeners=frozenset({("0.0.0.0", OWN_PORT)}))
    async with AsyncExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        attacker = await stack.enter_async_context(Hostile())
        secure = await stack.enter_async_context(Hostile(tls=serving))
        asking = await stack.enter_async_context(Hostile(tls=_asking(authority)))
        network = _Network(attacker, secure, asking)
        patch.setattr("tools.dialing.start_connection", _connect)
        patch.setattr("server.app.HttpEngine", partial(HttpEngine, lookup=lookup))
        patch.setattr("server.app.way_out", lambda _: WayOut(trusting))
        world = await stack.enter_async_context(gateway(folder, network=policy, **STRICTEST))
        _NETWORKS[world.app.gateway._sending._upstream._engine._dialer] = network
        world.app.importer._read = _read  # without a process of its own, which is for bombs
        await world.app.registry.ensure_workspace("globex")
        assert await World(world.app, world.owner).create(rest("shop", SHOP)) is not None
        url = await stack.enter_async_context(served(world))
        client = await stack.enter_async_context(http(url, await world.key()))
        rival_key = (await world.app.keys.create("globex", role="owner")).api_key
        rival_client = await stack.enter_async_context(http(url, rival_key))
        rival = Caller("key_rival", "globex", role="owner", permissions=ROLE_PERMISSIONS["owner"])
        shown = strict_tls()
        authority.configure_trust(shown)
        authority.issue_cert("gateway.example").configure_cert(shown)
        yield Ground(world, url, client, attacker, secure, asking, shown, rival, rival_client, folder, network.dialed)


json_answer = partial(answer, headers={"Content-Type": "application/json"})
