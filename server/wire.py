"""Outcomes and catalogs as MCP results: plain dicts in the wire's spelling, shared by the SDK handlers and the fast path."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from starlette.types import Send

from tools.outcome import Block, Outcome
from tools.tool import META
from tools.tracing import CameWith

LIST_TTL_MS = 30_000
REQUEST_ID = "integrations_mcp.request_id"
"""Key of the request's id in an ASGI scope; set by `server.http`."""
ANSWER_WHOLE = "integrations_mcp.answer_whole"
"""Key of `AnswerWhole` in an ASGI scope; set by `server.http_connection`, and so only where that serves."""


class AnswerWhole(Protocol):
    """Answers with 200 and this JSON at once: head and body leave in one packet, where ASGI's messages take two."""

    async def __call__(self, body: bytes, request_id: str) -> None: ...


_SERVER_INFO = "io.modelcontextprotocol/serverInfo"


async def send_whole(
    send: Send, status: int, content_type: bytes, body: bytes, more: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """One answer in ASGI's two messages; `more` are further headers."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def call_result(outcome: Outcome) -> dict[str, Any]:
    """`CallToolResult` (or `CreateTaskResult`): one text block (or one binary one), `_meta` that nobody needs to understand the text (agents.md 2)."""
    trace = outcome.trace
    meta: dict[str, Any] = {
        f"{META}call": {
            "call_id": outcome.call_id,
            "http_status": outcome.status,
            "duration_ms": round(outcome.duration_ms, 1),
            "attempts": len(trace.attempts),
        }
    }
    if (cut := outcome.cut) is not None:
        meta[f"{META}cut"] = {
            "from": cut.first,
            "to": cut.last,
            "total": cut.total,
            "unit": cut.unit,
            "result_id": outcome.result_id,
            "expires_at": outcome.expires_at,
        }
    if (error := outcome.error) is not None:
        meta[f"{META}error"] = {
            "code": error.full_code,
            "fault": error.fault,
            "retryable": error.retryable,
            "retry_after_s": error.retry_after_s,
            "sent": error.sent,
        }
    if trace.changes:
        meta[f"{META}coerced"] = list(trace.changes)
    if trace.hidden:
        meta[f"{META}hidden_characters"] = trace.hidden
    if outcome.task is not None:
        return {"resultType": "task", **outcome.task, "_meta": meta}
    if outcome.passed_on is not None:
        return _passed_on(outcome.passed_on, meta)
    result: dict[str, Any] = {
        "resultType": "complete",
        "content": [_block(b) for b in outcome.blocks],
        "isError": outcome.is_error,
        "_meta": meta,
    }
    if outcome.structured is not None:
        result["structuredContent"] = outcome.structured
    return result


def hops_of(given: str | None) -> int:
    """How many gateways a request came through already, by its header; 0 where it doesn't say. A number too long to be meant is many."""
    return int(given[:9]) if given and given.isascii() and given.isdigit() else 0


def came_with(
    meta: Mapping[str, Any],
    headers: Mapping[str, str],
    version: str | None,
    request_id: int | str | None,
    transport: str,
) -> CameWith:
    """What a trace goes on from. `_meta` counts before the headers: it is the message's own (semantic conventions of MCP)."""
    where: Mapping[str, Any] = meta if "traceparent" in meta else headers
    told = {"mcp.method.name": "tools/call", "network.transport": transport}
    if version:
        told["mcp.protocol.version"] = version[:32]
    if request_id is not None:
        told["jsonrpc.request.id"] = str(request_id)[:128]
    return CameWith(where.get("traceparent"), where.get("tracestate"), told)


def _passed_on(result: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    """An upstream's result with our `_meta` beside its own; the server that a client knows of is this gateway."""
    theirs: dict[str, Any] = {**(result.get("_meta") or {})}
    theirs.pop(_SERVER_INFO, None)
    return {**result, "resultType": "complete", "isError": bool(result.get("isError")), "_meta": {**theirs, **meta}}


def _block(block: Block) -> dict[str, Any]:
    match block.type:
        case "image" | "audio":
            return {"type": block.type, "data": block.data, "mimeType": block.media_type}
        case "blob":
            resource = {"uri": f"attachment://{block.text}", "mimeType": block.media_type, "blob": block.data}
            return {"type": "resource", "resource": resource}
        case _:
            return {"type": "text", "text": block.text}
