"""One operation of the REST API as it is routed and documented: `operation` keeps the two together."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI

STATUSES: dict[int, str] = {
    401: "Missing or invalid API key.",
    403: "Insufficient permissions, or the workspace is not the key's own.",
    404: "The workspace doesn't have this.",
    409: "The name is already taken in this workspace.",
    412: "Somebody else changed it meanwhile (If-Match).",
    413: "The body is over the limit.",
    422: "Validation Error",
    429: "Too many wrong API keys or tokens from this address; Retry-After says when to come back.",
    503: "The registry or the secret store can't be reached; nothing was changed. Retry-After says when to come back.",
}
_ALWAYS = (401, 403, 422, 429, 503)
_PUBLIC = (429, 503)


def operation(
    router: FastAPI,
    method: str,
    path: str,
    run: Callable[..., Any],
    operation_id: str,
    summary: str,
    description: str,
    *,
    tag: str = "Integrations",
    answers: str | None,
    status: int = 200,
    takes: str | None = None,
    errors: Sequence[int] = (),
    public: bool = False,
) -> None:
    """Adds a route. `answers` and `takes` name schemas of `server.openapi` for the answer and the body (None: no content).

    `public`: without an API key.
    """
    ok: dict[str, Any] = {"description": "Successful Response"}
    if answers is not None:
        ok["content"] = {"application/json": {"schema": _ref(answers)}}
    responses: dict[int | str, dict[str, Any]] = {status: ok}
    for code in sorted({*(_PUBLIC if public else _ALWAYS), *errors, *((413,) if takes else ())}):
        schema = _ref("HTTPValidationError" if code == 422 else "Error")
        responses[code] = {"description": STATUSES[code], "content": {"application/json": {"schema": schema}}}
    extra: dict[str, Any] = {"security": []} if public else {}
    if takes is not None:
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(takes)}}}
    router.add_api_route(
        path,
        run,
        methods=[method],
        operation_id=operation_id,
        summary=summary,
        description=description,
        tags=[tag],
        status_code=status,
        response_model=None,
        responses=responses,
        openapi_extra=extra,
    )


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
