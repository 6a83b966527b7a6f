"""How a failed call is told to a model: one block, always in the same order (agents.md, "Error texts").

sent or not -> whose fault -> their words -> what to do -> whether repeating helps -> `[code]`. No host, path or secret is in it:
the caller of `render` has masked the upstream's words.
"""

from dataclasses import dataclass
from http import HTTPStatus

from tools.errors import (
    AddressRefused,
    AnswerLost,
    ApprovalDenied,
    ApprovalRequired,
    CallError,
    CertificateRefused,
    CircuitOpen,
    CredentialRejected,
    CredentialUnavailable,
    Internal,
    InvalidArguments,
    InvalidResponse,
    Misconfigured,
    NameNotFound,
    NotAllowed,
    OutcomeUnknown,
    ProbablyDone,
    RedirectRefused,
    RegistryUnavailable,
    ResponseTooLarge,
    ResultExpired,
    ShapingFailed,
    TooManyCalls,
    UnknownTool,
    UpstreamRefused,
    UpstreamStatus,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)

SAID_LIMIT = 2000
_TIMES = {1: "", 2: " twice", 3: " three times", 4: " four times", 5: " five times"}


@dataclass(frozen=True, slots=True)
class Situation:
    """What a text needs to know of the call.

    `lookup` and `check` are tools this caller can call (find ids, read back); `diagnose` is a last line for those who may see
    the integration. `maybe_done`: an attempt ended without saying whether it was carried out. `may_change`: this caller may
    change the integration, so he is told of a name that doesn't resolve (rules H2).
    """

    tool: str
    endpoint: str
    integration: str
    writes: bool
    attempts: int = 1
    elapsed_s: float = 0
    lookup: str | None = None
    check: str | None = None
    has_path_ids: bool = False
    deadline_s: float = 30
    maybe_done: bool = False
    may_change: bool = False
    diagnose: str | None = None


def render(error: CallError, s: Situation) -> str:
    """The text of one error block."""
    text = f"{_sentences(error, s)} [{error.full_code}]"
    return f"{text}\n{s.diagnose}" if s.diagnose and error.fault in ("upstream", "configuration") else text


def _sentences(error: CallError, s: Situation) -> str:
    server = f"{s.integration}'s server"
    match error:
        case InvalidArguments():
            return _arguments(error, s)
        case UpstreamStatus():
            return _status_sentences(error, s)
        case UpstreamUnavailable():
            return _unavailable(error, s)
        case ProbablyDone():
            return (
                f"The {server} answered {_status(error)} to {s.endpoint}{_words(error)}. An earlier attempt of this call was sent "
                f"without an answer: it was probably done by that first attempt. {_read_first(s)}"
            )
        case OutcomeUnknown() if error.upstream_status is not None:
            return f"The {server} answered {_status(error)} to {s.endpoint}{_words(error)}. {_may_have_been_done(s)}"
        case OutcomeUnknown():
            return f"The connection to the {server} was lost after the request was sent. {_may_have_been_done(s)}"
        case UpstreamTimeout():
            return _timeout(error, s)
        case AnswerLost():
            return f"The connection to the {server} was lost after the request was sent, before the answer was complete. {_repeat(s)}"
        case CertificateRefused():
            return (
                f"Not sent: the {server} has no valid certificate. Your arguments are fine and repeating will not help: tell the user "
                f'that integration "{s.integration}" needs a look.'
            )
        case UpstreamUnreachable():
            return (
                f"Not sent: no connection to the {server} could be made. Nothing was changed. The same call can be repeated later; "
                "if it goes on, tell the user."
            )
        case CredentialRejected():
            reason = error.reason or error.upstream_status
            return (
                f"The gateway could not sign in to the {server}{f' ({reason})' if reason else ''}{_words(error)}. Your arguments are "
                f'fine and repeating will not help: tell the user that integration "{s.integration}" needs new credentials.'
            )
        case CredentialUnavailable() if error.retryable or error.retry_after_s:
            return (
                f"Not sent: the gateway has no credential for the {server} at the moment. Your arguments are fine. {_wait(error)} the "
                "same call can be repeated; if it goes on, tell the user."
            )
        case CredentialUnavailable():
            return (
                f"Not sent: the gateway has no credential for the {server}. Your arguments are fine and repeating will not help: tell "
                f'the user that integration "{s.integration}" needs credentials.'
            )
        case NameNotFound() if s.may_change:
            return (
                f'Not sent: integration "{s.integration}" points at a host name that is not found ({error.detail}). Your arguments are '
                "fine and repeating will not help: correct its address (base_url, mcp_url, token_url), or this machine's DNS."
            )
        case AddressRefused():
            return (
                f'Not sent: integration "{s.integration}" points at an address that isn\'t allowed here. Your arguments are fine and '
                "repeating will not help: tell the user that its operator must change the address or allow it."
            )
        case Misconfigured():
            # Not its message: that is for operators, and names hosts and paths.
            return (
                f'Not sent: integration "{s.integration}" is not set up right. Your arguments are fine and repeating will not help: '
                "tell the user that its operator must look at it."
            )
        case RegistryUnavailable():
            return (
                "Not sent: the gateway can't read its own registry at the moment. Your arguments are fine. The same call can be "
                "repeated in a minute; if it goes on, tell the user."
            )
        case UpstreamRefused():
            return f"The {server} {error.message}{_words(error)}. Read its words and correct the arguments; the same call will fail again."
        case RedirectRefused() | ResponseTooLarge() | InvalidResponse() | ShapingFailed():
            return _unusable_answer(error, s)
        case UnknownTool() | ResultExpired():
            return error.message
        case NotAllowed():
            return f"Not sent: {error.message}. Repeating will not help: tell the user."
        case ApprovalRequired():
            return f"Not sent: {error.message}."
        case ApprovalDenied():
            return f"Not sent: {error.message}. Do not repeat it: ask the user how to go on."
        case TooManyCalls():
            return (
                f"Not sent: {error.message}. Your arguments are fine. {_our_wait(error)} the same call can be repeated."
            )
        case CircuitOpen():
            return (
                f"Not sent: the {server} {error.message}. Your arguments are fine. {_our_wait(error)} the same call can be "
                "repeated; if it goes on, tell the user."
            )
        case Internal():
            return (
                f"The gateway itself failed ({error.message}). It is not known whether anything was sent"
                f"{': read before you repeat it' if s.writes else ''}. Your arguments are fine: tell the user."
            )
        case _:
            return error.message if error.message.endswith(".") else f"{error.message}."


