"""What a write answers: the diff, lint's warnings, the tools that came and went, and what to do next."""

import asyncio
from typing import Any

from tools.admin_tools.admin_tool import OBJECT_OR_NULL, ROWS, TEXT, TEXT_OR_NULL, TEXTS, WHOLE, YES_NO, Asking, Desk
from tools.changes import changes_of
from tools.json_value import plain
from tools.json_values import write_json
from tools.lint import lint
from tools.linted import linted
from tools.models import Integration
from tools.tool import Tool
from tools.writing import Written

_UNINTERESTING = frozenset({"id", "workspace_id", "builtin", "created_at", "updated_at"})
_MOST_WARNINGS = 30

WRITTEN: dict[str, Any] = {
    "summary": TEXT,
    "written": YES_NO,
    "integration": TEXT,
    "version": WHOLE,
    "changes": ROWS,
    "warnings": ROWS,
    "tools": {
        "type": "object",
        "properties": {"made": TEXTS, "renamed": ROWS, "removed": TEXTS},
        "required": ["made", "renamed", "removed"],
        "additionalProperties": False,
    },
    "rebound": TEXTS,
    "next": TEXT_OR_NULL,
    "call": OBJECT_OR_NULL,
}
"""Output of every tool that writes. `call` is the example of `next` as a complete call."""


async def written(
    desk: Desk, asking: Asking, done: Written, *, validate_only: bool, note: str = "", endpoint: str | None = None
) -> dict[str, Any]:
    """The answer of a create or update; `endpoint` is the one that was written, where it was one."""
    after = done.after
    shown = {k: v for k, v in plain(desk.admin.shown(asking.caller, after)).items() if k not in _UNINTERESTING}
    before: dict[str, Any] = {}
    if done.before is not None:
        before = plain(desk.admin.shown(asking.caller, done.before))
        before = {k: v for k, v in before.items() if k not in _UNINTERESTING}
    changes = changes_of(before, shown) if before else []
    tools, old = desk.admin.tools(after), desk.admin.tools(done.before) if done.before is not None else ()
    moved = _moved(old, tools)
    did = "Nothing was written: this is what would be." if validate_only else "Done."
    many = len(after.endpoints) if done.before is None else len(changes)
    what = f"created with {many} endpoint" if done.before is None else f"{many} change"
    what += "" if many == 1 else "s"
    call = None if validate_only else _example(tools, moved)
    hint = (
        f"Your client may not show new tools until it reconnects; until then: call_tool {write_json(call['arguments'])}"
        if call
        else None
    )
    return {
        "summary": f"{did} {after.name}: {what}, version {after.version}.{note}",
        "written": not validate_only,
        "integration": after.name,
        "version": after.version,
        "changes": changes,
        "warnings": await warnings_of(tools, endpoint),
        "tools": moved,
        "rebound": list(done.rebound),
        "next": hint or (None if validate_only else _check(tools, endpoint)),
        "call": call,
    }


def removed(desk: Desk, integration: Integration, note: str) -> dict[str, Any]:
    """The answer of a delete."""
    names = [t.name for t in desk.admin.tools(integration)]
    return {
        "summary": f"Done. {integration.name} is deleted with its stored secrets and {len(names)} tools.{note}",
        "written": True,
        "integration": integration.name,
        "version": integration.version,
        "changes": [],
        "warnings": [],
        "tools": {"made": [], "renamed": [], "removed": names},
        "rebound": [],
        "next": None,
        "call": None,
    }


async def warnings_of(tools: tuple[Tool, ...], endpoint: str | None = None) -> list[dict[str, Any]]:
    """Lint over the integration's tools, told of all or of one endpoint's; notes are left out. Beside the loop: 1,000 tools take 0.5 s."""
    found = await asyncio.to_thread(lambda: lint([linted(t) for t in tools]))
    names = {t.name for t in tools if endpoint in (None, t.endpoint.name)}
    rows = [r for r in found if r.severity != "note" and (endpoint is None or r.where.partition(".")[0] in names)]
    shown = [{"rule": r.rule, "severity": r.severity, "where": r.where, "message": r.message} for r in rows]
    if len(shown) > _MOST_WARNINGS:
        more = f"and {len(shown) - _MOST_WARNINGS} more"
        shown = [*shown[:_MOST_WARNINGS], {"rule": "more", "severity": "warning", "where": "list", "message": more}]
    return shown


def _moved(old: tuple[Tool, ...], new: tuple[Tool, ...]) -> dict[str, Any]:
    """Tools by name; one that went while another with the same request came is renamed."""
    before, after = {t.name: t for t in old}, {t.name: t for t in new}
    gone = [t for name, t in before.items() if name not in after]
    made = [t for name, t in after.items() if name not in before]
    renamed: list[dict[str, Any]] = []
    for tool in list(gone):
        same = [t for t in made if (t.endpoint.method, t.endpoint.path) == (tool.endpoint.method, tool.endpoint.path)]
        if len(same) == 1:
            renamed.append({"from": tool.name, "to": same[0].name})
            gone.remove(tool)
            made.remove(same[0])
    return {"made": [t.name for t in made], "renamed": renamed, "removed": [t.name for t in gone]}


def _example(tools: tuple[Tool, ...], moved: dict[str, Any]) -> dict[str, Any] | None:
    """A call of the first tool that a frozen list doesn't show."""
    new = [*moved["made"], *(row["to"] for row in moved["renamed"])]
    tool = next((t for t in tools if t.name in new), None)
    if tool is None:
        return None
    required: list[str] = tool.published.schema.get("required", [])
    return {"tool": "call_tool", "arguments": {"tool": tool.name, "arguments": dict.fromkeys(required, "...")}}


def _check(tools: tuple[Tool, ...], endpoint: str | None) -> str | None:
    """How to see whether it works: never by a tool that writes, which a test would really do."""
    for tool in tools:
        if not tool.writes and endpoint in (None, tool.endpoint.name):
            return f'Check it with test_integration_endpoint {{"tool":"{tool.name}","params":{{...}}}}'
    return None
