"""Why no token came, as one sentence that says what to change. The server's own words are masked first and cut after (A6)."""

import re
from typing import Literal, cast
from urllib.parse import urlsplit

from tools.credentials.token_answer import BadAnswer, is_web_page
from tools.errors import (
    AddressRefused,
    CallError,
    CredentialRejected,
    CredentialUnavailable,
    Misconfigured,
    RedirectRefused,
)
from tools.masking import Masker
from tools.upstream import Answer, retry_after_s

MAX_SAID = 2000
CLOCK_TOLERANCE_S = 60
_REJECTED = frozenset({"invalid_client", "invalid_grant", "unauthorized_client", "invalid_scope"})
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

_ADVICE: dict[str, str] = {
    "invalid_client": "check client_id and the client secret or key that the server has on file",
    "invalid_grant": "check assertion_issuer, assertion_subject and assertion_audience, and that the server trusts the key",
    "unauthorized_client": "the client exists but may not use this grant: have it allowed at the server",
    "invalid_scope": "ask only for scopes that the server lets this client have (scopes)",
    "unsupported_grant_type": "the server doesn't offer this grant: check token_url, or use another auth type",
    "invalid_request": "the server misses or dislikes a parameter: check token_params, client_auth_method and token_url",
    "invalid_target": "the server doesn't know the resource or audience: check token_params and the audience",
    "access_denied": "the server's policy refuses this client: ask its operator",
}

Problem = Literal["clock", "replay", "algorithm", "audience", "kid", "expired", "signature", "subject"]
# What a server's words mean, most telling first. They only choose the advice; nothing is decided by them.
_HINTS: tuple[tuple[re.Pattern[str], Problem], ...] = (
    (re.compile(r"\bjti\b|already (been )?used|replay|only be used once", re.I), "replay"),
    (re.compile(r"\balg(orithm)?s?\b", re.I), "algorithm"),
    (re.compile(r"\baud(ience)?\b", re.I), "audience"),
    (re.compile(r"\bkid\b|no (matching|applicable|suitable) key|unknown key|key not found|jwks", re.I), "kid"),
    (re.compile(r"expired authorization code|\bexp\b|expired|too far|lifetime|\biat\b|\bnbf\b", re.I), "expired"),
    (re.compile(r"signature|bad_signature", re.I), "signature"),
    (re.compile(r"\b(sub|subject|user)\b", re.I), "subject"),
)
_PROBLEM_ADVICE: dict[Problem, str] = {
    "clock": "set the clock of the machine that is wrong (NTP)",
    "replay": "the server saw this assertion's jti before: something between repeats requests; ours is fresh for each attempt",
    "algorithm": "the server doesn't take this signature algorithm: set assertion_algorithm to what the client is registered with",
    "audience": "the assertion's aud isn't what the server expects: set assertion_audience, or token_url exactly as registered",
    "kid": "the server doesn't know the key: register our public key (or its JWKS URL) there, with the kid shown; it may cache the old set",
    "expired": "the server finds the assertion expired or too long-lived, or the key or certificate on file has expired: check "
    "the clocks, token_lifetime_seconds (some servers want 180 or less) and the key's end date",
    "signature": "the signature doesn't fit the key on file: register the public part of this very key",
    "subject": "the server doesn't accept assertion_subject (or assertion_issuer): it must name a user or client that approved us",
}


