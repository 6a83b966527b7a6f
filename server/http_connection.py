"""One client's connection: how much head it may send, how long it may take, and how many there may be (uvicorn's, with limits).

The deadlines hold for what a client does, not for how long a call takes: sending a request whole, and taking what it is sent. Idle
connections between requests are closed by uvicorn's keep-alive. Trailers of a chunked body are never headers (RFC 9110 6.5.1).
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.refusals import refused
from server.wire import ANSWER_WHOLE

_PATIENCE_OVER_S = 1.0
CODES = {
    400: "invalid_http",
    408: "request_timeout",
    414: "url_too_long",
    431: "headers_too_large",
    503: "too_many_connections",
}
"""The `error_code` of what is refused here, by its status."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """`head` are bytes of a request's URL and headers together, `seconds` for a client to send a request or take an answer."""

    connections: int = 5000
    seconds: float = 30.0
    headers: int = 100
    head: int = 64 * 1024
    url: int = 16 * 1024
    last_request: float = 1.0
    """Seconds that a connection on which nothing was asked yet may still ask when the server ends: its request is on the way."""


class LimitedConfig(uvicorn.Config):
    """uvicorn's configuration with the limits; worker processes get it as it is."""

    def __init__(self, app: Any, limits: ConnectionLimits, **more: Any) -> None:
        super().__init__(app, http=HttpConnection, ws="none", **more)
        self.limits = limits


class _Dropped(list[tuple[bytes, bytes]]):
    """Where trailers go, however many they are."""

    def append(self, _: tuple[bytes, bytes]) -> None:
        pass


_DROPPED = _Dropped()


class HttpConnection(HttpToolsProtocol):
    """What goes beyond a limit gets one answer and the connection ends; nothing of it reaches the application."""

    flow: FlowControl

    def __init__(self, config: LimitedConfig, *more: Any, **named: Any) -> None:
        super().__init__(config, *more, **named)
        self._limits = config.limits
        self._in_head, self._idle, self._ended, self._over = True, True, False, False
        self._begun = self._unread = self._chunk = 0
        self._refusal = (400, "this isn't an HTTP/1.1 request")
        self._sending: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None
        self._last: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as uvicorn has it
        super().connection_made(transport)
        self._over = len(self.connections) > self._limits.connections
        patience = min(_PATIENCE_OVER_S, self._limits.seconds) if self._over else self._limits.seconds
        self._sending = self.loop.call_later(patience, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sent_whole()
        self.resume_writing()
        if self._last is not None:
            self._last.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._over:  # refused now and not before: closing on unread data would cut the answer off
            self._refuse(503, "too many connections are open: close some, or come back later")
            return
        was_idle, self._begun, self._ended, self._chunk = self._idle, 0, False, len(data)
        super().data_received(data)
        if self._idle and self._ended:
            self._sent_whole()
            return
        if self._in_head and self._begun <= was_idle:  # this head alone is in the data
            # A header that never ends reaches no callback.
            self._unread += len(data)
            if self._unread > self._limits.head and not self.transport.is_closing():
                self._refuse(*self._too_large())
        if self._sending is None and not self.transport.is_closing():
            self._sending = self.loop.call_later(self._limits.seconds, self._too_slow)

    # ------------------------------------------------------------------ what the parser finds

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._idle = True, False
        self._begun += 1
        self._unread = 0

    def on_headers_complete(self) -> None:
        limits, size = self._limits, 0
        if self._unread + self._chunk > limits.head:  # else it can't be longer: most heads aren't measured
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if len(self.url) > limits.url:
            self._refusal = (414, f"the URL is longer than {limits.url} bytes")
            raise ValueError  # stops the parser, which comes back by `send_400_response`
        if len(self.headers) > limits.headers or size > limits.head:
            self._refusal = self._too_large()
            raise ValueError
        self._in_head = False
        super().on_headers_complete()
        cycle: Any = self.cycle
        self.scope[ANSWER_WHOLE] = partial(self._answer_whole, cycle)  # pyright: ignore[reportGeneralTypeIssues] - the scope is uvicorn's typed dictionary
        if self._last is not None:
            self.cycle.keep_alive = False
        self.headers = _DROPPED

    def on_message_complete(self) -> None:
        self._idle = self._ended = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Whatever made the parser stop: its own fault or one of ours."""
        self._refuse(*self._refusal)

    async def _answer_whole(self, cycle: Any, body: bytes, request_id: str) -> None:
        """What uvicorn's cycle does for a start and a whole body, with one write: each costs a call of the system."""
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        if cycle.disconnected:
            return
        cycle.response_started, cycle.waiting_for_100_continue = True, False
        last = b"" if cycle.keep_alive else b"connection: close\r\n"
        defaults = b"".join([b"%b: %b\r\n" % header for header in self.server_state.default_headers])
        head = (
            b"HTTP/1.1 200 OK\r\n%bcontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n"
        )
        self.transport.write(head % (defaults, len(body), request_id.encode(), last) + body)
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    # ------------------------------------------------------------------ slow clients

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._taking is None:
            self._taking = self.loop.call_later(self._limits.seconds, self._takes_nothing)

    def resume_writing(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None
        super().resume_writing()

    def _takes_nothing(self) -> None:
        self._taking = None
        self.transport.abort()

    def _too_slow(self) -> None:
        self._sending = None
        if self.transport.is_closing():
            return
        cycle: Any = self.cycle  # None before the first request
        answering = cycle is not None and not cycle.response_complete
        if self.flow.read_paused or (answering and (self._in_head or self._idle)):
            # It isn't the client that is slow: we don't read, or the request before is still being answered.
            self._sending = self.loop.call_later(self._limits.seconds, self._too_slow)
        else:
            said = f"the request wasn't there whole within {self._limits.seconds:g} s"
            self._refuse(408, said)

    def _sent_whole(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    # ------------------------------------------------------------------ the server's end

    def shutdown(self) -> None:
        """uvicorn closes what isn't being answered. A balancer has just sent its request there, and could not send it again."""
        cycle: Any = self.cycle  # None before the first request
        between = cycle is not None and cycle.response_complete and self._idle
        if between or (cycle is not None and not cycle.response_complete) or self.transport.is_closing():
            super().shutdown()
        else:
            self._last = self.loop.call_later(self._limits.last_request, self._asked_nothing)

    def _asked_nothing(self) -> None:
        cycle: Any = self.cycle
        if cycle is None or cycle.response_complete:
            self.transport.close()

    # ------------------------------------------------------------------ refusing

    def _too_large(self) -> tuple[int, str]:
        limits = self._limits
        return 431, f"send at most {limits.headers} headers and {limits.head} bytes of them, URL included"

    def _refuse(self, status: int, detail: str) -> None:
        """One answer where none has begun, and the end of the connection. The application hears that the client has left."""
        cycle: Any = self.cycle  # None before the first request
        begun = cycle is not None and cycle.response_started and not cycle.response_complete
        if not begun:
            body = orjson.dumps(refused(detail, CODES[status], ""))
            head = [
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
                "content-type: application/json",
                f"content-length: {len(body)}",
                "x-content-type-options: nosniff",
                "connection: close",
            ]
            if status == 503:
                head.append("retry-after: 5")
            self.transport.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        self.transport.close()
