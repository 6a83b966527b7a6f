"""The admin tool that makes endpoints of what an operator has: shown first, written when asked."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tools.admin_schemas import outermost
from tools.admin_tools.admin_tool import (
    ROWS,
    TEXT,
    TEXT_OR_NULL,
    TEXTS,
    WHOLE,
    YES_NO,
    AdminTool,
    Asking,
    Desk,
    admin_tool,
)
from tools.admin_tools.writing import body_of, refuse_inline_secrets
from tools.importers.frame import SourceFault
from tools.importers.requests import ImportAnswer, ImportedEndpoint, ImportRequest
from tools.parsing import parse

_MOST_ROWS = 40
_MOST_LEFT_OUT = 20


def _said(text: str, base: dict[str, Any] = TEXT) -> dict[str, Any]:
    return {**base, "description": text}


_ARGUMENTS: dict[str, Any] = {
    "url": _said("Of an OpenAPI document. Give exactly one source."),
    "document": _said("The document itself."),
    "curl": _said("A curl line, without secrets."),
    "fhir": _said("A FHIR server's base URL."),
    "mcp_url": _said("An MCP server's URL."),
    "mcp_command": _said("An MCP server's program: absolute, on the operator's list."),
    "mcp_args": _said("Of mcp_command.", TEXTS),
    "mcp_transport": {"type": "string", "enum": ["http", "sse"], "description": "Of mcp_url. Default: found out."},
    "mcp_headers": _said("Of mcp_url.", {"type": "object"}),
    "mcp_env": _said("Of mcp_command.", {"type": "object"}),
    "name": _said("A new integration, or one to follow. Default: of the source's title."),
    "display_name": TEXT,
    "base_url": _said("In place of the document's."),
    "tags": _said(
        "Tags, FHIR resource types, or read-only, additive, destructive of MCP tools. Here and below patterns of * and ?; "
        "!PATTERN takes away.",
        TEXTS,
    ),
    "paths": TEXTS,
    "methods": TEXTS,
    "operations": _said("operationIds, search_* and the like of FHIR, MCP tools' names.", TEXTS),
    "names": _said("Of endpoints.", TEXTS),
    "auth": _said("As in create_integration.", {"type": "object"}),
    "enabled": _said("Of a new one. Default: false.", YES_NO),
    "prune": _said("Remove endpoints without operation.", YES_NO),
    "apply": _said("Write it. Default: false, which shows what would be.", YES_NO),
}
IMPORTED: dict[str, Any] = {
    "summary": TEXT,
    "written": YES_NO,
    "integration": TEXT,
    "enabled": YES_NO,
    "counts": {"type": "object"},
    "tokens": WHOLE,
    "endpoints": ROWS,
    "left_out": TEXTS,
    "warnings": TEXTS,
    "problems": TEXTS,
    "next": TEXT_OR_NULL,
}


async def _import(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> dict[str, Any]:
    name = args.get("name") or "NAME"
    refuse_inline_secrets(desk, args.get("auth"), name, asking.caller.workspace)
    request = parse(ImportRequest, body_of(args, asking.given))
    if request.curl is not None:
        from tools.importers.curl import read_curl

        try:
            auth = read_curl(request.curl).auth
        except SourceFault:
            auth = None  # told by the import itself
        refuse_inline_secrets(desk, auth.model_dump() if auth else None, name, asking.caller.workspace)
    note = ""
    if request.prune and request.apply:
        shown = await desk.importer.run(asking.caller, request.model_copy(update={"apply": False}), for_model=True)
        gone = [row.name for row in shown.endpoints if row.change == "remove"]
        if gone:
            listed = ", ".join(gone[:10]) + (" and more" if len(gone) > 10 else "")
            note = await asking.sure(f"Remove {len(gone)} endpoint(s) of {shown.integration}: {listed}?")
    return _told(await desk.importer.run(asking.caller, request, for_model=True), note)


def _told(answer: ImportAnswer, note: str) -> dict[str, Any]:
    counts = {what: n for what, n in answer.counts.items() if n}
    did = "Done." if answer.applied else "Nothing was written: this is what would be."
    if answer.change == "none":
        did = "Nothing to change."
    whole = ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in counts.items())
    rows = [_row(e) for e in answer.endpoints[:_MOST_ROWS]]
    if len(answer.endpoints) > _MOST_ROWS:
        more = Counter(e.change for e in answer.endpoints[_MOST_ROWS:])
        rows.append({"more": dict(more)})
    left = [f"{row.operation}: {row.why}" for row in answer.left_out[:_MOST_LEFT_OUT]]
    if len(answer.left_out) > _MOST_LEFT_OUT:
        left.append(f"and {len(answer.left_out) - _MOST_LEFT_OUT} more")
    return {
        "summary": f"{did} {answer.integration}: {whole}.{note}",
        "written": answer.applied,
        "integration": answer.integration,
        "enabled": answer.enabled,
        "counts": counts,
        "tokens": answer.tokens,
        "endpoints": rows,
        "left_out": left,
        "warnings": list(answer.warnings),
        "problems": list(answer.problems),
        "next": _next(answer),
    }


def _next(answer: ImportAnswer) -> str | None:
    if answer.problems or answer.change == "none":
        return None
    if not answer.applied:
        return "Narrow the choice if these are too many, then the same with apply true."
    if not answer.enabled:
        return f'Check endpoints with test_integration_endpoint, then update_integration {{"integration":"{answer.integration}","enabled":true}}'
    return "Your client may not show new tools until it reconnects; until then: call_tool"


def _row(e: ImportedEndpoint) -> dict[str, Any]:
    row: dict[str, Any] = {"change": e.change, "operation": e.operation, "tool": e.tool, "tokens": e.tokens}
    return row | {k: list(v) for k in ("changed", "kept", "conflicts", "notes") if (v := getattr(e, k))}


IMPORTING: tuple[AdminTool, ...] = (
    admin_tool(
        "import_integration",
        "Import integration",
        "Makes endpoints of an OpenAPI document, a curl line, a FHIR server or an MCP server: shows what would be made, what is left "
        "out and why, and tokens; with apply it is written, disabled unless told otherwise. Done again under the same name, it "
        "follows the source and keeps what was edited.",
        _ARGUMENTS,
        [],
        IMPORTED,
        _import,
        permission="Integration.update",
        read_only=False,
        destructive=True,
        idempotent=True,
        open_world=True,
        checked=outermost(_ARGUMENTS),
    ),
)
