"""Admin tools that read what happened: calls, and changes of what is managed."""

from collections.abc import Mapping
from typing import Any

from tools.admin_tools.admin_tool import ROWS, TEXT, WHOLE_OR_NULL, AdminTool, Asking, Desk, admin_tool
from tools.history import CallQuery

_ROWS = 20


async def _calls(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> dict[str, Any]:
    integration = args.get("integration")
    if integration is not None:
        integration = (await desk.admin.get(asking.caller, integration)).id
    query = CallQuery(_ROWS + 1, args.get("continuation_token"), args.get("tool"), integration, args.get("failed"))
    found = await desk.admin.calls(asking.caller, query)
    rows = [
        {
            "at": r.at.isoformat(timespec="seconds"),
            "tool": r.tool,
            "caller": r.caller,
            "status": r.status,
            "error_code": r.error_code,
            "ms": round(r.ms),
            "attempts": r.attempts,
            "call_id": r.call_id,
            **({"arguments": dict(r.arguments)} if r.arguments is not None else {}),
        }
        for r in found[:_ROWS]
    ]
    failed = sum(1 for r in rows if r["error_code"] is not None)
    more = found[_ROWS - 1].seq if len(found) > _ROWS else None
    return {"summary": f"{len(rows)} calls, newest first; {failed} failed", "calls": rows, "continuation_token": more}


async def _audit(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> dict[str, Any]:
    target = args.get("integration")
    if target is not None:
        target = (await desk.admin.get(asking.caller, target)).id
    found = await desk.admin.audit(asking.caller, limit=_ROWS + 1, before=args.get("continuation_token"), target=target)
    rows = [
        {
            "at": r.at.isoformat(timespec="seconds"),
            "action": r.action,
            "name": r.name,
            "caller": r.caller,
            "changes": [dict(c) for c in r.changes[:20]],
        }
        for r in found[:_ROWS]
    ]
    more = found[_ROWS - 1].seq if len(found) > _ROWS else None
    return {"summary": f"{len(rows)} changes, newest first", "changes": rows, "continuation_token": more}


_NEXT = {"type": "integer", "minimum": 0, "description": "From the answer before, for older rows."}

HISTORY: tuple[AdminTool, ...] = (
    admin_tool(
        "read_audit",
        "Read audit",
        "Who changed what in this workspace, newest first, with the values before and after (never secrets).",
        {
            "integration": {"type": "string", "description": "Only changes of this integration, by name or id."},
            "continuation_token": _NEXT,
        },
        [],
        {"summary": TEXT, "changes": ROWS, "continuation_token": WHOLE_OR_NULL},
        _audit,
    ),
    admin_tool(
        "read_calls",
        "Read calls",
        "Which tools were called, by whom and how it ended, newest first.",
        {
            "integration": {"type": "string", "description": "Only calls of this integration, by name or id."},
            "tool": {"type": "string", "description": "Only calls of this tool."},
            "failed": {"type": "boolean", "description": "Only calls that failed (true) or succeeded (false)."},
            "continuation_token": _NEXT,
        },
        [],
        {"summary": TEXT, "calls": ROWS, "continuation_token": WHOLE_OR_NULL},
        _calls,
    ),
)
