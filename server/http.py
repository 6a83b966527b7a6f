"""The HTTP wire: one ASGI application for /mcp (both eras), /sse (legacy), /v1 (REST), /healthz, /readyz, /metrics.

In front of everything: Host and Origin checks (MCP spec, transports: DNS rebinding), the body limit, and who is calling.
"""

import contextlib
import itertools
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import orjson
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import ServerRequestContext
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import metrics_route
from server.app import App
from server.fast_path import FastPath
from server.hosts_allowed import AllowedHosts
from server.mcp_app import CALLER, set_calling
from server.metrics import Metrics
from server.metrics_route import Scrape
from server.protected_resources import WELL_KNOWN
from server.refusals import refusal, refused
from server.wire import REQUEST_ID, send_whole
from server.worker_figures import Slot
from tools.callers import Caller
from tools.errors import GatewayError, Unauthenticated

# Made without asking the system for random bits at each request: that alone costs what a whole lookup of a key does.
_PROCESS = f"req_{os.urandom(8).hex()}"
_NUMBERS = itertools.count(1)
_SESSION_IDLE_S = 600.0
_BLANKS = (b" ", b"\t")
MCP_PATH, SSE_PATH, MESSAGES_PATH = "/mcp", "/sse", "/messages/"
_ROUTES = frozenset({"mcp", "sse", "messages", "v1", "healthz", "readyz", "metrics"})


class HttpApp:
    """The ASGI application; enter `running()` around serving."""

    def __init__(
        self, app: App, rest: ASGIApp, allowed: AllowedHosts, *, sessions: bool, slot: Slot | None = None
    ) -> None:
        """`sessions`: legacy clients get sessions (one process); else every legacy request stands alone.

        `slot` is this process's place among several workers, where figures are wanted."""
        self._app, self._rest, self._allowed = app, rest, allowed
        self._sessions = sessions
        self._server = app.mcp_server(None, announces=sessions)
        self._manager = StreamableHTTPSessionManager(
            self._server,
            stateless=not sessions,
            session_idle_timeout=_SESSION_IDLE_S,
            max_sessions=5000,
            max_request_body_size=app.settings.max_body_bytes,
        )
        self._sse_server = app.mcp_server(None, announces=True)
        self._sse_server.middleware.append(self._count_message)
        self._sse = SseServerTransport(MESSAGES_PATH, max_request_body_size=app.settings.max_body_bytes)
        self._fast = (
            FastPath(
                app.toolbox,
                self._manager,
                self._server.server_info_stamp,
                sessions=sessions,
                asking=self._server.asking,
                max_body=app.settings.max_body_bytes,
                session_idle_s=_SESSION_IDLE_S,
                answered=None if app.metrics is None else partial(app.metrics.answered, "mcp", 200),
            )
            if app.settings.fast_path
            else None
        )
        self._metrics = app.metrics
        token = app.settings.metrics_token
        self._scrape = Scrape(token, app.metrics, app.background, slot) if app.metrics and token else None
        self._users: dict[tuple[str, str], AuthenticatedUser] = {}
        self._in_flight = 0
        self._idle = anyio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        async with self._manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        for _, value in scope["headers"]:
            if value.endswith(_BLANKS):
                # RFC 9110 5.5: blanks around a value are no part of it; the parser leaves those behind it.
                scope["headers"] = [(name, value.rstrip(b" \t")) for name, value in scope["headers"]]
                break
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id"))
        scope[REQUEST_ID] = request_id
        send = _with_headers(send, request_id, for_browsers=scope["method"] not in ("POST", "PUT", "DELETE"))
        if self._metrics is None:
            await self._answer(path, headers, scope, receive, send)
            return
        self._metrics.requests_running += 1
        try:
            await self._answer(path, headers, scope, receive, _counting(send, _route(path), self._metrics))
        finally:
            self._metrics.requests_running -= 1

    async def _answer(self, path: str, headers: dict[bytes, bytes], scope: Scope, receive: Receive, send: Send) -> None:
        request_id: str = scope[REQUEST_ID]
        if path in ("/healthz", "/readyz"):
            await self._probe(path, send)
            return
        # Before the check of Host: it is asked for by address, and a page in a browser doesn't have the token.
        if path == metrics_route.PATH and self._scrape is not None:
            await self._figures(self._scrape, headers, scope, send)
            return
        if not_for_us := self._allowed.refusal(headers.get(b"host"), headers.get(b"origin")):
            await answer(send, not_for_us[0], refused(not_for_us[1], "host_refused", request_id))
            return
        if len(headers) != len(scope["headers"]) and sum(n == b"authorization" for n, _ in scope["headers"]) > 1:
            # A proxy in front may have judged the other one.
            await refuse(send, Unauthenticated("more than one Authorization header was sent"), request_id)
        elif path.startswith(WELL_KNOWN) and (document := self._app.resources and self._app.resources.metadata(path)):
            await _public(scope, document, send)
        elif path in (MCP_PATH, SSE_PATH) or path.startswith(MESSAGES_PATH):
            await self._mcp(path, headers, scope, receive, send)
        else:
            await self._rest(scope, receive, send)

    async def _mcp(self, path: str, headers: dict[bytes, bytes], scope: Scope, receive: Receive, send: Send) -> None:
        try:
            caller = await self.caller(headers, scope)
        except GatewayError as e:
            await refuse(send, e, scope[REQUEST_ID])
            return
        scope[CALLER] = caller
        scope["user"] = self._user_of(caller)
        set_calling(caller)
        method: str = scope["method"]
        if path == MCP_PATH:
            if not self._sessions and method != "POST":
                await _not_allowed(send, "POST", scope[REQUEST_ID])
                return
            await self._count(scope, self._answer_mcp(headers, scope, receive, send))
        elif path == SSE_PATH:
            if method != "GET":
                await _not_allowed(send, "GET", scope[REQUEST_ID])
                return
            async with self._sse.connect_sse(scope, receive, send) as (read, write):
                await self._sse_server.run(read, write, self._sse_server.create_initialization_options())
        else:
            await self._count(scope, self._sse.handle_post_message(scope, receive, send))

    async def _answer_mcp(self, headers: dict[bytes, bytes], scope: Scope, receive: Receive, send: Send) -> None:
        """The fast path where it is sure, else the SDK."""
        if self._fast is not None:
            rest = await self._fast.handle(scope[CALLER], headers, scope, receive, send)
            if rest is None:
                return
            receive = rest
        await self._manager.handle_request(scope, receive, send)

    def _user_of(self, caller: Caller) -> AuthenticatedUser:
        """Without this object the SDK doesn't bind sessions to the credential that opened them."""
        key = (caller.id, caller.workspace)
        user = self._users.get(key)
        if user is None:
            token = AccessToken(token="-", client_id=caller.id, scopes=[], subject=caller.workspace)  # noqa: S106
            user = AuthenticatedUser(token)
            if len(self._users) < 10_000:
                self._users[key] = user
        return user

    async def caller(self, headers: dict[bytes, bytes], scope: Scope) -> Caller:
        """Who is calling. Raises as `Bearer.caller` does."""
        return await self._app.bearer.caller(headers, scope.get("client"), scope["path"])

    async def _count(self, scope: Scope, answering: Awaitable[None]) -> None:
        """Counts what is running, for draining; a GET stream isn't a running call."""
        if scope["method"] == "GET":
            await answering
            return
        self._in_flight += 1
        try:
            await answering
        finally:
            self._in_flight -= 1
            self._idle.set()

    async def _count_message(
        self, ctx: ServerRequestContext[Any, Any], call_next: Callable[[ServerRequestContext[Any, Any]], Awaitable[Any]]
    ) -> Any:
        """The same for SSE, where the POST that brings a call has ended long before the call does."""
        self._in_flight += 1
        try:
            return await call_next(ctx)
        finally:
            self._in_flight -= 1
            self._idle.set()

    async def until_idle(self) -> None:
        """Returns when no call is running."""
        while self._in_flight:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def _figures(self, scrape: Scrape, headers: dict[bytes, bytes], scope: Scope, send: Send) -> None:
        if scope["method"] != "GET":
            await _not_allowed(send, "GET", scope[REQUEST_ID])
            return
        try:
            scrape.check(headers, scope.get("client"))
        except GatewayError as e:
            await refuse(send, e, scope[REQUEST_ID])
            return
        await send_whole(send, 200, metrics_route.CONTENT_TYPE, await scrape.text())

    async def _probe(self, path: str, send: Send) -> None:
        missing = await self._app.is_ready() if path == "/readyz" else None
        if missing is None:
            await answer(send, 200, {"status": "ok"})
        else:
            await answer(send, 503, {"status": "unavailable", "detail": missing}, [(b"retry-after", b"5")])


