"""Admin tools that read: list, get, health, test a connection."""

from collections.abc import Mapping
from typing import Any

from tools.admin_tools.admin_tool import (
    INTEGRATION,
    OBJECT,
    OBJECT_OR_NULL,
    ROWS,
    TEXT,
    TEXT_OR_NULL,
    WHOLE,
    WHOLE_OR_NULL,
    AdminTool,
    Asking,
    Desk,
    admin_tool,
    or_null,
)
from tools.errors import InvalidRequest, Issue
from tools.json_value import plain
from tools.json_values import write_json

MOST_SHOWN = 30_000
"""Characters of one integration before its endpoints become rows: hosts spill or refuse long results."""


async def _list(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> dict[str, Any]:
    page = await desk.admin.list(
        asking.caller,
        enabled=args.get("enabled"),
        protocol=args.get("protocol"),
        search=args.get("search"),
        sort_by=args.get("sort_by") or "+name",
        limit=20,
        continuation_token=args.get("continuation_token", 0),
    )
    rows = [
        {
            "name": i.name,
            "display_name": i.display_name,
            "protocol": i.protocol,
            "enabled": i.enabled,
            "endpoints": len(i.endpoints),
            "id": i.id,
        }
        for i in page.items
    ]
    more = f"; call again with continuation_token {page.continuation_token}" if page.has_more else ""
    return {
        "summary": f"{len(rows)} of {page.total} integrations{more}",
        "integrations": rows,
        "total": page.total,
        "continuation_token": page.continuation_token,
    }


async def _get(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> dict[str, Any]:
    integration = await desk.admin.get(asking.caller, args["integration"])
    shown = plain(desk.admin.shown(asking.caller, integration))
    summary = f"{integration.name}, version {integration.version}"
    if (wanted := args.get("endpoint")) is not None:
        _, endpoint = await desk.admin.endpoint(asking.caller, integration.id, wanted)
        shown["endpoints"] = [e for e in shown["endpoints"] if e["name"] == endpoint.name]
    if fields := args.get("fields"):
        unknown = [f for f in fields if f not in shown]
        if unknown:
            raise InvalidRequest(
                [Issue(("fields",), f"no such field: {', '.join(unknown)}; there are {', '.join(shown)}")]
            )
        shown = {f: shown[f] for f in fields}
    if wanted is None and len(write_json(shown)) > MOST_SHOWN and "endpoints" in shown:
        rows = [f"{e['method']} {e['path']}" for e in shown["endpoints"]]
        names = [e["name"] for e in shown["endpoints"]]
        shown["endpoints"] = [{"name": n, "request": r} for n, r in zip(names, rows, strict=True)][:500]
        summary += (
            f". Its {len(rows)} endpoints are shown in short: read one with get_integration and its name as endpoint"
        )
    return {"summary": summary, "version": integration.version, "integration": shown}


async def _health(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> dict[str, Any]:
    found = await desk.admin.health(asking.caller)
    n = len(found["integrations"])
    good = found["counts"].get("healthy", 0)
    return {"summary": f"{found['status']}: {good} of {n} integrations are healthy", **found}


async def _test_connection(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> dict[str, Any]:
    found = await desk.admin.test_connection(asking.caller, args["integration"])
    said = found["message"] or found["status"]
    human = None
    if found["status"] == "auth_failed":
        human = (
            f'Integration "{found["name"]}" needs new credentials. Do not ask for the secret here: a person stores it '
            "with `integrations-mcp secrets set` or in the operator's own way."
        )
    return {"summary": f"{found['name']}: {said}", "credential": None, **found, "ask_human": human}


READING: tuple[AdminTool, ...] = (
    admin_tool(
        "get_integration",
        "Get integration",
        "Shows one integration of this gateway with its endpoints and auth (never secrets), and its version. Use endpoint or fields "
        "to read only a part.",
        {
            "integration": INTEGRATION,
            "endpoint": {"type": "string", "description": "Only this endpoint, by name."},
            "fields": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Only these fields, like base_url or endpoints.",
            },
        },
        ["integration"],
        {"summary": TEXT, "version": WHOLE, "integration": OBJECT},
        _get,
    ),
    admin_tool(
        "integration_health_check",
        "Health check",
        "Probes every enabled integration (no side effects) and says which are reachable and whether their credentials work.",
        {},
        [],
        {"summary": TEXT, "status": TEXT, "checked_at": TEXT, "counts": OBJECT, "integrations": ROWS},
        _health,
        open_world=True,
    ),
    admin_tool(
        "list_integrations",
        "List integrations",
        "Lists the systems that this gateway connects, 20 short rows at a time.",
        {
            "search": {
                "type": "string",
                "minLength": 1,
                "maxLength": 200,
                "description": "Part of a name, display name or id.",
            },
            "enabled": {"type": "boolean", "description": "Only enabled or only disabled ones."},
            "protocol": {"type": "string", "description": "Only rest, fhir or mcp."},
            "sort_by": {
                "type": "string",
                "description": "name, display_name, created_at or updated_at, with - before it for the other way round.",
            },
            "continuation_token": {
                "type": "integer",
                "minimum": 0,
                "description": "From the answer before, for the next rows.",
            },
        },
        [],
        {"summary": TEXT, "integrations": ROWS, "total": WHOLE, "continuation_token": WHOLE_OR_NULL},
        _list,
    ),
    admin_tool(
        "test_connection",
        "Test connection",
        "Probes one integration now, without side effects, with a fresh credential, and keeps what it found.",
        {"integration": INTEGRATION},
        ["integration"],
        {
            "summary": TEXT,
            "id": TEXT,
            "name": TEXT,
            "display_name": TEXT,
            "protocol": TEXT,
            "status": TEXT,
            "auth": TEXT,
            "latency_ms": or_null("number"),
            "message": TEXT_OR_NULL,
            "checked_at": TEXT,
            "credential": OBJECT_OR_NULL,
            "ask_human": TEXT_OR_NULL,
        },
        _test_connection,
        open_world=True,
        idempotent=True,
    ),
)
