"""Plain tools/call and tools/list without the SDK's per-request machinery: the same Toolbox, the same answers, a fifth of the cost.

Every MUST is kept: headers that match the body, era by version header, result types, cancel on disconnect (2026-07-28) and by
`notifications/cancelled` (sessions), the session's credential. Any doubt goes to the SDK: the body is replayed to it unchanged.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Literal

import anyio
import orjson
from mcp.server.auth.middleware.bearer_auth import authorization_context
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import methods
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.types import Message, Receive, Scope, Send

from server.tasks import TASKS
from server.wire import ANSWER_WHOLE, LIST_TTL_MS, REQUEST_ID, AnswerWhole, call_result, came_with, hops_of, send_whole
from tools.call import CallContext
from tools.callers import Caller
from tools.due import Due
from tools.json_values import may_round
from tools.kinds.rest import HOPS_HEADER, to_json
from tools.toolbox import Toolbox

MODERN = "2026-07-28"
_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
_CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
_LOG_LEVEL_KEY = "io.modelcontextprotocol/logLevel"
_SERVER_INFO_KEY = "io.modelcontextprotocol/serverInfo"
_WATCH_AFTER_S = 0.05
_CANCELLED = -32800
_TRACE_CONTEXT = ("traceparent", "tracestate")
_HOPS = HOPS_HEADER.lower().encode()

Era = Literal["modern", "legacy"]


class FastPath:
    """Answers what it is sure of; `handle` says whether it did. `sessions` as in HttpApp.

    `asking`: ids of the sessions whose clients show forms.
    """

    def __init__(
        self,
        toolbox: Toolbox,
        manager: StreamableHTTPSessionManager,
        server_info: Mapping[str, Any],
        *,
        sessions: bool,
        asking: AbstractSet[str],
        max_body: int,
        session_idle_s: float,
        answered: Callable[[], None] | None,
    ) -> None:
        """`answered` is told of each answer, where figures are wanted."""
        self._answered = answered
        self._toolbox, self._manager = toolbox, manager
        self._stamp = {_SERVER_INFO_KEY: dict(server_info)}
        self._sessions, self._max_body, self._session_idle = sessions, max_body, session_idle_s
        self._asking = asking
        self._accepts: dict[bytes, bool] = {}
        self._envelopes: set[bytes] = set()
        self._running: dict[tuple[str, Any], asyncio.Task[Any]] = {}
        self._header_names: set[tuple[bytes, ...]] = set()
        self._due = Due()

    async def handle(
        self, caller: Caller, headers: dict[bytes, bytes], scope: Scope, receive: Receive, send: Send
    ) -> Receive | None:
        """None: answered. Else the `receive` to give to the SDK, which replays what was read."""
        era = self._era(headers, scope)
        if era is None:
            return receive
        body, messages = await self._read(receive)
        if body is None:
            return _replay(messages, receive)
        request = self._parse(body, headers, era)
        if request is None:
            return _replay(messages, receive)
        method, request_id, params = request
        if method == "tools/list":
            page = await self._toolbox.page_json(caller, params.get("cursor"))
            if page is None:
                return _replay(messages, receive)
            await self._send(scope, send, _list_answer(request_id, page, self._stamp if era == "modern" else None))
            return None
        if era == "modern":
            asks = "elicitation" in params["_meta"][_CAPABILITIES_KEY]
        else:
            asks = headers.get(b"mcp-session-id", b"").decode("latin-1") in self._asking
        if not await self._toolbox.is_plain_tool(caller, params["name"], asks=asks):
            return _replay(messages, receive)
        context = self._context(era, request_id, params, headers, scope)
        if era == "modern":
            await self._modern_call(caller, request_id, params, context, scope, receive, send)
        else:
            await self._legacy_call(caller, request_id, params, context, headers, scope, send)
        return None

    def _context(
        self, era: Era, request_id: int | str, params: dict[str, Any], headers: dict[bytes, bytes], scope: Scope
    ) -> CallContext:
        meta: dict[str, Any] = params.get("_meta") or {}
        key = meta.get("idempotency_key")
        came = None
        if self._toolbox.is_traced:
            texts = {n: headers[n.encode()].decode("latin-1") for n in _TRACE_CONTEXT if n.encode() in headers}
            version = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
            came = came_with(meta, texts, version, request_id, "tcp")
        hops = headers.get(_HOPS)
        return CallContext(
            hops=0 if hops is None else hops_of(hops.decode("latin-1")),
            idempotency_key=key if isinstance(key, str) else None,
            request_id=scope[REQUEST_ID],
            came=came,
            takes_tasks=era == "modern" and _takes_tasks(meta),
        )

    # ------------------------------------------------------------------ is this ours?

    def _era(self, headers: dict[bytes, bytes], scope: Scope) -> Era | None:
        """The era of a request that may be ours by its headers alone."""
        get = headers.get
        if scope["method"] != "POST" or len(headers) != len(scope["headers"]):  # a header twice: the SDK sorts it out
            return None
        if not get(b"content-type", b"").lower().startswith(b"application/json") or not self._takes_both(
            get(b"accept", b"")
        ):
            return None
        version = get(b"mcp-protocol-version")
        if version == b"2026-07-28":
            return "modern" if get(b"mcp-method") in (b"tools/call", b"tools/list") else None
        if version is not None and version.decode("latin-1") not in HANDSHAKE_PROTOCOL_VERSIONS:
            return None
        session = get(b"mcp-session-id")
        if self._sessions:
            return "legacy" if session is not None and self._owns(session.decode("latin-1"), scope) else None
        return "legacy" if version is not None else None

    def _takes_both(self, accept: bytes) -> bool:
        known = self._accepts.get(accept)
        if known is None:
            types = {part.split(";")[0].strip() for part in accept.decode("latin-1").lower().split(",")}
            known = "*/*" in types or {"application/json", "text/event-stream"} <= types
            if len(self._accepts) < 100:
                self._accepts[accept] = known
        return known

    def _owns(self, session: str, scope: Scope) -> bool:
        """Whether this session lives and was opened with this credential (as the manager would check)."""
        manager = self._manager
        transport = manager._server_instances.get(session)  # pyright: ignore[reportPrivateUsage] - the SDK has no public handle
        if transport is None or transport.is_terminated:
            return False
        idle = transport.idle_scope
        if idle is None or idle.cancel_called:
            return False
        owner = manager._session_owners.get(session)  # pyright: ignore[reportPrivateUsage]
        if owner != authorization_context(scope["user"]):
            return False
        if idle.deadline != math.inf:
            idle.deadline = anyio.current_time() + self._session_idle
        return True

    async def _read(self, receive: Receive) -> tuple[bytes | None, list[Message]]:
        """The whole body, or None where it is too large or the client has left; with the messages read so far."""
        messages: list[Message] = []
        size = 0
        while True:
            message = await receive()
            messages.append(message)
            if message["type"] != "http.request":
                return None, messages
            size += len(message.get("body", b""))
            if size > self._max_body:
                return None, messages
            if not message.get("more_body", False):
                break
        body = messages[0].get("body", b"") if len(messages) == 1 else b"".join(m.get("body", b"") for m in messages)
        return body, messages

    def _parse(
        self, body: bytes, headers: dict[bytes, bytes], era: Era
    ) -> tuple[str, int | str, dict[str, Any]] | None:
        """(method, id, params) of a request without anything unusual."""
        if may_round(body):
            return None
        try:
            request = _object(orjson.loads(body))
        except orjson.JSONDecodeError:
            return None
        if request is None or request.get("jsonrpc") != "2.0":
            return None
        method, request_id, params = request.get("method"), request.get("id"), _object(request.get("params"))
        if era == "legacy" and method == "notifications/cancelled":
            self._cancel(headers, params)
            return None
        if type(request_id) not in (int, str) or params is None:
            return None
        if method == "tools/call":
            if type(params.get("name")) is not str or type(params.get("arguments", {})) is not dict:
                return None
        elif method != "tools/list" or type(params.get("cursor", "")) is not str:
            return None
        meta = _object(params.get("_meta"))
        if era == "modern":
            if meta is None or not self._is_sound_modern(method, params, meta, headers):
                return None
        elif "_meta" in params and (meta is None or "progressToken" in meta):
            return None
        return method, request_id, params  # pyright: ignore[reportReturnType] - the types were looked at above

    def _is_sound_modern(
        self, method: str, params: dict[str, Any], meta: dict[str, Any], headers: dict[bytes, bytes]
    ) -> bool:
        """Headers equal the body (spec 2026-07-28, transports), the envelope is whole, and nothing asks for a stream."""
        if meta.get(_VERSION_KEY) != MODERN or _CAPABILITIES_KEY not in meta:
            return False
        if "progressToken" in meta or _LOG_LEVEL_KEY in meta:
            return False
        if headers[b"mcp-method"].decode("latin-1") != method:
            return False
        if method == "tools/call" and headers.get(b"mcp-name", b"").decode("latin-1") != params["name"]:
            return False
        if not self._is_without_parameters(tuple(headers)):
            return False
        # The envelope is the same in all requests of one client: what the SDK's models took once needn't be shown again.
        envelope = orjson.dumps(meta)
        if envelope not in self._envelopes or len(params) > 3:
            try:
                methods.validate_client_request(method, MODERN, params)
            except ValueError:  # pydantic's ValidationError is one
                return False
            if len(self._envelopes) < 1000 and len(envelope) < 4096:
                self._envelopes.add(envelope)
        return True

    def _is_without_parameters(self, names: tuple[bytes, ...]) -> bool:
        """No `Mcp-Param-` header, which must be checked against the tool's schema. One client's names are always the same."""
        if names in self._header_names:
            return True
        if any(name.startswith(b"mcp-param-") for name in names):
            return False
        if len(self._header_names) < 1000 and sum(map(len, names)) < 1000:
            self._header_names.add(names)
        return True

    # ------------------------------------------------------------------ answering

    async def _modern_call(
        self,
        caller: Caller,
        request_id: int | str,
        params: dict[str, Any],
        context: CallContext,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Runs the call here; a client that leaves cancels it (spec: MUST). Watching costs only calls that take a while."""
        watch = _DisconnectWatch(self._due, receive)
        try:
            result = await self._result(caller, params, context)
        except asyncio.CancelledError:
            if watch.has_left and (task := asyncio.current_task()) is not None and task.uncancel() == 0:
                return  # nobody is there to be answered
            raise
        finally:
            watch.stop()
        result["_meta"].update(self._stamp)
        await self._send(scope, send, _answer(request_id, result))

    async def _legacy_call(
        self,
        caller: Caller,
        request_id: int | str,
        params: dict[str, Any],
        context: CallContext,
        headers: dict[bytes, bytes],
        scope: Scope,
        send: Send,
    ) -> None:
        """Runs the call where `notifications/cancelled` of the same session finds it; a disconnect doesn't cancel here."""
        key = (headers.get(b"mcp-session-id", b"").decode("latin-1"), request_id)
        if not key[0] or key in self._running:
            result = await self._result(caller, params, context)
        else:
            task = self._running[key] = asyncio.ensure_future(self._result(caller, params, context))
            try:
                result = await asyncio.shield(task)
            except asyncio.CancelledError:
                if not task.cancelled():
                    task.cancel()
                    raise
                error = {"code": _CANCELLED, "message": "Request cancelled"}
                await self._send(scope, send, orjson.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}))
                return
            finally:
                self._running.pop(key, None)
        del result["resultType"]
        await self._send(scope, send, _answer(request_id, result))

    def _cancel(self, headers: dict[bytes, bytes], params: dict[str, Any] | None) -> None:
        wanted = (params or {}).get("requestId")
        if isinstance(wanted, int | str):
            task = self._running.get((headers.get(b"mcp-session-id", b"").decode("latin-1"), wanted))
            if task is not None:
                task.cancel()

    async def _send(self, scope: Scope, send: Send, body: bytes) -> None:
        whole: AnswerWhole | None = scope.get(ANSWER_WHOLE)
        if whole is not None:
            if self._answered is not None:
                self._answered()
            await whole(body, scope[REQUEST_ID])
            return
        await send_whole(send, 200, b"application/json", body)

    async def _result(self, caller: Caller, params: dict[str, Any], context: CallContext) -> dict[str, Any]:
        return call_result(await self._toolbox.call(caller, params["name"], params.get("arguments"), context))