def refused(
    bad: BadAnswer, answer: Answer, trail: dict[str, object], mask: Masker, now: float, *, both_failed: bool = False
) -> CallError:
    """The error for an answer that isn't a token: what is remembered by the cache is CredentialRejected (rules B6)."""
    host = urlsplit(answer.url).netloc
    said = shown(bad.description, mask) if bad.description else None
    wait = retry_after_s(answer.headers, now)
    what = f"the token endpoint {host} {mask.text(bad.what)}"
    if both_failed:
        what += ", with the client secret as Basic header and in the form"
    if bad.error in _REJECTED or both_failed:
        rejected = CredentialRejected(
            what, said=said, advice=_advice(bad, trail), retry_after_s=wait, upstream_status=answer.status
        )
        rejected.reason = bad.error if bad.error in _REJECTED else None
        return rejected
    if answer.status == 401:
        return CredentialRejected(
            what, said=said, advice=_ADVICE["invalid_client"], retry_after_s=wait, upstream_status=401
        )
    if answer.status in (404, 405, 410):
        return Misconfigured(
            what, said=said, advice="nothing is served there: check token_url", upstream_status=answer.status
        )
    if answer.status == 429 or answer.status >= 500:
        advice = "the server is busy or down: try again later"
        return _passing(
            CredentialUnavailable(what, said=said, advice=advice, retry_after_s=wait, upstream_status=answer.status)
        )
    if is_web_page(answer):
        advice = "token_url leads to a page for people (a login or a proxy), not to a token endpoint: check token_url"
        return Misconfigured(what, advice=advice, upstream_status=answer.status)
    return Misconfigured(what, said=said, advice=_advice(bad, trail), upstream_status=answer.status)


def problem_of(bad: BadAnswer, trail: dict[str, object]) -> Problem | None:
    """What is wrong with an assertion, as far as the clocks and the server's words tell."""
    if "assertion" not in trail or bad.error not in ("invalid_client", "invalid_grant", "invalid_request"):
        return None
    skew = trail.get("clock_skew_s", 0)
    if isinstance(skew, int) and abs(skew) > CLOCK_TOLERANCE_S:
        return "clock"
    return next((problem for words, problem in _HINTS if bad.description and words.search(bad.description)), None)


def _advice(bad: BadAnswer, trail: dict[str, object]) -> str:
    problem = problem_of(bad, trail)
    if problem is not None:
        trail["problem"] = problem
    if problem == "clock":
        skew = cast(int, trail["clock_skew_s"])  # problem_of looked at it
        way = "ahead of" if skew > 0 else "behind"
        return f"the server's clock is {abs(skew)} s {way} ours, so our assertion isn't valid there: {_PROBLEM_ADVICE['clock']}"
    if problem is not None:
        return _PROBLEM_ADVICE[problem]
    return _ADVICE.get(bad.error or "", "check token_url: it doesn't answer like a token endpoint")


def redirected(url: str, refusal: RedirectRefused | None) -> CallError:
    """A redirect would carry the secret or the assertion to whoever it names (rules B2)."""
    return Misconfigured(
        f"the token endpoint {urlsplit(url).netloc} answers with a redirect, which is never followed",
        advice="put the final URL into token_url",
        upstream_status=refusal.upstream_status if refusal else None,
        detail=refusal.detail if refusal else None,
    )


def unreachable(url: str, failure: CallError | None) -> CallError:
    """No answer that can be read: ours to configure where the guard or TLS said no, else worth another try later."""
    host = urlsplit(url).netloc
    if failure is None:
        return _passing(CredentialUnavailable(f"the token endpoint {host} didn't answer"))
    error = kind_of(failure)(
        f"no token from {host}: {failure.message}",
        advice="check token_url and whether the server is up",
        retry_after_s=failure.retry_after_s,
        detail=failure.detail,
    )
    return _passing(error) if failure.retryable else error


def kind_of(failure: CallError) -> type[CallError]:
    """What a failure on the way to a token is to the call that needs it."""
    if isinstance(failure, AddressRefused):
        return type(failure)
    return Misconfigured if failure.code == Misconfigured.code else CredentialUnavailable


def _passing(error: CallError) -> CallError:
    """What may be over by itself: the same call can be repeated."""
    error.retryable = True
    return error


def shown(text: str, mask: Masker) -> str:
    """A server's words as they may be quoted: masked, then without controls, then cut."""
    return _CONTROLS.sub(" ", mask.text(text)).strip()[:MAX_SAID]
