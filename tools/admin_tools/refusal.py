"""A management operation that is refused, told to a model: one block, "Not done: ...", every fault with its place, the code."""

from collections.abc import Sequence

from tools.errors import (
    CallError,
    Fault,
    Forbidden,
    InvalidRequest,
    RateLimited,
    RequestError,
    StorageUnavailable,
    TooLarge,
    Unauthenticated,
)

_ADVICE = {
    "not_found": "List them with list_integrations.",
    "version_mismatch": "Read it again with get_integration, make your change on that, and give its version.",
    "name_taken": "",
    "declined": "Do not try again unless the user asks for it.",
}


class RequestRefused(CallError):
    """A RequestError with its own code, as the end of a management tool's call. Nothing was changed."""

    code = "request_refused"
    status = 400

    def __init__(self, cause: RequestError, text: str) -> None:
        super().__init__(text, retry_after_s=cause.retry_after_s if isinstance(cause, RateLimited) else None)
        self.cause = cause
        self.retryable = isinstance(cause, StorageUnavailable | RateLimited)

    @property
    def fault(self) -> Fault:  # pyright: ignore[reportIncompatibleVariableOverride] - it is the cause's
        match self.cause:
            case StorageUnavailable() | Forbidden() | Unauthenticated():
                return "configuration"
            case RateLimited() | TooLarge():
                return "limit"
            case _:
                return "arguments"

    @property
    def full_code(self) -> str:
        return self.cause.code


def refusal(error: RequestError) -> RequestRefused:
    """The error as a model reads it: not done, why, every fault with its place, what to do (agents.md, "Error texts")."""
    if isinstance(error, InvalidRequest):
        n = len(error.issues)
        lines = [f"Not done: {n} thing{'s' if n > 1 else ''} must be changed first. Nothing was changed."]
        lines += [f"- {place_of(i.loc)}: {i.msg}" for i in error.issues[:20]]
        if n > 20:
            lines.append(f"- and {n - 20} more.")
        lines.append(f"Correct {'them' if n > 1 else 'it'} and call again.")
        return RequestRefused(error, "\n".join(lines))
    advice = _ADVICE.get(error.code, "Repeating will not help: tell the user.")
    if isinstance(error, StorageUnavailable):
        advice = "The same call can be repeated later."
    return RequestRefused(error, f"Not done: {error.message}. Nothing was changed. {advice}")


def place_of(loc: Sequence[str | int]) -> str:
    """`("body", "endpoints", 0, "path")` as a model writes it: `endpoints[0].path`."""
    parts = loc[1:] if loc[:1] in (("body",), ("query",)) and len(loc) > 1 else loc
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts)
    return text.removeprefix(".") or "arguments"
