"""The management operations as MCP tools: reading ones; each is a schema, a permission and one call of `Admin`."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tools.admin import Admin
from tools.arguments import Arguments, compile_arguments
from tools.callers import Caller, Permission
from tools.errors import InvalidRequest, Issue
from tools.explain import explain, failed_stage, test_response
from tools.json_value import plain

Run = Callable[[Admin, Caller, Mapping[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class AdminTool:
    """One management operation as hosts see it. `run` answers the structured content (an object, complete by itself)."""

    name: str
    permission: Permission
    entry: dict[str, Any]
    arguments: Arguments
    run: Run


_INTEGRATION = {"type": "string", "description": "Name or id of the integration, as list_integrations shows it."}
_ENDPOINT = {"type": "string", "description": "Name of the endpoint. Leave it out when tool is given."}
_TOOL = {"type": "string", "description": "Name of the tool, in place of integration and endpoint."}


def _tool(
    name: str,
    title: str,
    description: str,
    properties: dict[str, Any],
    required: list[str],
    output: dict[str, Any],
    run: Run,
    *,
    permission: Permission = "Integration.view",
    read_only: bool = True,
    open_world: bool = False,
) -> AdminTool:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    entry = {
        "name": name,
        "title": title,
        "description": description,
        "inputSchema": schema,
        "outputSchema": {
            "type": "object",
            "properties": output,
            "required": list(output),
            "additionalProperties": False,
        },
        "annotations": {
            "title": title,
            "readOnlyHint": read_only,
            "destructiveHint": not read_only,
            "idempotentHint": read_only,
            "openWorldHint": open_world,
        },
    }
    return AdminTool(name, permission, entry, compile_arguments(schema), run)


async def _list(admin: Admin, caller: Caller, args: Mapping[str, Any]) -> dict[str, Any]:
    page = await admin.list(
        caller,
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
    return {
        "summary": f"{len(rows)} of {page.total} integrations",
        "integrations": rows,
        "total": page.total,
        "continuation_token": page.continuation_token,
    }


async def _get(admin: Admin, caller: Caller, args: Mapping[str, Any]) -> dict[str, Any]:
    integration = await admin.get(caller, args["integration"])
    shown = plain(admin.shown(caller, integration))
    if fields := args.get("fields"):
        unknown = [f for f in fields if f not in shown]
        if unknown:
            raise InvalidRequest(
                [Issue(("fields",), f"no such field: {', '.join(unknown)}; there are {', '.join(shown)}")]
            )
        shown = {f: shown[f] for f in fields}
    return {
        "summary": f"{integration.name}, version {integration.version}",
        "version": integration.version,
        "integration": shown,
    }


async def _test(admin: Admin, caller: Caller, args: Mapping[str, Any]) -> dict[str, Any]:
    integration, endpoint = await target(admin, caller, args)
    outcome = await admin.test(caller, integration, endpoint, args.get("params") or {})
    stages = explain(outcome, outcome.trace.masker)
    response = test_response(outcome, outcome.trace.masker)
    ok = not outcome.is_error
    return {
        "summary": f"{outcome.tool} answered in {outcome.duration_ms:.0f} ms"
        if ok
        else f"{outcome.tool} failed: {outcome.text[:300]}",
        "ok": ok,
        "failed_stage": failed_stage(outcome),
        "status_code": response.status_code,
        "retries": response.retries,
        "request": stages.get("request"),
        "attempts": stages["attempts"],
        "stages": stages["stages"],
        "agent_sees": outcome.text,
        "result_id": outcome.result_id,
    }


async def target(admin: Admin, caller: Caller, args: Mapping[str, Any]) -> tuple[str, str]:
    """(integration, endpoint) from either pair of names or `tool`."""
    if (name := args.get("tool")) is not None:
        return await admin.endpoint_of_tool(caller, name)
    if args.get("integration") is None or args.get("endpoint") is None:
        raise InvalidRequest([Issue(("tool",), "give tool, or integration and endpoint")])
    return args["integration"], args["endpoint"]


async def _health(admin: Admin, caller: Caller, args: Mapping[str, Any]) -> dict[str, Any]:
    found = await admin.health(caller)
    n = len(found["integrations"])
    good = found["counts"].get("healthy", 0)
    return {"summary": f"{found['status']}: {good} of {n} integrations are healthy", **found}


_ROW = {"type": "array", "items": {"type": "object"}}
_OBJECT = {"type": "object"}
_TEXT = {"type": "string"}


def _or_null(type: str) -> dict[str, Any]:
    """One `type` a branch: clients that know only single types (Gemini's) don't stumble over the list form."""
    return {"anyOf": [{"type": type}, {"type": "null"}]}


READING: tuple[AdminTool, ...] = (
    _tool(
        "get_integration",
        "Gateway: Get integration",
        "Shows one integration of this gateway with its endpoints and auth (never secrets). Use fields to read only a part.",
        {
            "integration": _INTEGRATION,
            "fields": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Only these fields, like base_url or endpoints.",
            },
        },
        ["integration"],
        {"summary": _TEXT, "version": {"type": "integer"}, "integration": _OBJECT},
        _get,
    ),
    _tool(
        "integration_health_check",
        "Gateway: Health check",
        "Probes every enabled integration (no side effects) and says which are reachable and whether their credentials work.",
        {},
        [],
        {"summary": _TEXT, "status": _TEXT, "checked_at": _TEXT, "counts": _OBJECT, "integrations": _ROW},
        _health,
        open_world=True,
    ),
    _tool(
        "list_integrations",
        "Gateway: List integrations",
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
        {
            "summary": _TEXT,
            "integrations": _ROW,
            "total": {"type": "integer"},
            "continuation_token": _or_null("integer"),
        },
        _list,
    ),
    _tool(
        "test_integration_endpoint",
        "Gateway: Test endpoint",
        "Runs one endpoint for real and shows every stage: the request, each attempt, the answer before and after shaping, and what "
        "an agent sees. A write is really done.",
        {
            "integration": _INTEGRATION,
            "endpoint": _ENDPOINT,
            "tool": _TOOL,
            "params": {"type": "object", "description": "The arguments of the call."},
        },
        [],
        {
            "summary": _TEXT,
            "ok": {"type": "boolean"},
            "failed_stage": _or_null("string"),
            "status_code": _or_null("integer"),
            "retries": {"type": "integer"},
            "request": _or_null("object"),
            "attempts": _ROW,
            "stages": _ROW,
            "agent_sees": _TEXT,
            "result_id": _or_null("string"),
        },
        _test,
        read_only=False,
        open_world=True,
    ),
)
