"""The MCP handlers: tools/list and tools/call on the low-level server, for both protocol eras and every wire.

Who is calling comes with each message: from the HTTP request's scope, or the local user where there is no request (stdio).
"""

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

import mcp_types as types
from mcp.server import NotificationOptions, Server
from mcp.server.context import ServerRequestContext
from mcp.server.models import InitializationOptions
from mcp.shared.exceptions import MCPError

from server.announcements import Announcements
from server.confirming import Confirmation, UserAtClient, shows_forms
from server.tasks import add_tasks, takes_tasks
from server.wire import LIST_TTL_MS, REQUEST_ID, call_result, came_with, hops_of
from tools.approvals import QuestionAsked
from tools.background import Background
from tools.call import CallContext
from tools.callers import Caller
from tools.errors import CallError, InvalidRequest, StateRefused
from tools.kinds.rest import HOPS_HEADER
from tools.toolbox import Toolbox
from tools.tracing import CameWith

CALLER = "integrations_mcp.caller"
"""Key of the Caller in an HTTP request's ASGI scope; set by `server.http`."""
_HANDSHAKE_ERAS_END = "2026"
_APPS = "io.modelcontextprotocol/ui"
_RESOURCE_NOT_FOUND = -32002
"""Before 2026-07-28 (2025-11-25, resources, "Error Handling"); then it is invalid params."""
_WHOLE: dict[str, Any] = {"resultType": "complete", "ttlMs": LIST_TTL_MS, "cacheScope": "private"}

# The one ContextVar: the SDK asks for a tool's schema by name alone, before any handler and without a context.
_calling: ContextVar[Caller | None] = ContextVar("calling", default=None)


def set_calling(caller: Caller) -> None:
    """Called where a request comes in, before the SDK sees it."""
    _calling.set(caller)


