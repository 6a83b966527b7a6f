"""Every stage of one call, for those who test and debug: what was sent (masked), each attempt, sizes, what the agent sees."""

from typing import Any, cast

from tools.descriptions import estimate_tokens
from tools.errors import ShapingFailed
from tools.hidden_text import visible
from tools.kinds.rest import to_json
from tools.masking import Masker
from tools.models import TestEndpointResponse
from tools.outcome import Outcome, Trace
from tools.secrets import MASK
from tools.shaping import Shaped
from tools.upstream import Attempt

_PREVIEW = 2000


def test_response(outcome: Outcome, masker: Masker) -> TestEndpointResponse:
    """What the contract's test operation answers; stages not reached are null."""
    trace = outcome.trace
    shaped = _shaped(outcome)
    raw = trace.raw.value if trace.raw is not None else (_error_body(trace) if trace.answer is not None else None)
    return TestEndpointResponse(
        status_code=outcome.status,
        duration_ms=round(outcome.duration_ms, 3),
        retries=max(0, len(trace.attempts) - 1),
        raw_response=masker.value(raw),
        after_filter=masker.value(shaped.after_filter) if shaped is not None else None,
        after_mapping=masker.value(shaped.after_mapping) if shaped is not None else None,
        final_result=None if outcome.is_error else outcome.text,
        error=outcome.text if outcome.is_error else None,
    )


def _shaped(outcome: Outcome) -> Shaped | None:
    """The stages that were reached, also where shaping failed half-way."""
    error = outcome.error
    if isinstance(error, ShapingFailed):
        return error.partial if isinstance(error.partial, Shaped) else None
    return outcome.trace.shaped


def _error_body(trace: Trace) -> Any:
    """The upstream's error as text, or JSON where it is JSON: an operator wants to see it whole."""
    from tools.answers import read_raw
    from tools.errors import InvalidResponse

    assert trace.answer is not None
    try:
        return read_raw(trace.answer).value
    except InvalidResponse:
        return trace.answer.body[:_PREVIEW].decode("utf-8", "replace")


def explain(outcome: Outcome, masker: Masker, *, with_detail: bool = False) -> dict[str, Any]:
    """The way of one call, in the order in which things happened; `with_detail` names hosts and addresses, for callers with
    Integration.update."""
    trace = outcome.trace
    found: dict[str, Any] = {"tool": outcome.tool, "call_id": outcome.call_id}
    if trace.arguments is not None:
        found["arguments"] = masker.value(trace.arguments)
    if trace.changes:
        found["repaired"] = list(trace.changes)
    if trace.credential is not None:
        found["credential"] = masker.value(trace.credential)
    if (request := trace.request) is not None:
        found["request"] = {
            "method": request.method,
            "url": masker.text(request.url),
            "headers": {n: _shown_header(n, v, masker) for n, v in request.headers},
            "body": None if request.body is None else masker.text(request.body.decode("utf-8", "replace"))[:_PREVIEW],
        }
    found["attempts"] = [
        {
            "number": a.number,
            "why": a.why,
            "waited_s": round(a.wait_s, 3),
            "status": a.status,
            "ms": round(a.ms, 1),
            "error": masker.text(_error_of(a, with_detail)) if a.error else None,
        }
        for a in trace.attempts
    ]
    found["stages"] = _stages(outcome, masker)
    error = outcome.error
    if error is not None:
        found["failed"] = {
            "stage": failed_stage(outcome),
            "code": error.full_code,
            "reason": masker.text(error.message),
        }
        detail = getattr(error, "detail", None)
        if with_detail and isinstance(detail, str):
            found["failed"]["detail"] = masker.text(detail)
    if trace.hidden:
        found["hidden_characters_removed"] = trace.hidden
    found["agent_sees"] = outcome.text
    return found


def _error_of(attempt: Attempt, with_detail: bool) -> str:
    return f"{attempt.error} ({attempt.detail})" if with_detail and attempt.detail else attempt.error or ""


def _shown_header(name: str, value: str, masker: Masker) -> str:
    from tools.masking import is_secret_header

    if is_secret_header(name) and name.lower() != "idempotency-key":
        return MASK
    return masker.text(value)


def failed_stage(outcome: Outcome) -> str | None:
    """Where it failed: arguments, credential, request, answer, or a shaping stage."""
    error = outcome.error
    match error.code if error else None:
        case None:
            return None
        case "invalid_arguments" | "unknown_tool":
            return "arguments"
        case "credential_unavailable" | "credential_rejected":
            return "credential"
        case "invalid_response" | "response_too_large":
            return "answer"
        case "shaping_failed":
            return cast("ShapingFailed", error).stage
        case _:
            return "request"


def _stages(outcome: Outcome, masker: Masker) -> list[dict[str, Any]]:
    """Bytes and estimated tokens before and after each stage."""
    trace = outcome.trace
    rows: list[dict[str, Any]] = []
    if trace.answer is not None:
        rows.append(
            {
                "name": "answer",
                "bytes": len(trace.answer.body),
                "content_type": trace.answer.headers.get("content-type"),
            }
        )
    shaped = _shaped(outcome)
    values: list[tuple[str, Any]] = []
    if trace.raw is not None:
        values.append(("raw_response", trace.raw.value))
    if shaped is not None:
        values += [("after_filter", shaped.after_filter), ("after_mapping", shaped.after_mapping)]
    for name, value in values:
        text = value if isinstance(value, str) else to_json(value).decode()
        rows.append(_row(name, masker.text(visible(text))))
    if not outcome.is_error:
        rows.append(_row("final_result", outcome.text))
    return rows


def _row(name: str, text: str) -> dict[str, Any]:
    return {
        "name": name,
        "bytes": len(text.encode("utf-8", "replace")),
        "tokens": estimate_tokens(text),
        "preview": text[:_PREVIEW],
    }
