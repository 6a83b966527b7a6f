"""A small hostile HTTP server for tests, on loopback: what arrives is kept, what goes back is a script.

    async with Hostile() as server:
        server.script("/x", answer(503, headers={"Retry-After": "1"}), answer(200, b"{}"))   # one a request, the last repeats
        ... call server.url + "/x" ...
        assert server.received[0].header("authorization") is None

Paths without a script are answered with the request itself as JSON. A step is a coroutine function over (Received, StreamWriter);
it returns True to keep the connection open. Raw sockets, so that it can do what no proper server does.
"""

import asyncio
import gzip
import json
import ssl
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came. `connection` numbers the TCP connections, from 1."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


Step = Callable[[Received, asyncio.StreamWriter], Awaitable[bool]]


def head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode("utf-8", "surrogateescape")


def answer(status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Step:
    """A proper answer, kept alive. HEAD gets the same head without the body."""

    async def step(request: Received, writer: asyncio.StreamWriter) -> bool:
        sized = {} if status in (204, 304) else {"Content-Length": str(len(body))}
        writer.write(head(status, {**sized, **(headers or {})}) + (b"" if request.method == "HEAD" else body))
        return True

    return step


def redirect(status: int, location: str) -> Step:
    return answer(status, b"", {"Location": location})


async def echo(request: Received, writer: asyncio.StreamWriter) -> bool:
    """The request as JSON: method, target, headers (list of pairs), body (text), connection."""
    seen = {
        "method": request.method,
        "target": request.target,
        "headers": request.headers,
        "body": request.body.decode("latin-1"),
        "connection": request.connection,
    }
    return await answer(200, json.dumps(seen).encode(), {"Content-Type": "application/json"})(request, writer)


async def drop(request: Received, writer: asyncio.StreamWriter) -> bool:
    """Closes after the request, without a byte."""
    return False


async def reset(request: Received, writer: asyncio.StreamWriter) -> bool:
    """RST after the request."""
    writer.get_extra_info("socket").setsockopt(*_LINGER_ZERO)
    writer.transport.abort()
    return False


async def silence(request: Received, writer: asyncio.StreamWriter) -> bool:
    """Never answers; the connection ends when the client ends it."""
    return True


def raw(data: bytes) -> Step:
    """These bytes, then close."""

    async def step(request: Received, writer: asyncio.StreamWriter) -> bool:
        writer.write(data)
        return False

    return step


def stall(data: bytes) -> Step:
    """These bytes, then nothing, with the connection open."""

    async def step(request: Received, writer: asyncio.StreamWriter) -> bool:
        writer.write(data)
        return True

    return step


def endless(headers: Mapping[str, str], piece: bytes, limit: int = 1 << 16) -> Step:
    """A chunked body that goes on until the client closes (or `limit` pieces, so that a failing test ends)."""

    async def step(request: Received, writer: asyncio.StreamWriter) -> bool:
        writer.write(head(200, {"Transfer-Encoding": "chunked", **headers}))
        for _ in range(limit):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        return False

    return step


def gzip_bomb(size: int, encoding: str = "gzip") -> Step:
    """`size` zero bytes, compressed about 1000 to 1, with a truthful Content-Length."""
    squeezed = gzip.compress(bytes(size), 9) if encoding == "gzip" else zlib.compress(bytes(size), 9)
    return answer(200, squeezed, {"Content-Encoding": encoding})


_LINGER_ZERO = (1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER


class Hostile:
    """The server. `received` in order of arrival; `closed` counts connections that have ended; `open` those that haven't."""

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.received: list[Received] = []
        self.connections = 0
        self.open = 0
        self._tls = tls
        self._scripts: dict[str, list[Step]] = {}
        self._changed = asyncio.Condition()

    def script(self, path: str, *steps: Step) -> str:
        """What the path answers, one step a request, the last one again and again. Returns the URL."""
        self._scripts[path] = list(steps)
        return self.url + path

    async def until(self, true: Callable[[], bool]) -> None:
        """Waits until `true()`; for what the far end sees a moment later, such as a closed connection."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(true)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        host = f"[{self.host}]" if ":" in self.host else self.host
        self.url = f"{'https' if self._tls else 'http'}://{host}:{self.port}"
        self._tasks: set[asyncio.Task[None]] = set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            while request := await _read(reader, number):
                self.received.append(request)
                await self._tell()
                if not await self._step(request.path)(request, writer):
                    break
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass  # the client left, or the test is over
        finally:
            self.open -= 1
            writer.close()
            await self._tell()

    def _step(self, path: str) -> Step:
        steps = self._scripts.get(path)
        if not steps:
            return echo
        return steps.pop(0) if len(steps) > 1 else steps[0]

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def _read(reader: asyncio.StreamReader, connection: int) -> Received | None:
    """One request with a Content-Length body or a chunked one; None at the end of the connection."""
    try:
        top = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = top.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    sizes = {name.lower(): value for name, value in headers}
    body = b""
    if "content-length" in sizes:
        body = await reader.readexactly(int(sizes["content-length"]))
    elif sizes.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    return Received(method, target, headers, body, connection)