class _DisconnectWatch:
    """Cancels the current task when the client leaves; begins to look only after a while."""

    __slots__ = ("_due", "_receive", "_task", "_watcher", "has_left")

    def __init__(self, due: Due, receive: Receive) -> None:
        self._due, self._receive = due, receive
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self.has_left = False
        due.add(self, _WATCH_AFTER_S)

    def late(self) -> None:
        self._watcher = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        if self._task is not None:
            self._task.cancel()

    def stop(self) -> None:
        self._due.remove(self)
        if self._watcher is not None:
            self._watcher.cancel()


def _takes_tasks(meta: dict[str, Any]) -> bool:
    return TASKS in (meta[_CAPABILITIES_KEY].get("extensions") or ())


def _object(value: Any) -> dict[str, Any] | None:
    return value if type(value) is dict else None  # pyright: ignore[reportUnknownVariableType] - JSON's keys are text


def _replay(messages: list[Message], receive: Receive) -> Receive:
    waiting = iter(messages)

    async def replayed() -> Message:
        for message in waiting:
            return message
        return await receive()

    return replayed


def _answer(request_id: int | str, result: dict[str, Any]) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (orjson.dumps(request_id), to_json(result))


def _list_answer(request_id: int | str, page: tuple[bytes, str | None], stamp: dict[str, Any] | None) -> bytes:
    """`page` is the JSON array of the entries, ready-made, and the cursor of the next."""
    tools, cursor = page
    more: dict[str, Any] = {} if cursor is None else {"nextCursor": cursor}
    if stamp is not None:
        more |= {"resultType": "complete", "ttlMs": LIST_TTL_MS, "cacheScope": "private", "_meta": stamp}
    rest = orjson.dumps(more)[1:-1]
    return b'{"jsonrpc":"2.0","id":%b,"result":{"tools":%b%b%b}}' % (
        orjson.dumps(request_id),
        tools,
        b"," if rest else b"",
        rest,
    )
