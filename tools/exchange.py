"""One HTTP exchange: what goes out, what comes back, how it fails below the rules, and the Engine that carries it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class Request:
    """What goes out. `url` is finished: absolute, percent-encoded ASCII, no fragment; it is sent as it is (rules F4).

    `private_headers` are the lower-case names that must not follow a redirect to another origin (rules F5).
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    private_headers: frozenset[str] = frozenset()


@dataclass(slots=True)
class Answer:
    """What came back, whatever its status. `headers` ignores case (get_all is of no use here: the first one counts);
    `body` is decompressed, though Content-Encoding is still in `headers`; `url` is where it came from after redirects."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


@dataclass(slots=True)
class Wire:
    """What is known of one send while it runs.

    `sent`: the first byte of a request may have left and its outcome isn't known; set by the engine, cleared by Upstream.
    `strayed`: a redirect led to another origin, so what is sent now has no credential (kept by Upstream).
    `signing`: the credential is being waited for (kept by Upstream).
    """

    sent: bool = False
    strayed: bool = False
    signing: bool = False


class ConnectFailed(Exception):
    """No connection: nothing was sent. str() is for operators."""


class ConnectionLost(Exception):
    """The connection broke after sending began and before the whole answer was here. `status` if the head had come."""

    def __init__(self, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        self.status = status


class Stream(Protocol):
    """An answer whose body is still coming. `headers` ignores case."""

    status: int
    headers: Mapping[str, str]

    async def read(self, max_bytes: int) -> bytes:
        """The whole body; raises as `Engine.exchange` does."""
        ...

    def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, to its end. Raises ConnectionLost where it breaks off, InvalidResponse."""
        ...


class Engine(Protocol):
    """Carries one request. Tests put another one in (tests/httpx_engine.py)."""

    async def exchange(self, request: Request, *, pool: str, max_bytes: int, wire: Wire) -> Answer:
        """Send and read the whole answer; connections are shared only within one `pool`. Cancelling closes the connection.

        Sets `wire.sent` before the first byte leaves. Raises ConnectFailed, ConnectionLost; AddressRefused,
        CertificateRefused (nothing sent); InvalidResponse, ResponseTooLarge (an answer that can't be taken).
        """
        ...

    def stream(self, request: Request, *, pool: str, wire: Wire) -> AbstractAsyncContextManager[Stream]:
        """As `exchange`, but the body is read by the caller as it comes; leaving before its end closes the connection."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
