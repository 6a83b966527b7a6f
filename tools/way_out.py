"""The operator's way out: his proxy, his CA, certificates that we show, and the hosts that each workspace may reach at all.

With a proxy names are resolved and judged here, and it is told the address that passed (CONNECT, also for http): a proxy that
resolved the name again could be led to another one (rules H1).
"""

import asyncio
import base64
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from tools.exchange import ConnectFailed
from tools.host_list import ALL_HOSTS, EVERY, HostList, plain_host

_MOST_HEAD = 16 * 1024


def strict_tls() -> ssl.SSLContext:
    """Verifies always, TLS 1.2 or later, HTTP/1.1 only. Reading the CA file takes milliseconds: made once."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy of the operator's; `credentials` are "user:password", `direct` addresses that are reached without it."""

    host: str
    port: int
    credentials: str = field(default="", repr=False)
    direct: tuple[IPv4Network | IPv6Network, ...] = ()

    def stands_before(self, address: str) -> bool:
        return not any(ip_address(address) in network for network in self.direct)

    async def connect(self, address: str, port: int) -> socket.socket:
        """A tunnel to this address (RFC 9110 9.3.6). Raises ConnectFailed in words for operators."""
        sock, status = await self.asked(address, port)
        if not 200 <= status < 300:
            sock.close()
            raise ConnectFailed(f"the outbound proxy answers {status} to a tunnel")
        return sock

    async def asked(self, address: str, port: int) -> tuple[socket.socket, int]:
        """The connection on which a tunnel was asked for, and the proxy's status. Raises ConnectFailed where it gives none."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        except socket.gaierror as exc:
            raise ConnectFailed(f"the outbound proxy's name isn't found: {exc.strerror}") from exc
        family, kind, protocol, _, where = found[0]
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, where)
            target = f"[{address}]:{port}" if isinstance(ip_address(address), IPv6Address) else f"{address}:{port}"
            head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
            if self.credentials:
                head += f"Proxy-Authorization: Basic {base64.b64encode(self.credentials.encode()).decode()}\r\n"
            await loop.sock_sendall(sock, f"{head}\r\n".encode())
            status = await self._status(loop, sock)
        except OSError as exc:
            sock.close()
            raise ConnectFailed(f"the outbound proxy can't be reached: {exc.strerror or exc}") from exc
        except BaseException:
            sock.close()
            raise
        return sock, status

    async def _status(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> int:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = await loop.sock_recv(sock, 4096)
            head += piece
            if not piece or len(head) > _MOST_HEAD or b"\r\n\r\n" in head[:-4]:
                raise ConnectFailed("the outbound proxy answers with something else than a tunnel")
        version, _, rest = head.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise ConnectFailed("the outbound proxy doesn't speak HTTP")
        return int(rest[:3])


@dataclass(frozen=True, slots=True)
class WayOut:
    """`shown` are contexts with a client's certificate, by (workspace in lower case or EVERY, host, port)."""

    tls: ssl.SSLContext = field(default_factory=strict_tls)
    shown: Mapping[tuple[str, str, int], ssl.SSLContext] = field(
        default_factory=dict[tuple[str, str, int], ssl.SSLContext]
    )
    proxy: Proxy | None = None
    hosts: HostList = ALL_HOSTS

    def context(self, workspace: str, host: str, port: int) -> ssl.SSLContext:
        if not self.shown:
            return self.tls
        at = plain_host(host), port
        return self.shown.get((workspace.lower(), *at)) or self.shown.get((EVERY, *at)) or self.tls
