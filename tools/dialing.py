"""Makes connections: names are resolved and judged, sockets opened only to addresses that passed, TLS always verified.

The address guard sits here, where the socket is made (rules H1, H1b): whatever led to an address, it is judged again.
"""

import asyncio
import math
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Any, TypeVar

from aiohappyeyeballs import start_connection  # pyright: ignore[reportUnknownVariableType] - its address rows are bare tuples

from tools.address_guard import NetworkPolicy, is_this_host, judge, spelled_address
from tools.errors import AddressRefused, CertificateRefused, NameNotFound
from tools.exchange import ConnectFailed
from tools.way_out import Proxy, WayOut

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""(name, port) -> its addresses; raises socket.gaierror."""

_P = TypeVar("_P", bound=asyncio.BaseProtocol)
_BELIEVED_S = 10.0
_MOST_KNOWN = 1000
_MOST_TUNNELS = 3
_COARSE_MS = 50.0
_NEXT_ADDRESS_S = 0.25  # RFC 8305 5: when the next address is tried beside one that hasn't answered


async def system_lookup(name: str, port: int) -> Sequence[str]:
    """What the operating system says, through the event loop's threads."""
    infos = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


def refused(detail: str, kind: type[AddressRefused] = AddressRefused) -> AddressRefused:
    """The one message of every guard refusal (rules H2)."""
    return kind("this address isn't allowed here", detail=detail)


def coarse_ms(ms: float) -> float:
    """What may be told of how long a refused target took, which depends on what its name resolves to (rules H2)."""
    return math.ceil(ms / _COARSE_MS) * _COARSE_MS


class Dialer:
    """Connects under a network policy; `lookup` answers names, `way` is how the operator lets us out.

    The addresses of a name are believed for some seconds, within one pool: a burst of connections is one lookup.
    """

    def __init__(
        self,
        network: NetworkPolicy,
        *,
        lookup: Lookup = system_lookup,
        way: WayOut | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network = network
        self._lookup = lookup
        self._way = way or WayOut()
        self._clock = clock
        self._known: dict[tuple[str, str, int], tuple[float, list[str]]] = {}

    async def connect(self, make: Callable[[], _P], *, pool: str, host: str, port: int, secure: bool) -> _P:
        """A connected protocol. Raises AddressRefused, CertificateRefused, ConnectFailed; nothing of a request was sent."""
        if not self._way.hosts.allows(pool, host):
            raise refused(f"{host} isn't among the hosts that the operator lets this workspace reach")
        key = (pool, host, port)
        at, addresses = self._known.get(key, (-_BELIEVED_S, []))
        if self._clock() - at >= _BELIEVED_S:
            addresses = await self._addresses(host, port)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = (self._clock(), addresses)
        proxy = self._way.proxy
        if proxy is not None and proxy.stands_before(addresses[0]):
            sock = await self._through(proxy, addresses, port)
        else:
            sock = await self._straight(addresses, port)
        tls = self._way.context(pool, host, port) if secure else None
        try:
            _, protocol = await asyncio.get_running_loop().create_connection(
                make, sock=sock, ssl=tls, server_hostname=host if secure else None
            )
        except (ssl.SSLError, ssl.CertificateError) as exc:
            raise CertificateRefused("its TLS certificate isn't accepted", detail=str(exc)) from exc
        except OSError as exc:
            raise ConnectFailed(exc.strerror or str(exc) or "the TLS handshake was broken off") from exc
        return protocol

    async def _straight(self, addresses: list[str], port: int) -> socket.socket:
        infos = [_info(address, port) for address in addresses]
        try:
            return await start_connection(infos, happy_eyeballs_delay=_NEXT_ADDRESS_S, socket_factory=self._socket)
        except OSError as exc:
            raise ConnectFailed(exc.strerror or str(exc)) from exc

    async def _through(self, proxy: Proxy, addresses: list[str], port: int) -> socket.socket:
        """A tunnel to the first address to which there is one; each is judged again, as where a socket is made."""
        last = ConnectFailed("no address")
        for address in addresses[:_MOST_TUNNELS]:
            if reason := self._reason(address, port):
                raise refused(reason)
            try:
                return await proxy.connect(address, port)
            except ConnectFailed as exc:
                last = exc
        raise last

    async def _addresses(self, host: str, port: int) -> list[str]:
        """The addresses to try: of a literal itself; of a name all, and every one of them must pass."""
        literal = spelled_address(host)
        if literal is not None:
            found = [str(literal)]
        else:
            try:
                found = [str(ip_address(address)) for address in await self._lookup(host, port)]
            except socket.gaierror as exc:
                # A name that doesn't exist reads the same as one that points inwards (rules H2); only `detail` tells.
                if exc.errno == socket.EAI_AGAIN:
                    raise ConnectFailed(exc.strerror or str(exc)) from exc
                raise refused(f"{host} doesn't resolve: {exc.strerror or exc}", NameNotFound) from exc
            if not found:
                raise refused(f"{host} doesn't resolve: it has no address", NameNotFound)
        for address in found:
            if reason := self._reason(address, port):
                raise refused(
                    reason if literal is not None else f"{host} resolves to an address that is refused: {reason}"
                )
        return found

    def _reason(self, address: str, port: int) -> str | None:
        reason = judge(address, port, self._network)
        if not reason and self._network.listens_everywhere_on(port) and is_this_host(ip_address(address)):
            return f"{address} port {port} is this gateway itself"
        return reason

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        """The last gate, where a connection is about to be made (rules H1b)."""
        family, kind, protocol, _, address = info
        if reason := self._reason(str(address[0]), int(address[1])):
            raise refused(reason)
        return socket.socket(family, kind, protocol)


def _info(address: str, port: int) -> tuple[Any, ...]:
    """One row as getaddrinfo gives it. The protocol is named: asyncio turns Nagle's delay off only where it is."""
    six = isinstance(ip_address(address), IPv6Address)
    family = socket.AF_INET6 if six else socket.AF_INET
    where: tuple[Any, ...] = (address, port, 0, 0) if six else (address, port)
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where)
