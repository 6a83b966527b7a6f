"""One HTTP/1.1 connection: exchanges one after the other, each parsed by llhttp as its bytes arrive."""

import asyncio
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import httptools

from tools.errors import InvalidResponse, ResponseTooLarge
from tools.exchange import ConnectionLost
from tools.inflate import Inflate

_LOST = "closed before the whole answer was here"
_MAX_HEAD = 64 * 1024
_NO_HEADERS: Mapping[str, str] = {}
_HIGH_WATER = 256 * 1024  # of a body that is read piece by piece: above it the connection stops reading


class Headers(Mapping[str, str]):
    """An answer's headers: names ignore case, of several with one name the first counts. Text is made of what is asked for."""

    __slots__ = ("_values",)

    def __init__(self, rows: list[tuple[bytes, bytes]]) -> None:
        values: dict[bytes, bytes] = {}
        for name, value in rows:
            values.setdefault(name.lower(), value)
        self._values = values

    def __getitem__(self, name: str) -> str:
        return _text(self._values[_bytes(name)])

    def get(self, name: str, default: Any = None) -> Any:
        value = self._values.get(_bytes(name))
        return default if value is None else _text(value)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _bytes(name) in self._values

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._values)

    def __len__(self) -> int:
        return len(self._values)


def _bytes(name: str) -> bytes:
    return name.lower().encode("latin-1", "replace")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape").strip()


