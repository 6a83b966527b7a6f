"""How a failed call is told to a model: one block, always in the same order (agents.md, "Error texts").

sent or not -> whose fault -> their words -> what to do -> whether repeating helps -> `[code]`. No host, path or secret is in it:
the caller of `render` has masked the upstream's words.
"""

from dataclasses import dataclass
from http import HTTPStatus

from tools.errors import (
    AddressRefused,
    CallError,
    CertificateRefused,
    CredentialRejected,
    CredentialUnavailable,
    Internal,
    InvalidArguments,
    InvalidResponse,
    Misconfigured,
    NotAllowed,
    OutcomeUnknown,
    RedirectRefused,
    ResponseTooLarge,
    ResultExpired,
    ShapingFailed,
    TooManyCalls,
    UnknownTool,
    UpstreamStatus,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)

SAID_LIMIT = 2000
_TIMES = {1: "", 2: " twice", 3: " three times", 4: " four times", 5: " five times"}


@dataclass(frozen=True, slots=True)
class Situation:
    """What a text needs to know of the call. `lookup` and `check` are tools this caller can call (find ids, read back)."""

    tool: str
    endpoint: str
    integration: str
    writes: bool
    attempts: int = 1
    elapsed_s: float = 0
    lookup: str | None = None
    check: str | None = None
    has_path_ids: bool = False


def render(error: CallError, s: Situation) -> str:
    """The text of one error block."""
    return f"{_sentences(error, s)} [{error.full_code}]"


def _sentences(error: CallError, s: Situation) -> str:
    server = f"{s.integration}'s server"
    match error:
        case InvalidArguments():
            return _arguments(error, s)
        case UpstreamStatus():
            return " ".join(
                part
                for part in (
                    f"The {server} answered {_status(error)} to {s.endpoint}{_words(error)}.",
                    _effect(error, s),
                    error.advice or _status_advice(error, s),
                    "The same call will fail again." if (error.upstream_status or 0) < 500 else "",
                )
                if part
            )
        case UpstreamUnavailable():
            wait = (
                f"Wait {_seconds(error.retry_after_s)} (its Retry-After), then"
                if error.retry_after_s
                else "Wait a little, then"
            )
            times = _TIMES.get(s.attempts, f" {s.attempts} times")
            busy = "busy" if error.upstream_status in (429, 503) else "not available"
            return (
                f"The {server} answered {error.upstream_status}{times} in {s.elapsed_s:.1f} s ({busy}){_words(error)}. "
                f"Nothing was changed. {wait} the same call can be repeated."
            )
        case OutcomeUnknown():
            return f"{error.message}{_words(error)}. {_may_have_been_done(s)}"
        case UpstreamTimeout() if error.sent == "unknown" and s.writes:
            return f"{error.message} {_may_have_been_done(s)}"
        case UpstreamTimeout():
            return f"{error.message} Nothing was changed. The same call can be repeated{', perhaps with narrower arguments' if error.sent != 'no' else ''}."
        case CertificateRefused():
            return (
                f"Not sent: the {server} has no valid certificate. Your arguments are fine and repeating will not help: tell the user "
                f'that integration "{s.integration}" needs a look.'
            )
        case UpstreamUnreachable():
            return (
                f"{'Not sent: the' if error.sent == 'no' else 'The'} {server} {error.message}. Nothing was changed. "
                "The same call can be repeated later; if it goes on, tell the user."
            )
        case CredentialRejected():
            return (
                f"The gateway could not sign in to the {server} ({error.message}){_words(error)}. Your arguments are fine and repeating will not "
                f'help: tell the user that integration "{s.integration}" needs new credentials.'
            )
        case CredentialUnavailable():
            return (
                f"Not sent: the gateway has no credential for the {server} ({error.message}). Your arguments are fine and repeating "
                f"will not help: tell the user{_advice(error)}."
            )
        case AddressRefused():
            return (
                f'Not sent: integration "{s.integration}" points at an address that isn\'t allowed here. Your arguments are fine and '
                "repeating will not help: tell the user that its operator must change the address or allow it."
            )
        case Misconfigured():
            return (
                f'Not sent: integration "{s.integration}" is not set up right ({error.message}). Your arguments are fine and repeating '
                f"will not help: tell the user{_advice(error)}."
            )
        case RedirectRefused() | ResponseTooLarge() | InvalidResponse() | ShapingFailed():
            return _unusable_answer(error, s)
        case UnknownTool() | ResultExpired():
            return error.message
        case NotAllowed():
            return f"Not sent: {error.message}. Repeating will not help: tell the user."
        case TooManyCalls():
            wait = f"Wait {_seconds(error.retry_after_s)}" if error.retry_after_s else "Wait a little"
            return f"Not sent: {error.message}. {wait}, then the same call can be repeated."
        case Internal():
            return (
                f"The gateway itself failed ({error.message}). It is not known whether anything was sent"
                f"{': read before you repeat it' if s.writes else ''}. Your arguments are fine: tell the user."
            )
        case _:
            return f"{error.message}."