class GatewayServer(Server[Any]):
    """The manager asks for initialization options without arguments and would advertise no list_changed."""

    announces = True

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.asking: set[str] = set()
        """Ids of the legacy sessions whose clients show forms; the fast path, which can't ask, leaves calls of MCP servers to the SDK."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        options = notification_options or NotificationOptions(tools_changed=self.announces)
        return super().create_initialization_options(options, experimental_capabilities, extensions)


def make_server(
    toolbox: Toolbox,
    announcements: Announcements,
    background: Background | None,
    local: Caller | None,
    version: str,
    *,
    announces: bool,
) -> GatewayServer:
    """`local` is the caller where no HTTP request says who it is (stdio); None refuses those.

    `background` is None where nothing is run in the background. `announces`: whether legacy connections live long enough to
    be told of changes.
    """

    def caller_of(ctx: ServerRequestContext[Any, Any]) -> Caller:
        caller = ctx.request.scope[CALLER] if ctx.request is not None else local
        assert isinstance(caller, Caller), "every wire says who is calling"
        return caller

    async def list_tools(
        ctx: ServerRequestContext[Any, Any], params: types.PaginatedRequestParams | None
    ) -> dict[str, Any]:
        try:
            entries, cursor = await toolbox.page(caller_of(ctx), params.cursor if params else None)
        except InvalidRequest as e:
            raise MCPError(types.INVALID_PARAMS, e.message) from None
        result: dict[str, Any] = {
            "resultType": "complete",
            "tools": entries,
            "ttlMs": LIST_TTL_MS,
            "cacheScope": "private",
        }
        if cursor is not None:
            result["nextCursor"] = cursor
        return result

    async def call_tool(ctx: ServerRequestContext[Any, Any], params: types.CallToolRequestParams) -> dict[str, Any]:
        async def progress(done: float, message: str, total: float | None = None) -> None:
            await ctx.session.report_progress(done, total, message or None)

        context = CallContext(
            hops=_hops(ctx),
            idempotency_key=_idempotency_key(ctx.meta),
            progress=progress,
            confirm=Confirmation(ctx, params),
            user=UserAtClient(ctx, params) if shows_forms(ctx) else None,
            request_id=ctx.request.scope.get(REQUEST_ID, "") if ctx.request is not None else "",
            came=_came(ctx) if toolbox.is_traced else None,
            takes_tasks=background is not None and takes_tasks(ctx),
            shows_apps=_shows_apps(ctx),
        )
        try:
            outcome = await toolbox.call(caller_of(ctx), params.name, params.arguments, context)
        except QuestionAsked as e:
            return e.result
        if isinstance(outcome.error, StateRefused):
            raise MCPError(types.INVALID_PARAMS, outcome.error.message)
        return call_result(outcome)

    async def list_resources(
        ctx: ServerRequestContext[Any, Any], params: types.PaginatedRequestParams | None
    ) -> dict[str, Any]:
        return {**_WHOLE, "resources": await toolbox.apps(caller_of(ctx))}

    async def list_templates(
        ctx: ServerRequestContext[Any, Any], params: types.PaginatedRequestParams | None
    ) -> dict[str, Any]:
        return {**_WHOLE, "resourceTemplates": []}

    async def read_resource(
        ctx: ServerRequestContext[Any, Any], params: types.ReadResourceRequestParams
    ) -> dict[str, Any]:
        uri = str(params.uri)
        try:
            found = await toolbox.read_app(caller_of(ctx), uri, _hops(ctx))
        except CallError as e:
            raise MCPError(types.INTERNAL_ERROR, e.message) from None
        if found is None:
            code = types.INVALID_PARAMS if ctx.protocol_version >= _HANDSHAKE_ERAS_END else _RESOURCE_NOT_FOUND
            raise MCPError(code, "there is no such resource", {"uri": uri})
        return {**_WHOLE, **found}

    async def listen(
        ctx: ServerRequestContext[Any, Any], params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        return await announcements.listen(caller_of(ctx).workspace, ctx, params)

    async def instruct_and_track(
        ctx: ServerRequestContext[Any, Any],
        call_next: Callable[[ServerRequestContext[Any, Any]], Awaitable[Any]],
    ) -> Any:
        result = await call_next(ctx)
        if ctx.method in ("initialize", "server/discover") and isinstance(result, dict):
            result["instructions"] = await toolbox.instructions(caller_of(ctx))
        elif announces and ctx.method == "notifications/initialized" and ctx.protocol_version < _HANDSHAKE_ERAS_END:
            connection = ctx.session._connection  # pyright: ignore[reportPrivateUsage] - the SDK has no public handle
            announcements.track(caller_of(ctx).workspace, connection)
            session = ctx.request.headers.get("mcp-session-id") if ctx.request is not None else None
            if session is not None and shows_forms(ctx):
                server.asking.add(session)
                connection.exit_stack.callback(server.asking.discard, session)
        return result  # pyright: ignore[reportUnknownVariableType] - a wire dict

    def schema_of(name: str) -> Mapping[str, Any] | None:
        return toolbox.schema_of(_calling.get() or local, name)

    server = GatewayServer(  # pyright: ignore[reportCallIssue] - the SDK serializes handlers' wire dicts too
        "integrations-mcp",
        title="Integrations gateway",
        version=version,
        get_tool_input_schema=schema_of,
        on_list_tools=list_tools,  # pyright: ignore[reportArgumentType]
        on_call_tool=call_tool,  # pyright: ignore[reportArgumentType]
        on_list_resources=list_resources,  # pyright: ignore[reportArgumentType]
        on_list_resource_templates=list_templates,  # pyright: ignore[reportArgumentType]
        on_read_resource=read_resource,  # pyright: ignore[reportArgumentType]
        on_subscriptions_listen=listen,
    )
    server.announces = announces
    if background is not None:
        add_tasks(server, background, caller_of)
    server.middleware.clear()  # OpenTelemetry's costs 15 % of a call even with no exporter
    server.middleware.append(instruct_and_track)
    return server


def _hops(ctx: ServerRequestContext[Any, Any]) -> int:
    return 0 if ctx.request is None else hops_of(ctx.request.headers.get(HOPS_HEADER))


def _shows_apps(ctx: ServerRequestContext[Any, Any]) -> bool:
    capabilities = ctx.session.client_capabilities
    return capabilities is not None and _APPS in (capabilities.extensions or ())


def _came(ctx: ServerRequestContext[Any, Any]) -> CameWith:
    meta: Any = ctx.meta if isinstance(ctx.meta, Mapping) else {}
    headers: Mapping[str, str] = ctx.request.headers if ctx.request is not None else {}
    transport = "pipe" if ctx.request is None else "tcp"
    return came_with(meta, headers, ctx.protocol_version, ctx.request_id, transport)


def _idempotency_key(meta: Any) -> str | None:
    """The caller's own key (`_meta.idempotency_key`, rules F2)."""
    if not isinstance(meta, Mapping):
        return None
    key: Any = meta.get("idempotency_key")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - untyped wire data
    return None if key is None else str(key)  # pyright: ignore[reportUnknownArgumentType] - the gateway refuses what is no key
