"""What is wrong with an endpoint, found from one test of it, and the call that repairs it (agents.md, "Management tools" 2).

A problem: `{code, stage, at, what, available, fix, sure, ask_human}`. `at` is a JSON pointer into the integration. `fix` is a complete
call of an admin tool, only where it can be derived; `sure` says that replaying it over the answer at hand removed the fault.
Else `ask_human` says what only a person can do. Shaping faults: `repair_shaping`; request faults: `repair_request`. Pure.
"""

from typing import Any, cast

from tools.changes import pointer
from tools.errors import CallError, ShapingFailed
from tools.explain import failed_stage
from tools.masking import Masker
from tools.outcome import Outcome
from tools.repair_request import Repair, request_repairs
from tools.repair_shaping import shaping_repairs
from tools.tool import Tool

PROBLEM_FIELDS = ("code", "stage", "at", "what", "available", "fix", "sure", "ask_human")


def problems_of(outcome: Outcome, tool: Tool, masker: Masker) -> list[dict[str, Any]]:
    """The problems of one test, the one that stopped it first. Empty where nothing is wrong."""
    at = next(
        (pointer("endpoints", i) for i, e in enumerate(tool.integration.endpoints) if e.name == tool.endpoint.name),
        None,
    )
    trace, error = outcome.trace, outcome.error
    if at is None or (tool.integration.protocol == "mcp" and not _is_of_shaping(outcome)):
        # A tool that an upstream of protocol mcp shows by itself is no endpoint, and a request to another server can't be judged.
        return _of_upstream_tool(tool, outcome, masker)
    repairs: list[Repair] = []
    if _is_of_shaping(outcome) and trace.raw is not None:
        repairs = shaping_repairs(tool, trace.arguments or {}, trace.raw.value, error)
    elif error is not None:
        repairs = request_repairs(tool, outcome, error)
    if not repairs and error is not None:
        repairs = [Repair(error.full_code, error.message, ask_human=_who(tool, error))]
    stage = failed_stage(outcome)
    return [
        {
            "code": r.code,
            "stage": r.stage or stage or "request",
            "at": pointer(*r.at) if r.at[:1] in (("base_url",), ("auth",)) and r.whole else at + pointer(*r.at),
            "what": masker.text(r.what),
            "available": [masker.text(a) for a in r.available[:20]],
            "fix": cast("dict[str, Any] | None", masker.value(_call(tool, r))),
            "sure": r.sure,
            "ask_human": masker.text(r.ask_human) if r.ask_human and r.patch is None else None,
        }
        for r in repairs
    ]


def _is_of_shaping(outcome: Outcome) -> bool:
    """There is an answer, and what may be wrong is how the endpoint shapes it."""
    return outcome.trace.raw is not None and (outcome.error is None or isinstance(outcome.error, ShapingFailed))


def _of_upstream_tool(tool: Tool, outcome: Outcome, masker: Masker) -> list[dict[str, Any]]:
    """Only who must act."""
    error = outcome.error
    if error is None:
        return []
    known: dict[str, Any] = dict.fromkeys(PROBLEM_FIELDS) | {"at": "", "available": [], "sure": False}
    stage = failed_stage(outcome) or "request"
    said = {"code": error.full_code, "stage": stage, "what": masker.text(error.message), "ask_human": _who(tool, error)}
    return [known | said]


def _call(tool: Tool, r: Repair) -> dict[str, Any] | None:
    if r.patch is None:
        return None
    if r.whole:
        return {"tool": "update_integration", "arguments": {"integration": tool.integration.name, **r.patch}}
    which = {"integration": tool.integration.name, "endpoint": tool.endpoint.name}
    return {"tool": "update_endpoint", "arguments": {**which, "patch": r.patch}}


def _who(tool: Tool, error: CallError) -> str:
    """Where nothing can be derived: whose turn it is."""
    name = tool.integration.name
    match error.code:
        case "credential_rejected" | "credential_unavailable":
            return (
                f'Integration "{name}" needs new credentials. Do not ask for the secret here: a person stores it with '
                "`integrations-mcp secrets set` or in the operator's own way."
            )
        case "upstream_unavailable" | "upstream_timeout":
            return f"The server of {name} is busy or down: ask the people who run it, or try again later."
        case "response_too_large":
            return "Ask for less: give the endpoint an argument that limits the answer, or another path."
        case "misconfigured":
            return f'The operator must change or allow the address of integration "{name}".'
        case _:
            return f'A person who knows the API of "{name}" must look at this endpoint.'