def _arguments(error: InvalidArguments, s: Situation) -> str:
    n = len(error.faults)
    head = f"Not sent: {n} argument{'s do' if n > 1 else ' does'} not fit {s.tool}."
    lines = [f"- {f.where}: {f.what}" for f in error.faults[:20]]
    if n > 20:
        lines.append(f"- and {n - 20} more.")
    accepted = f"Accepted: {', '.join(error.accepted[:40])}." if error.accepted else "It takes no arguments."
    them = "them" if n > 1 else "it"
    return "\n".join([head, *lines, f"{accepted} Correct {them} and call again."])


def _unusable_answer(error: CallError, s: Situation) -> str:
    what = {
        "redirect_refused": "answered with a redirect that is not followed",
        "response_too_large": "sent more than the gateway takes",
        "invalid_response": "sent an answer that can't be read",
        "shaping_failed": "answered, but the answer could not be shaped",
    }[error.code]
    if s.writes and error.code != "redirect_refused":
        done = "The request WAS sent and probably carried out: do not repeat it."
    else:
        done = "Nothing was changed."
    if error.code == "response_too_large":
        do = "Ask for less: narrow the call with its filter or limit arguments, if it has some."
    else:
        do = f'Your arguments are fine and repeating will not help: tell the user that integration "{s.integration}" needs a look.'
    return f"The {s.integration}'s server {what}: {error.message}{_words(error)}. {done} {do}"


def _may_have_been_done(s: Situation) -> str:
    how = f"check with {s.check} before you repeat it." if s.check else "read the record first, before you repeat it."
    return f"It MAY have been carried out: {how}"


def _effect(error: CallError, s: Situation) -> str:
    status = error.upstream_status or 0
    if s.writes and status >= 500:
        return _may_have_been_done(s)
    return "Nothing was changed."


def _status_advice(error: CallError, s: Situation) -> str:
    match error.upstream_status:
        case 404 | 410 if s.has_path_ids:
            return (
                f"The id may be wrong: look it up with {s.lookup}."
                if s.lookup
                else "The id may be wrong: look it up first."
            )
        case 400 | 422:
            return "Read its words and correct the arguments."
        case 403:
            return "The account that the gateway uses may not do this: tell the user."
        case 409 | 412:
            return f"It was changed or exists already: read it again{f' with {s.check}' if s.check else ''} first."
        case _:
            return ""


def _status(error: CallError) -> str:
    status = error.upstream_status or 0
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _words(error: CallError) -> str:
    if not error.said:
        return ""
    said = "".join(c if c.isprintable() else " " for c in error.said)[:SAID_LIMIT].strip()
    return f': "{said}"' if said else ""


def _advice(error: CallError) -> str:
    return f" ({error.advice})" if error.advice else ""


def _seconds(s: float | None) -> str:
    s = s or 0
    return f"{s:.0f} s" if s >= 1 else "a second"
