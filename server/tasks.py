"""The MCP extension io.modelcontextprotocol/tasks (2026-07-28): `tasks/get`, `tasks/update` and `tasks/cancel` of background calls.

A client that declares it gets a task in place of an answer that isn't there within a moment. A task is the background call
itself: the same id, the same owner, the same result as `get_result` gives. There is no list: ids are known to their callers only.
Older protocol eras have `get_result`: the tasks of 2025-11-25 were an experiment that this extension has taken the place of.
"""

from collections.abc import Callable
from typing import Any

import mcp_types as types
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from pydantic import ConfigDict, Field

from server.wire import call_result
from tools.background import Background, ended
from tools.callers import Caller
from tools.errors import StorageUnavailable

TASKS = "io.modelcontextprotocol/tasks"
_FIRST_ERA = "2026-07-28"
_Context = ServerRequestContext[Any, Any]


class _TaskParams(types.RequestParams):
    """Of all three methods. What else is sent along (`inputResponses`, `requestState`) was never asked for and is ignored."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)
    task_id: str = Field(alias="taskId", max_length=200)


def takes_tasks(ctx: _Context) -> bool:
    """Whether this request declares the extension (no request speaks for another)."""
    capabilities = ctx.session.client_capabilities
    return ctx.protocol_version >= _FIRST_ERA and capabilities is not None and TASKS in (capabilities.extensions or ())


def add_tasks(server: Server[Any], background: Background, caller_of: Callable[[_Context], Caller]) -> None:
    """Declares the extension and answers its methods."""

    async def get(ctx: _Context, params: _TaskParams) -> dict[str, Any]:
        found = await _or_unavailable(background.task(_asking(ctx, params), params.task_id))
        if found is None:
            raise _not_found()
        call, task = found
        if task["status"] == "completed":
            task["result"] = call_result(ended(call, call.tool))
        return {"resultType": "complete", **task}

    async def update(ctx: _Context, params: _TaskParams) -> dict[str, Any]:
        # No task of ours ever asks for input: responses are ignored, as the specification says of keys that aren't outstanding.
        if await _or_unavailable(background.task(_asking(ctx, params), params.task_id)) is None:
            raise _not_found()
        return {"resultType": "complete"}

    async def cancel(ctx: _Context, params: _TaskParams) -> dict[str, Any]:
        if not await _or_unavailable(background.cancel(_asking(ctx, params), params.task_id)):
            raise _not_found()
        return {"resultType": "complete"}

    def _asking(ctx: _Context, params: _TaskParams) -> Caller:
        """Who asks, where he may ask: in this era, with the extension declared, and with a header that says the same."""
        if ctx.protocol_version < _FIRST_ERA:
            raise MCPError(types.METHOD_NOT_FOUND, "Method not found")
        if not takes_tasks(ctx):
            required: dict[str, Any] = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
            raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "Missing required client capability", required)
        if ctx.request is not None and decode_header_value(ctx.request.headers.get(MCP_NAME_HEADER)) != params.task_id:
            raise MCPError(types.HEADER_MISMATCH, "The Mcp-Name header must be the taskId of the request")
        return caller_of(ctx)

    server.extensions[TASKS] = {}
    for method, handler in (("tasks/get", get), ("tasks/update", update), ("tasks/cancel", cancel)):
        server.add_request_handler(method, _TaskParams, handler)


async def _or_unavailable(asked: Any) -> Any:
    try:
        return await asked
    except StorageUnavailable as e:
        raise MCPError(types.INTERNAL_ERROR, e.message) from None


def _not_found() -> MCPError:
    return MCPError(types.INVALID_PARAMS, "Task not found: it doesn't exist, has expired, or is another caller's")
