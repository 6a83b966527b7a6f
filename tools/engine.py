"""HTTP/1.1 over asyncio as the Engine: a request as built goes out, a whole answer within the size limit comes back.

The parser is llhttp (httptools). No redirects, no retries, no deadline, no cookies: `upstream.py` decides all that.
Our own, because it is on the path of each call: measured on one core, a GET of 2 KB costs a third of what aiohttp takes for it.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from urllib.parse import urlsplit

from tools.address_guard import NetworkPolicy
from tools.connection import Connection, Exchange
from tools.dialing import Dialer, Lookup, system_lookup
from tools.exchange import Answer, Request, Wire
from tools.way_out import WayOut

_NO_BODY_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
Key = tuple[str, bool, str, int]
"""(pool, TLS, host, port): connections are shared only within one."""


class HttpEngine:
    """`lookup` answers names; `way` is how the operator lets us out; `user_agent` goes out where the request has none;
    `connections` is the limit for each pool and origin; idle ones are looked at every `sweep_s`."""

    def __init__(
        self,
        network: NetworkPolicy,
        *,
        lookup: Lookup = system_lookup,
        way: WayOut | None = None,
        user_agent: str = "integrations-mcp",
        connections: int = 100,
        keepalive_s: float = 30.0,
        sweep_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dialer = Dialer(network, lookup=lookup, way=way, clock=clock)
        self._user_agent = f"User-Agent: {user_agent}\r\n"
        self._connections = connections
        self._keepalive_s, self._sweep_s = keepalive_s, sweep_s
        self._clock = clock
        self._origins: dict[Key, _Origin] = {}
        self._sweep: asyncio.TimerHandle | None = None

    async def exchange(self, request: Request, *, pool: str, max_bytes: int, wire: Wire) -> Answer:
        origin, connection = await self._acquire(request.url, pool)
        try:
            wire.sent = True
            current = connection.begin(request.method, self._head(request), request.body, max_bytes)
            await current.finished
        except BaseException:
            connection.abort()
            raise
        finally:
            self._release(origin, connection)
        return Answer(current.status, current.headers, current.body(), request.url)

    @asynccontextmanager
    async def stream(self, request: Request, *, pool: str, wire: Wire) -> AsyncGenerator["_Body", None]:
        """As `exchange`, but the body is read by the caller, piece by piece; leaving before its end closes the connection."""
        origin, connection = await self._acquire(request.url, pool)
        try:
            wire.sent = True
            current = connection.begin(request.method, self._head(request), request.body, None)
            assert current.begun is not None
            await current.begun
            yield _Body(connection, current)
        except BaseException:
            connection.abort()
            raise
        finally:
            if not connection.is_idle:
                connection.abort()
            self._release(origin, connection)

    def connections(self) -> tuple[int, int]:
        """(in use, idle): how many are open."""
        origins = self._origins.values()
        return sum(len(o.busy) for o in origins), sum(len(o.idle) for o in origins)

    async def aclose(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for origin in self._origins.values():
            for connection in (*origin.idle, *origin.busy):
                connection.abort()
        self._origins.clear()
        await asyncio.sleep(0)  # the transports close in the loop's next round

    # ------------------------------------------------------------------ connections

    async def _acquire(self, url: str, pool: str) -> tuple["_Origin", Connection]:
        secure, host, port, _ = _target(url)
        key = (pool, secure, host, port)
        origin = self._origins.get(key)
        if origin is None:
            origin = self._origins[key] = _Origin(self._connections)
            if self._sweep is None:  # it goes on as long as there are origins
                self._sweep_later()
        origin.users += 1
        if origin.room <= 0:
            try:
                await origin.wait()
            except BaseException:
                origin.users -= 1
                raise
        origin.room -= 1
        now = self._clock()
        while origin.idle:
            connection = origin.idle.pop()
            if connection.is_idle and now - connection.idle_since < self._keepalive_s:
                origin.busy.add(connection)
                return origin, connection
            connection.abort()
        try:
            connection = await self._dialer.connect(Connection, pool=pool, host=host, port=port, secure=secure)
        except BaseException:
            origin.leave()
            raise
        origin.busy.add(connection)
        return origin, connection

    def _release(self, origin: "_Origin", connection: Connection) -> None:
        origin.busy.discard(connection)
        origin.leave()
        if connection.is_idle:
            connection.idle_since = self._clock()
            origin.idle.append(connection)

    def _sweep_later(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(self._sweep_s, self._close_idle)

    def _close_idle(self) -> None:
        """Closes what nobody has used for a while and forgets origins without connections."""
        self._sweep = None
        horizon = self._clock() - self._keepalive_s
        for key, origin in list(self._origins.items()):
            for connection in [c for c in origin.idle if not c.is_idle or c.idle_since <= horizon]:
                origin.idle.remove(connection)
                connection.abort()
            if origin.is_unused:
                del self._origins[key]
        if self._origins:
            self._sweep_later()

    def _head(self, request: Request) -> bytes:
        """The request's head as it goes out. Names and values were checked by Upstream: none can hold a line break."""
        _, _, _, host = _target(request.url)
        target = request.url[request.url.find("/", 8) :] if request.url.find("/", 8) > 0 else "/"
        names = {name.lower() for name, _ in request.headers}
        lines = [f"{request.method} {target} HTTP/1.1\r\nHost: {host}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in request.headers]
        if "user-agent" not in names:
            lines.append(self._user_agent)
        if "accept" not in names:
            lines.append("Accept: */*\r\n")
        if "accept-encoding" not in names:
            lines.append("Accept-Encoding: gzip, deflate\r\n")
        if request.body is not None:
            lines.append(f"Content-Length: {len(request.body)}\r\n")
        elif request.method not in _NO_BODY_METHODS:
            lines.append("Content-Length: 0\r\n")
        lines.append("\r\n")
        return "".join(lines).encode()


class _Origin:
    """The connections of one pool to one origin. `room` is how many more may be busy; `users` wait, dial or are busy."""

    __slots__ = ("_waiting", "busy", "idle", "room", "users")

    def __init__(self, connections: int) -> None:
        self.users = 0
        self.idle: deque[Connection] = deque()
        self.busy: set[Connection] = set()
        self.room = connections
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Until there is room, in the order of coming."""
        while self.room <= 0:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake()  # it was our turn: the next one's now
                else:
                    self._waiting.remove(turn)
                raise

    def leave(self) -> None:
        self.users -= 1
        self.room += 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    @property
    def is_unused(self) -> bool:
        # Who waits or dials is a user too: forgotten meanwhile, his connection would never be used again nor closed.
        return not self.idle and self.users == 0


class _Body:
    """`exchange.Stream` over a connection."""

    def __init__(self, connection: Connection, current: Exchange) -> None:
        self._connection, self._current = connection, current
        self.status = current.status
        self.headers = current.headers

    async def read(self, max_bytes: int) -> bytes:
        self._current.limit(max_bytes)
        self._connection.resume()
        await self._current.finished
        return self._current.body()

    async def pieces(self) -> AsyncIterator[bytes]:
        self._current.check_plain()
        while True:
            piece = self._current.take()
            if piece:
                self._connection.resume()
                yield piece
            elif self._current.finished.done():
                await self._current.finished
                return
            else:
                await self._current.more()


@lru_cache(maxsize=4096)
def _origin_parts(head: str) -> tuple[bool, str, int, str]:
    parts = urlsplit(head)
    secure = parts.scheme.lower() == "https"
    host = parts.hostname or ""
    port = parts.port or (443 if secure else 80)
    shown = f"[{host}]" if ":" in host else host
    return secure, host, port, shown if port == (443 if secure else 80) else f"{shown}:{port}"


def _target(url: str) -> tuple[bool, str, int, str]:
    """(TLS, host, port, Host header) of a finished URL."""
    end = url.find("/", 8)
    if end < 0:
        end = url.find("?", 8)
    return _origin_parts(url if end < 0 else url[:end])
