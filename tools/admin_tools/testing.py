"""Admin tools that show what an endpoint does: a real test with every stage and its repairs, and a replay without calling anything."""

from collections.abc import Mapping
from typing import Any

from tools.admin_tools.admin_tool import (
    ENDPOINT,
    INTEGRATION,
    OBJECT_OR_NULL,
    ROWS,
    TEXT,
    TEXT_OR_NULL,
    TOOL,
    WHOLE,
    WHOLE_OR_NULL,
    YES_NO,
    AdminTool,
    Asking,
    Desk,
    admin_tool,
    target,
)
from tools.admin_tools.endpoints import patch_of
from tools.callers import Caller
from tools.cutting import write
from tools.endings import new_id
from tools.errors import InvalidRequest, Issue, NotFound, StorageUnavailable
from tools.explain import explain, failed_stage
from tools.hidden_text import visible, visible_value
from tools.masking import NOTHING_TO_HIDE
from tools.outcome import Outcome
from tools.preview import patched
from tools.repair import problems_of
from tools.results import KEPT_FOR, KeptResult
from tools.sketch import sketch

_PREVIEW = 600
_AGENT_SEES = 4000
_KEPT_LIMIT = 40_000
_RAW = "t_"
"""Ids of answers that a test kept: raw, so that they can be shaped again."""


