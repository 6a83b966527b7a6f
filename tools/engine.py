"""aiohttp as the Engine: a request as built goes out, a whole answer within the size limit comes back.

No redirects, no retries, no deadline, no cookies, no proxies of the environment: `upstream.py` decides all that. The address
guard sits here too, where names are resolved and sockets are made (rules H1, H1b): aiohttp doesn't resolve literal addresses.
"""

import asyncio
import io
import socket
import ssl
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from tools.address_guard import NetworkPolicy, is_this_host, judge
from tools.errors import AddressRefused, CertificateRefused, InvalidResponse, ResponseTooLarge
from tools.exchange import Answer, ConnectFailed, ConnectionLost, Request, Wire

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""(name, port) -> its addresses; raises socket.gaierror."""


async def system_lookup(name: str, port: int) -> Sequence[str]:
    """What the operating system says, through the event loop's threads."""
    infos = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


class _Refused(OSError):
    """The guard's no, as the OSError that aiohttp carries through its connection code."""


class _GuardedResolver(AbstractResolver):
    """Every address of a name must pass, and only those that were judged are handed on."""

    def __init__(self, lookup: Lookup, policy: NetworkPolicy) -> None:
        self._lookup = lookup
        self._policy = policy

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = [ip_address(address) for address in await self._lookup(host, port)]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
        for address in addresses:
            if reason := judge(address, port, self._policy):
                raise _Refused(f"{host} resolves to an address that is refused: {reason}")
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


class _Sent(aiohttp.ClientRequest):
    """Tells the wire when sending begins: what fails before leaves nothing to wonder about."""

    wire: Wire

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        self.wire.sent = True
        return await super().send(conn)


class _Attempt:
    """A client middleware: the place between aiohttp's connection and its own retry of lost connections. That retry would
    send a DELETE twice without telling anybody, so a loss is turned into our exception here, which it doesn't catch."""

    __slots__ = ("wire",)

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    async def __call__(
        self, req: aiohttp.ClientRequest, handler: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]
    ) -> aiohttp.ClientResponse:
        assert isinstance(req, _Sent)
        req.wire = self.wire
        try:
            return await handler(req)
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as exc:
            raise CertificateRefused("its TLS certificate isn't accepted", detail=str(exc)) from exc
        except aiohttp.ClientConnectorError as exc:
            raise _not_connected(exc.os_error) from exc
        except aiohttp.ClientResponseError as exc:
            raise InvalidResponse("its answer isn't HTTP", detail=exc.message[:300]) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise ConnectionLost(_why_lost(exc)) from exc


def _why_lost(exc: Exception) -> str:
    # Not str(exc): aiohttp puts the half-read head into it.
    return (exc.strerror if isinstance(exc, OSError) else None) or "closed before the whole answer was here"


def _not_connected(cause: OSError) -> Exception:
    # A name that doesn't exist reads the same as one that points inwards (rules H2); only `detail` tells them apart.
    if isinstance(cause, _Refused):
        return refused(str(cause))
    if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
        return refused(f"the name doesn't resolve: {cause.strerror or cause}")
    return ConnectFailed(cause.strerror or str(cause))


def refused(detail: str) -> AddressRefused:
    """The one message of every guard refusal (rules H2)."""
    return AddressRefused("this address isn't allowed here", detail=detail)


