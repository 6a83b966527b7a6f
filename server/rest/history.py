"""/v1/{ws}/calls and /audit: what was called and what was changed, newest first."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Query
from starlette.responses import Response

from server.rest.answering import Door, answer
from server.rest.models import AuditPage, AuditResponse, CallPage, CallResponse
from server.rest.pages import Before, LongLimit
from server.rest.routing import operation
from tools.admin import Admin
from tools.callers import Caller
from tools.history import AuditRecord, CallQuery, CallRecord

Tool = Annotated[str | None, Query(max_length=128, description="Only calls of this tool.")]
Integration = Annotated[str | None, Query(max_length=128, description="Only calls of the integration with this id.")]
Ended = Annotated[Literal["ok", "failed"] | None, Query(description="Only calls that ended so.")]
RequestId = Annotated[
    str | None, Query(max_length=128, description="Only calls that came with the request whose x-request-id this was.")
]
Target = Annotated[str | None, Query(max_length=1000, description="Only changes of this id or secret path.")]


def add_history(router: FastAPI, admin: Admin, door: Door) -> None:
    """Adds the routes. One row more than asked for is read, to know whether there are more."""
    who = Depends(door.caller)

    async def calls(
        caller: Annotated[Caller, who],
        tool: Tool = None,
        integration: Integration = None,
        outcome: Ended = None,
        request_id: RequestId = None,
        limit: LongLimit = 20,
        continuation_token: Before = None,
    ) -> Response:
        failed = None if outcome is None else outcome == "failed"
        rows = await admin.calls(
            caller, CallQuery(limit + 1, continuation_token, tool, integration, failed, request_id)
        )
        return answer(call_page(rows, limit))

    async def audit(
        caller: Annotated[Caller, who],
        target: Target = None,
        limit: LongLimit = 20,
        continuation_token: Before = None,
    ) -> Response:
        rows = await admin.audit(caller, limit=limit + 1, before=continuation_token, target=target)
        return answer(audit_page(rows, limit))

    operation(
        router,
        "GET",
        "/v1/{workspace_id}/calls",
        calls,
        "list-calls",
        "List calls",
        "Who called what, how it ended and how long it took. Requires `Integration.view`.",
        tag="History",
        answers="CallPage",
    )
    operation(
        router,
        "GET",
        "/v1/{workspace_id}/audit",
        audit,
        "list-changes",
        "List management changes",
        "Who changed what, before and after, without secrets. Requires `Integration.view`; changes of keys also `ApiKey.view`, "
        "of shared secrets `Secret.write`.",
        tag="History",
        answers="AuditPage",
    )


def call_page(rows: Sequence[CallRecord], limit: int) -> CallPage:
    """`rows` are those found for `limit + 1`."""
    items = tuple(_call(row) for row in rows[:limit])
    return CallPage(items=items, has_more=len(rows) > limit, continuation_token=_next(rows, limit))


def audit_page(rows: Sequence[AuditRecord], limit: int) -> AuditPage:
    """`rows` are those found for `limit + 1`."""
    items = tuple(_change(row) for row in rows[:limit])
    return AuditPage(items=items, has_more=len(rows) > limit, continuation_token=_next(rows, limit))


def _next(rows: Sequence[CallRecord] | Sequence[AuditRecord], limit: int) -> int | None:
    return rows[limit - 1].seq if len(rows) > limit else None


def _call(row: CallRecord) -> CallResponse:
    return CallResponse(
        at=row.at,
        call_id=row.call_id,
        request_id=row.request_id or None,
        caller=row.caller,
        caller_kind=row.caller_kind,
        tool=row.tool,
        integration_id=row.integration,
        status_code=row.status,
        error_code=row.error_code,
        duration_ms=round(row.ms, 1),
        attempts=row.attempts,
        response_bytes=row.bytes,
        arguments=None if row.arguments is None else dict(row.arguments),
    )


def _change(row: AuditRecord) -> AuditResponse:
    return AuditResponse(
        at=row.at,
        caller=row.caller,
        caller_kind=row.caller_kind,
        action=row.action,
        target=row.target,
        name=row.name,
        changes=tuple(dict(change) for change in row.changes),
    )