class Exchange:
    """One request's answer as it comes. `begun` is done with the head, `finished` with the whole; both carry the failure.

    There is no `begun` where the whole is waited for anyway.
    """

    __slots__ = (
        "_inflate",
        "_max",
        "_method",
        "_more",
        "_pieces",
        "_room",
        "begun",
        "buffered",
        "finished",
        "headers",
        "status",
    )

    def __init__(self, method: str, max_bytes: int | None) -> None:
        loop = asyncio.get_running_loop()
        self.status = 0
        self.headers: Mapping[str, str] = _NO_HEADERS
        self.finished: asyncio.Future[None] = loop.create_future()
        self.begun: asyncio.Future[None] | None = loop.create_future() if max_bytes is None else None
        self._method = method
        self._max = max_bytes
        self._room = max_bytes or 0
        self._inflate: Inflate | None = None
        self._pieces: list[bytes] = []
        self._more: asyncio.Future[None] | None = None
        self.buffered = 0

    # -- told by the connection

    def head(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers
        if self._max is not None:
            self.limit(self._max)
        if self.begun is not None and not self.begun.done():
            self.begun.set_result(None)

    def data(self, piece: bytes) -> None:
        if self._max is None:
            self._pieces.append(piece)
            self.buffered += len(piece)
            self._tell()
            return
        if self._inflate is not None:
            try:
                piece = self._inflate.feed(piece, self._room + 1)
            except zlib.error as exc:
                raise _unreadable("its answer can't be decompressed", str(exc), self.status) from exc
        self._room -= len(piece)
        if self._room < 0:
            raise _too_large(self._max)
        self._pieces.append(piece)

    def end(self) -> None:
        if self._inflate is not None and not self._inflate.complete:
            self.fail(_unreadable("its answer can't be decompressed", "the compressed data ends early", self.status))
        elif not self.finished.done():
            self.finished.set_result(None)
            self._tell()

    def fail(self, exc: BaseException) -> None:
        for future in (self.begun, self.finished):
            if future is not None and not future.done():
                future.set_exception(exc)
                future.exception()  # told to whoever waits; not a surprise when nobody does
        self._tell()

    # -- asked by the engine

    @property
    def has_body(self) -> bool:
        return self._method != "HEAD"

    def limit(self, max_bytes: int) -> None:
        """From here on the body is kept, decompressed, up to `max_bytes`. Raises what can't be taken."""
        encoding = self._encoding()
        if encoding not in ("", "gzip", "deflate"):
            raise _unreadable("its answer is in an encoding that was not asked for", encoding[:100], self.status)
        length = self.headers.get("content-length", "")
        if self.has_body and length.isdecimal() and int(length) > max_bytes:
            raise _too_large(max_bytes)
        waiting, self._pieces = self._pieces, []
        self._max = self._room = max_bytes
        if encoding and self.has_body:
            self._inflate = Inflate(encoding)
        for piece in waiting:
            self.data(piece)
        self.buffered = 0

    def check_plain(self) -> None:
        if self._encoding():
            raise _unreadable("its answer is in an encoding that was not asked for", "", self.status)

    def _encoding(self) -> str:
        encoding = self.headers.get("content-encoding", "").strip().lower()
        return "" if encoding == "identity" else encoding

    def body(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def take(self) -> bytes:
        """What has come since the last time."""
        piece = b"".join(self._pieces)
        self._pieces.clear()
        self.buffered = 0
        return piece

    async def more(self) -> None:
        self._more = asyncio.get_running_loop().create_future()
        await self._more

    def _tell(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)


class Connection(asyncio.Protocol):
    """`is_idle`: connected and ready for the next exchange; once closed or in doubt it never is again."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._current: Exchange | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._rows: list[tuple[bytes, bytes]] = []
        self._head_size = 0
        self._until_close = False
        self._keep = False
        self._paused = False
        self._surplus = False
        self.idle_since = 0.0

    @property
    def is_idle(self) -> bool:
        return self._transport is not None and self._current is None and not self._transport.is_closing()

    def begin(self, method: str, head: bytes, body: bytes | None, max_bytes: int | None) -> Exchange:
        """Sends a request. `max_bytes` None: the body is taken piece by piece."""
        current = self._current = Exchange(method, max_bytes)
        if self._transport is None or self._transport.is_closing():
            current.fail(ConnectionLost(_LOST))
            return current
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self._rows, self._head_size, self._until_close, self._keep = [], 0, False, False
        self._transport.write(head if body is None else head + body)
        return current

    def abort(self) -> None:
        """Closes at once; a running exchange fails."""
        if self._transport is not None:
            self._transport.abort()
        self._finish(ConnectionLost(_LOST))

    def resume(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are, without saying so

    def data_received(self, data: bytes) -> None:
        current, parser = self._current, self._parser
        if current is None or parser is None:
            self.abort()  # something that nobody asked for: what follows can't be trusted either
            return
        try:
            parser.feed_data(data)
        except httptools.HttpParserCallbackError as exc:
            self._fail(exc.__context__ or exc.__cause__ or exc)
        except httptools.HttpParserUpgrade:
            self._fail(InvalidResponse("its answer isn't HTTP", detail="an upgrade that was not asked for"))
        except httptools.HttpParserError as exc:
            if self._current is None:
                self.abort()  # the answer was whole; what came after it wasn't HTTP
            else:
                self._fail(_unreadable("its answer isn't HTTP", str(exc)[:300], current.status or None))
        if self._surplus:
            self.abort()  # an answer to nothing: the next exchange must not be given it
        if current.buffered > _HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._parser = None  # it holds this object
        current = self._current
        if current is None:
            return
        if self._until_close and exc is None:
            self._finish(None)
        else:
            why = exc.strerror if isinstance(exc, OSError) and exc.strerror else _LOST
            self._finish(ConnectionLost(why, current.status or None))

    # -- llhttp's callbacks

    def on_message_begin(self) -> None:
        if self._current is None:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value) + 4
        if self._head_size > _MAX_HEAD:
            raise InvalidResponse("its answer isn't HTTP", detail=f"more than {_MAX_HEAD} bytes of headers")
        self._rows.append((name, value))

    def on_headers_complete(self) -> None:
        current, parser = self._current, self._parser
        if current is None or parser is None:
            return
        status = parser.get_status_code()
        if status < 200:
            if status == 101 or status < 100:
                raise InvalidResponse("its answer isn't HTTP", detail=f"unexpected status {status}")
            return  # RFC 9110 15.2: an interim answer; the real one follows
        headers = Headers(self._rows)
        self._keep = parser.should_keep_alive() and current.has_body
        self._until_close = "content-length" not in headers and "transfer-encoding" not in headers
        current.head(status, headers)
        if not current.has_body:
            self._finish(None)

    def on_body(self, body: bytes) -> None:
        if self._current is not None:
            self._current.data(body)

    def on_message_complete(self) -> None:
        current = self._current
        if current is None:
            return
        if current.status == 0:
            self._rows, self._head_size = [], 0  # that was an interim answer
            return
        self._finish(None)

    # -- how an exchange ends

    def _fail(self, exc: BaseException) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._finish(exc)

    def _finish(self, exc: BaseException | None) -> None:
        current = self._current
        if current is None:
            return
        self._current = None
        if exc is not None or not self._keep:
            if self._transport is not None:
                self._transport.abort()
            self._transport = None
        if exc is None:
            current.end()
        else:
            current.fail(exc)


def _unreadable(message: str, detail: str, status: int | None) -> InvalidResponse:
    return InvalidResponse(message, detail=detail, upstream_status=status)


def _too_large(max_bytes: int) -> ResponseTooLarge:
    return ResponseTooLarge(f"the answer is longer than {max_bytes:,} bytes")