def strict_tls() -> ssl.SSLContext:
    """Verifies always, TLS 1.2 or later, HTTP/1.1 only. Reading the CA file takes milliseconds: made once."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


@dataclass(slots=True)
class _Pool:
    session: aiohttp.ClientSession
    busy: int = 0
    used_at: float = 0.0


# No timers of aiohttp's: one deadline, Upstream's, covers name, connect, send and read.
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
_NO_CONTENT_TYPE = ("Content-Type",)
_LARGE_BODY = 1 << 20
_WATCH_S = 0.25
_IDLE_POOL_S = 300.0


class AiohttpEngine:
    """`lookup` answers names; `tls` replaces the context (own CA); `user_agent` goes out where the request has none;
    `connections` is the limit for each pool and origin."""

    def __init__(
        self,
        network: NetworkPolicy,
        *,
        lookup: Lookup = system_lookup,
        tls: ssl.SSLContext | None = None,
        user_agent: str = "integrations-mcp",
        connections: int = 100,
        keepalive_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network = network
        self._resolver = _GuardedResolver(lookup, network)
        self._tls = tls or strict_tls()
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "gzip, deflate"}
        self._connections = connections
        self._keepalive_s = keepalive_s
        self._clock = clock
        self._pools: dict[str, _Pool] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def exchange(self, request: Request, *, pool: str, max_bytes: int, wire: Wire) -> Answer:
        opened = self._pools.get(pool) or self._open(pool)
        opened.busy += 1
        try:
            response = await self._send(opened, request, wire)
            try:
                content = await _read(response, max_bytes)
            except BaseException:
                response.close()
                raise
            if not response.content.is_eof():
                response.close()
        finally:
            opened.busy -= 1
            opened.used_at = self._clock()
        return Answer(response.status, response.headers, content, request.url)

    @asynccontextmanager
    async def stream(self, request: Request, *, pool: str, wire: Wire) -> AsyncGenerator["_Body", None]:
        """As `exchange`, but the body is read by the caller, piece by piece; leaving before its end closes the connection."""
        opened = self._pools.get(pool) or self._open(pool)
        opened.busy += 1
        try:
            response = await self._send(opened, request, wire)
            try:
                yield _Body(response)
            finally:
                if not response.content.is_eof():
                    response.close()
        finally:
            opened.busy -= 1
            opened.used_at = self._clock()

    async def _send(self, opened: "_Pool", request: Request, wire: Wire) -> aiohttp.ClientResponse:
        body = request.body
        skip = None
        if body is not None and not any(name.lower() == "content-type" for name, _ in request.headers):
            skip = _NO_CONTENT_TYPE
        return await opened.session.request(
            request.method,
            URL(request.url, encoded=True),
            headers=request.headers,
            # Bytes over 1 MiB would be written in one piece, and aiohttp warns of it.
            data=io.BytesIO(body) if body is not None and len(body) > _LARGE_BODY else body,
            skip_auto_headers=skip,
            allow_redirects=False,
            middlewares=(_Attempt(wire),),
        )

    async def aclose(self) -> None:
        pools = list(self._pools.values())
        self._pools.clear()
        await asyncio.gather(*self._closing, *(pool.session.close() for pool in pools))

    def _open(self, name: str) -> _Pool:
        self._close_idle()
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            ssl=self._tls,
            socket_factory=self._socket,
            limit=0,
            limit_per_host=self._connections,
            keepalive_timeout=self._keepalive_s,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_NO_TIMEOUT,
            trust_env=False,
            request_class=_Sent,
            auto_decompress=False,
        )
        self._pools[name] = pool = _Pool(session, used_at=self._clock())
        return pool

    def _close_idle(self) -> None:
        # Their connections close by themselves (keepalive); this frees the rest, whenever another pool is wanted.
        horizon = self._clock() - _IDLE_POOL_S
        for name in [name for name, pool in self._pools.items() if not pool.busy and pool.used_at < horizon]:
            task = asyncio.create_task(self._pools.pop(name).session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        """The last gate, where a connection is about to be made (rules H1b). `info` is one of getaddrinfo's rows."""
        family, kind, protocol, _, address = info
        host, port = address[0], address[1]
        reason = judge(host, port, self._network)
        if not reason and self._network.listens_everywhere_on(port) and is_this_host(ip_address(host)):
            reason = f"{host} port {port} is this gateway itself"
        if reason:
            raise _Refused(reason)
        return socket.socket(family, kind, protocol)


