"""Errors as HTTP answers, in the contract's shapes: one list for 422, one sentence with a stable code for every other status."""

from typing import Any

from tools.errors import (
    GatewayError,
    IdentityProviderUnavailable,
    InvalidRequest,
    Issue,
    MissingPermission,
    RateLimited,
    StorageUnavailable,
    Unauthenticated,
)

Headers = list[tuple[bytes, bytes]]


def refusal(error: GatewayError, request_id: str) -> tuple[int, dict[str, Any], Headers]:
    """(status, body, further headers)."""
    headers: Headers = []
    match error:
        case InvalidRequest():
            return error.status, {"detail": [_shown(issue) for issue in error.issues]}, headers
        case Unauthenticated():
            headers.append((b"www-authenticate", error.challenge.encode()))
        case MissingPermission(challenge=str(challenge)):
            headers.append((b"www-authenticate", challenge.encode()))
        case RateLimited() | IdentityProviderUnavailable():
            headers.append((b"retry-after", str(max(1, round(error.retry_after_s))).encode()))
        case StorageUnavailable():
            headers.append((b"retry-after", b"5"))
        case _:
            pass
    return error.status, refused(error.message, error.code, request_id), headers


def refused(detail: str, code: str, request_id: str) -> dict[str, Any]:
    """The body of every error but 422."""
    return {"detail": detail, "error_code": code, "request_id": request_id}


def _shown(issue: Issue) -> dict[str, Any]:
    shown: dict[str, Any] = {"loc": list(issue.loc), "msg": issue.msg, "type": issue.type}
    if issue.has_input:
        shown["input"] = issue.input
    return shown
