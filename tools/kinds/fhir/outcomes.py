"""OperationOutcome: an error's words for a model, and the warnings of a success (rules G8). Pure."""

from typing import Any

import orjson

from tools.errors import CallError, UpstreamStatus
from tools.exchange import Answer
from tools.json_values import is_array, is_object
from tools.masking import Masker

MAX_WORDS = 2000
_SEVERITIES = ("fatal", "error", "warning", "information")


def is_outcome(value: Any) -> bool:
    return is_object(value) and value.get("resourceType") == "OperationOutcome"


def issues_of(value: Any, severities: tuple[str, ...] = _SEVERITIES) -> list[str]:
    """One line for each issue, the worst first: severity, code, what it says, where. Never the narrative."""
    issues = value.get("issue") if is_object(value) else None
    found: list[tuple[int, str]] = []
    for issue in issues if is_array(issues) else []:
        if not is_object(issue):
            continue
        severity = str(issue.get("severity", "error"))
        rank = _SEVERITIES.index(severity) if severity in _SEVERITIES else 1
        if _SEVERITIES[rank] in severities:
            found.append((rank, f"{_SEVERITIES[rank]}: {_said(issue)}"))
    return [line for _, line in sorted(found, key=lambda row: row[0])]


def _said(issue: dict[str, Any]) -> str:
    details = issue.get("details")
    told = [details.get("text") if is_object(details) else None, issue.get("diagnostics")]
    texts = list(dict.fromkeys(t.strip() for t in told if isinstance(t, str) and t.strip()))
    said = "; ".join(texts) or str(issue.get("code", "no words"))
    places = issue.get("expression") or issue.get("location")
    where = ", ".join(str(p) for p in places) if is_array(places) else ""
    return " ".join(f"{said}{f' (at {where})' if where else ''}".split())[:MAX_WORDS]


def explained(error: CallError, answer: Answer, masker: Masker, kind: str, resource_type: str) -> CallError:
    """The error with the outcome's words, and what 404, 410, 409, 412 and 422 mean for this interaction."""
    try:
        value = orjson.loads(masker.body(answer.body)) if answer.body else None
    except orjson.JSONDecodeError:
        value = None
    if is_outcome(value) and (lines := issues_of(value)):
        error.said = masker.text("; ".join(lines))[:MAX_WORDS]
    if isinstance(error, UpstreamStatus):
        error.advice = _advice(answer.status, kind, resource_type) or error.advice
    return error


def _advice(status: int, kind: str, resource_type: str) -> str | None:
    what = resource_type or "resource"
    match status, kind:
        case 404, "search":
            return f"This server has no {what} to search: choose another type."
        case 404, _:
            return f"There is no {what} with this id: find it with a search."
        case 410, _:
            return f"This {what} was deleted: find another one with a search."
        case 412, "create":
            return (
                "Several records match if_none_exist: nothing was created. Search with it and choose one, or narrow it."
            )
        case 409 | 412, _:
            return f"The {what} was changed meanwhile: read it again, apply your change to what it is now, and give its new version_id."
        case 422, "create" | "update" | "patch":
            return f"The {what} breaks a rule of this server: correct what its words name."
        case 400, "search":
            return "It refused the search: correct or leave out the parameter that its words name."
        case _:
            return None