async def _test(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> dict[str, Any]:
    ref, name = await target(desk, asking.caller, args)
    params: dict[str, Any] = args.get("params") or {}
    outcome = await desk.admin.test(asking.caller, ref, name, params, asking.hops, asking.confirm)
    integration, endpoint = await desk.admin.endpoint(asking.caller, ref, name)
    tool = desk.admin.tool(integration, endpoint)
    trace = outcome.trace
    result_id = await _keep(desk, asking.caller, outcome)
    stages = explain(outcome, trace.masker, with_detail=asking.caller.may("Integration.update"))
    problems = problems_of(outcome, tool, trace.masker)
    return {
        "summary": _summary(outcome, problems),
        "ok": not outcome.is_error,
        "failed_stage": failed_stage(outcome),
        "status_code": outcome.status,
        "retries": max(0, len(trace.attempts) - 1),
        "duration_ms": round(outcome.duration_ms),
        "problems": problems,
        "request": stages.get("request"),
        "attempts": stages["attempts"],
        "credential": stages.get("credential"),
        "stages": _stages(outcome, stages["stages"]),
        "agent_sees": _cut(_agents(outcome.text), _AGENT_SEES),
        "result_id": result_id,
        "next": _next(outcome, problems, result_id),
    }


async def _preview(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> dict[str, Any]:
    ref, name = await target(desk, asking.caller, args)
    integration, endpoint = await desk.admin.endpoint(asking.caller, ref, name)
    patch: Mapping[str, Any] = patch_of(asking, args)
    params: dict[str, Any] = args.get("params") or {}
    raw = await _sample(desk, asking, args)
    outcome = await desk.admin.preview(asking.caller, ref, name, raw, params=params, patch=patch)
    tried = patched(endpoint, patch)
    endpoints = tuple(tried if e.name == name else e for e in integration.endpoints)
    tool = desk.admin.tool(integration.model_copy(update={"endpoints": endpoints}), tried)
    ok = not outcome.is_error
    return {
        "summary": "This is what an agent would see." if ok else _cut(_agents(outcome.text), 300),
        "ok": ok,
        "failed_stage": failed_stage(outcome),
        "problems": problems_of(outcome, tool, NOTHING_TO_HIDE),
        "stages": _stages(outcome, explain(outcome, NOTHING_TO_HIDE)["stages"]),
        "agent_sees": _cut(_agents(outcome.text), _AGENT_SEES),
        "next": "Write it with update_endpoint and the same patch." if ok and patch else None,
    }


async def _sample(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> Any:
    """The answer to shape: given, or kept by a test of the same caller."""
    if "sample" in asking.given:
        return args.get("sample", asking.given["sample"])
    id = args.get("result_id")
    if id is None:
        raise InvalidRequest([Issue(("result_id",), "give result_id of a test_integration_endpoint, or sample")])
    kept = await desk.results.kept(asking.caller.workspace, asking.caller.id, id, desk.now())
    if kept is None or not id.startswith(_RAW):
        raise NotFound(
            f"no kept answer {id[:40]} (they are kept 15 minutes): run test_integration_endpoint again and take its result_id"
        )
    return kept.value


async def _keep(desk: Desk, caller: Caller, outcome: Outcome) -> str | None:
    """The raw answer, masked, for `preview_result` and `get_result`."""
    raw = outcome.trace.raw
    if raw is None or raw.kind not in ("json", "text"):
        return None
    text = visible(write(raw.value))
    kept = KeptResult(_RAW + new_id(), outcome.tool, visible_value(raw.value), text, _KEPT_LIMIT, desk.now() + KEPT_FOR)
    try:
        await desk.results.keep(caller.workspace, caller.id, kept)
    except StorageUnavailable:
        return None
    return kept.id


def _stages(outcome: Outcome, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stages reached that changed something, each with its size, a preview and the shape of its data."""
    shaped = outcome.trace.shaped or getattr(outcome.error, "partial", None)
    raw = outcome.trace.raw
    values = {
        "raw_response": raw.value if raw is not None and raw.kind == "json" else None,
        "after_filter": getattr(shaped, "after_filter", None),
        "after_mapping": getattr(shaped, "after_mapping", None),
    }
    stages: list[dict[str, Any]] = []
    failed, before = failed_stage(outcome), None
    for row in rows:
        value = values.get(row["name"])
        if value is not None and value == before:
            continue  # not configured: it repeats the value before it
        before = value
        stages.append(
            {
                "name": row["name"],
                "ok": True,
                "bytes": row["bytes"],
                "tokens": row.get("tokens"),
                "preview": _cut(row.get("preview", ""), _PREVIEW) or None,
                "shape": sketch(value) if value is not None else None,
            }
        )
    if failed is not None:
        stages.append({"name": failed, "ok": False, "bytes": None, "tokens": None, "preview": None, "shape": None})
    return stages


def _summary(outcome: Outcome, problems: list[dict[str, Any]]) -> str:
    if outcome.is_error:
        return f"{outcome.tool} failed: {_cut(_agents(outcome.text), 300)}"
    found = f", but {len(problems)} thing(s) it names were not found" if problems else ""
    return f"{outcome.tool} answered in {outcome.duration_ms:.0f} ms{found}"


def _next(outcome: Outcome, problems: list[dict[str, Any]], result_id: str | None) -> str | None:
    if any(p["fix"] for p in problems):
        return "Call the tool in fix with its arguments, then test again."
    if problems and result_id is not None:
        return f'Try changes with preview_result {{"tool":"{outcome.tool}","result_id":"{result_id}","patch":{{...}}}}: nothing is called.'
    return None


def _agents(text: str) -> str:
    """Without the line for those who may test: an agent doesn't see it, and who tests has come here."""
    return text.partition("\nDiagnose: ")[0]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


_WHICH = {"integration": INTEGRATION, "endpoint": ENDPOINT, "tool": TOOL}
_PARAMS = {"type": "object", "description": "The arguments of the call."}

TESTING: tuple[AdminTool, ...] = (
    admin_tool(
        "preview_result",
        "Preview result",
        "Shapes an answer that a test kept (result_id), or one that you give (sample), with the endpoint as it is or with a patch of "
        "response_filter, response_mapping, result_key or result_template. Nothing is called and nothing is changed.",
        {
            **_WHICH,
            "result_id": {"type": "string", "description": "From test_integration_endpoint; kept 15 minutes."},
            "sample": {"type": "object", "description": "An answer of the server, in place of result_id."},
            "patch": {"type": "object", "description": 'Like {"result_template": "{{ name }}"}; null removes one.'},
            "params": {"type": "object", "description": "What a template sees as args."},
        },
        [],
        {
            "summary": TEXT,
            "ok": YES_NO,
            "failed_stage": TEXT_OR_NULL,
            "problems": ROWS,
            "stages": ROWS,
            "agent_sees": TEXT,
            "next": TEXT_OR_NULL,
        },
        _preview,
        checked={
            **_WHICH,
            "result_id": {"type": "string"},
            "sample": {},
            "patch": {"type": "object"},
            "params": {"type": "object"},
        },
    ),
    admin_tool(
        "test_integration_endpoint",
        "Test endpoint",
        "Runs one endpoint for real and shows every stage: the request, each attempt, the answer before and after shaping, what an "
        "agent sees, and what is wrong with a ready fix. A write is really done.",
        {**_WHICH, "params": _PARAMS},
        [],
        {
            "summary": TEXT,
            "ok": YES_NO,
            "failed_stage": TEXT_OR_NULL,
            "status_code": WHOLE_OR_NULL,
            "retries": WHOLE,
            "duration_ms": WHOLE,
            "problems": ROWS,
            "request": OBJECT_OR_NULL,
            "attempts": ROWS,
            "credential": OBJECT_OR_NULL,
            "stages": ROWS,
            "agent_sees": TEXT,
            "result_id": TEXT_OR_NULL,
            "next": TEXT_OR_NULL,
        },
        _test,
        read_only=False,
        destructive=True,
        open_world=True,
    ),
)