class _Body:
    """`exchange.Stream` over aiohttp's response."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self, max_bytes: int) -> bytes:
        return await _read(self._response, max_bytes)

    async def pieces(self) -> AsyncIterator[bytes]:
        if self.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise _unreadable("its answer is in an encoding that was not asked for", "", self.status)
        try:
            with _Watch(self._response):
                while piece := await self._response.content.readany():
                    yield piece
        except HttpProcessingError as exc:
            raise _unreadable("its answer isn't HTTP", exc.message[:300], self.status) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise ConnectionLost(_why_lost(exc), self.status) from exc


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The whole body, decompressed, or ResponseTooLarge as soon as it is known to be longer than `max_bytes`."""
    headers = response.headers
    status = response.status
    if status < 200:
        raise InvalidResponse("its answer isn't HTTP", detail=f"unexpected status {status}")
    if response.method == "HEAD" or status in (204, 304):
        return b""
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding == "identity":
        encoding = ""
    if encoding not in ("", "gzip", "deflate"):
        raise _unreadable("its answer is in an encoding that was not asked for", encoding[:100], status)
    length = response.content_length
    if length is not None and length > max_bytes:
        raise _too_large(max_bytes)
    content = response.content
    try:
        if length is not None and not encoding:
            return await content.read()
        with _Watch(response):
            return await _read_pieces(content, _Inflate(encoding) if encoding else None, max_bytes)
    except zlib.error as exc:
        raise _unreadable("its answer can't be decompressed", str(exc), status) from exc
    except HttpProcessingError as exc:
        raise _unreadable("its answer isn't HTTP", exc.message[:300], status) from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise ConnectionLost(_why_lost(exc), status) from exc


async def _read_pieces(content: aiohttp.StreamReader, inflate: "_Inflate | None", max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    room = max_bytes
    while piece := await content.readany():
        if inflate:
            piece = inflate.feed(piece, room + 1)
        room -= len(piece)
        if room < 0:
            raise _too_large(max_bytes)
        pieces.append(piece)
    if inflate and not inflate.complete:
        raise zlib.error("the compressed data ends early")
    return b"".join(pieces)


class _Watch:
    """Ends a read of a body whose framing broke half way: aiohttp 3.14 closes the connection then, but leaves the reader
    waiting for the deadline."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        if not self._response.content.is_eof():
            self._timer = asyncio.get_running_loop().call_later(_WATCH_S, self._look)

    def __exit__(self, *_: object) -> None:
        if self._timer:
            self._timer.cancel()

    def _look(self) -> None:
        connection = self._response.connection
        protocol = connection.protocol if connection else None
        if protocol is not None and (fault := protocol.exception()):
            self._response.content.set_exception(fault)
        else:
            self.__enter__()


class _Inflate:
    """gzip or deflate, never more than asked for at once. Our own, since aiohttp takes a gzip that ends early as whole."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._stream: zlib._Decompress | None = None  # pyright: ignore[reportPrivateUsage] - zlib has no public name for it
        self.complete = True

    def feed(self, data: bytes, at_most: int) -> bytes:
        """What `data` inflates to, cut off at `at_most` bytes; gzip may hold several members."""
        parts: list[bytes] = []
        while data and at_most > 0:
            if self._stream is None:
                self._stream = zlib.decompressobj(self._window(data[0]))
                self.complete = False
            part = self._stream.decompress(data, at_most)
            at_most -= len(part)
            parts.append(part)
            data = self._stream.unconsumed_tail
            if self._stream.eof:
                data, self._stream, self.complete = self._stream.unused_data, None, True
        return b"".join(parts)

    def _window(self, first: int) -> int:
        # "deflate" is zlib's format (RFC 9110 8.4.1.2), but some servers send it bare: zlib's first byte ends in 8.
        if self._encoding == "gzip":
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS


def _unreadable(message: str, detail: str, status: int) -> InvalidResponse:
    return InvalidResponse(message, detail=detail, upstream_status=status)


def _too_large(max_bytes: int) -> ResponseTooLarge:
    return ResponseTooLarge(f"the answer is longer than {max_bytes:,} bytes")