def _status_sentences(error: UpstreamStatus, s: Situation) -> str:
    status = error.upstream_status or 0
    head = f"The {s.integration}'s server answered {_status(error)} to {s.endpoint}{_words(error)}."
    if status >= 500:
        return f"{head} {_repeat(s)} If it fails again, tell the user."
    advice = f"{error.advice or _status_advice(error, s)} The same call will fail again.".lstrip()
    return f"{head} Nothing was changed.\n{advice}"


def _unavailable(error: UpstreamUnavailable, s: Situation) -> str:
    times = _TIMES.get(s.attempts, f" {s.attempts} times")
    busy = "busy" if error.upstream_status in (429, 503) else "not available"
    head = f"The {s.integration}'s server answered {error.upstream_status}{times} in {s.elapsed_s:.1f} s ({busy}){_words(error)}."
    if s.writes and s.maybe_done:
        return f"{head} It MAY have been carried out. {_wait(error)} the same call can be repeated: that is safe here."
    return f"{head} Nothing was changed. {_wait(error)} the same call can be repeated."


def _timeout(error: UpstreamTimeout, s: Situation) -> str:
    server, limit = f"{s.integration}'s server", f"{s.deadline_s:g} s"
    if error.sent == "no":
        return (
            f"Not sent: no connection to the {server} within {limit}. Nothing was changed. The same call can be repeated later; if it "
            "goes on, tell the user."
        )
    head = f"No answer from the {server} within {limit} after the request was sent."
    if not s.writes:
        return f"{head} Nothing was changed. The same call can be repeated, perhaps with narrower arguments."
    return f"{head} {_repeat(s) if error.retryable else _may_have_been_done(s)}"


def _repeat(s: Situation) -> str:
    """For what is safe to repeat: a read, or a write that comes to the same when it is done twice."""
    if s.writes:
        return "It MAY have been carried out; the same call can be repeated, that is safe here."
    return "Nothing was changed. The same call can be repeated."


def _wait(error: CallError) -> str:
    if error.retry_after_s:
        return f"Wait {_seconds(error.retry_after_s)} (its Retry-After), then"
    return "Wait a little, then"


def _our_wait(error: CallError) -> str:
    """As `_wait`, for a limit of the gateway's own."""
    return f"Wait {_seconds(error.retry_after_s)}, then"


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
    if error.sent == "no":
        done = "This call was not sent."
    elif not s.writes:
        done = "Nothing was changed."
    elif error.code == "redirect_refused" or (error.upstream_status or 200) >= 300:
        done = _may_have_been_done(s)
    else:
        done = "The request WAS sent and probably carried out: do not repeat it."
    if error.code == "response_too_large":
        do = "Ask for less: narrow the call with its filter or limit arguments, if it has some."
    else:
        do = f'Your arguments are fine and repeating will not help: tell the user that integration "{s.integration}" needs a look.'
    why = f": {error.message}" if error.code in ("invalid_response", "response_too_large", "shaping_failed") else ""
    return f"The {s.integration}'s server {what}{why}{_words(error)}. {done} {do}"


def _may_have_been_done(s: Situation) -> str:
    return f"It MAY have been carried out: {_read_first(s).lower() if not s.check else f'check with {s.check} before you repeat it.'}"


def _read_first(s: Situation) -> str:
    return f"Check with {s.check} before you repeat it." if s.check else "Read the record before you repeat it."


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


def _seconds(s: float | None) -> str:
    s = s or 0
    return f"{s:.0f} s" if s >= 1 else "a second"