async def refuse(send: Send, error: GatewayError, request_id: str) -> None:
    """An error in the contract's shape."""
    status, body, headers = refusal(error, request_id)
    await answer(send, status, body, headers)


async def answer(
    send: Send, status: int, body: dict[str, Any], headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """One JSON answer."""
    await send_whole(send, status, b"application/json", orjson.dumps(body), headers or [])


async def _public(scope: Scope, document: bytes, send: Send) -> None:
    """A document that is the same for everybody."""
    if scope["method"] not in ("GET", "HEAD"):
        await _not_allowed(send, "GET or HEAD", scope[REQUEST_ID])
        return
    await send_whole(send, 200, b"application/json", document, [(b"cache-control", b"public, max-age=300")])


async def _not_allowed(send: Send, allow: str, request_id: str) -> None:
    await answer(send, 405, refused(f"use {allow}", "method_not_allowed", request_id), [(b"allow", allow.encode())])


def _request_id(given: bytes | None) -> str:
    """The caller's own where it is one harmless word, so that his log and ours can be read together."""
    if given and len(given) <= 128 and all(33 <= c < 127 for c in given):
        return given.decode()
    return f"{_PROCESS}{next(_NUMBERS):x}"


_FOR_BROWSERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
_NOT_KEPT = (b"cache-control", b"no-store")


def _with_headers(send: Send, request_id: str, *, for_browsers: bool) -> Send:
    """Names the request; what somebody may open in a browser is never run, framed, or kept where it doesn't say so."""

    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            if for_browsers:
                headers += _FOR_BROWSERS
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append(_NOT_KEPT)
            message["headers"] = headers
        await send(message)

    return sender


def _route(path: str) -> str:
    """A label: a few words, whatever is asked for."""
    head = path.split("/", 2)[1]
    return head if head in _ROUTES else "other"


def _counting(send: Send, route: str, metrics: Metrics) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            metrics.answered(route, message["status"])
        await send(message)

    return sender
