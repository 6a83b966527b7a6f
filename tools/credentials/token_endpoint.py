"""The noun "token endpoint": one token request with its retries and its two ways of client authentication (rules B1, B2).

`fields` is called for every HTTP attempt, so that each carries a fresh jti: strict servers burn it even when they fail (C3).
"""

from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime

from tools.credentials.authorization import masks_of
from tools.credentials.client_auth import ClientSecret, Form, Method, encoded
from tools.credentials.diagnosis import redirected, refused, unreachable
from tools.credentials.parts import CredentialParts
from tools.credentials.token_answer import MAX_BYTES, BadAnswer, TokenAnswer, read_token_answer
from tools.credentials.token_url import token_url_faults
from tools.errors import (
    CallError,
    CertificateRefused,
    Misconfigured,
    OutcomeUnknown,
    RedirectRefused,
    UpstreamUnreachable,
)
from tools.kinds.paths import origin_of
from tools.masking import Masker
from tools.upstream import Answer, Limits, Request, retry_after_s

DEADLINE_S = 10.0
MAX_RETRIES = 2
_AGAIN = frozenset({429, 500, 502, 503, 504})

Trail = dict[str, object]
"""The way to a credential as the auth X-ray shows it; filled while it is gone, also when it ends in a failure."""


class TokenEndpoint:
    """`paths` are the secrets whose values or signatures go there: each must be bound to the origin (rules A1)."""

    def __init__(self, parts: CredentialParts, url: str, paths: Sequence[str], trail: Trail) -> None:
        self._parts, self._url, self._trail = parts, url, trail
        self._ends_at = parts.tokens.timing.monotonic() + DEADLINE_S
        trail["token_endpoint"] = url
        check_destination(parts, url, paths)

    async def token(
        self, fields: Callable[[], Form], client: ClientSecret | None = None, *, hidden: Sequence[str] = ()
    ) -> TokenAnswer:
        """Asks for a token. Raises CredentialRejected, Misconfigured, CredentialUnavailable, each saying what to change.

        `hidden`: secrets inside the fields, which the server's words may not show by themselves.
        """
        if client is None:
            read, answer, sent = await self._ask(fields, None, None)
        else:
            memory, name = self._parts.tokens.methods, self._name(client)
            method = client.method or memory.get(name)
            read, answer, sent = await self._ask(fields, client, method or "basic")
            if method is None:
                if isinstance(read, BadAnswer) and _speaks_the_other_way(answer, read):
                    first = f"basic: {read.what}"
                    read, answer, sent = await self._ask(fields, client, "post")
                    self._trail["client_auth_tried"] = [first, f"post: {_said(read)}"]
                    method = "post"
                if not isinstance(read, BadAnswer):
                    memory[name] = method or "basic"
        if isinstance(read, BadAnswer):
            # Neither way worked: the secret is wrong, whatever the two answers called it (rules B1).
            tried: object = self._trail.get("client_auth_tried")
            now = self._parts.tokens.timing.wall()
            raise refused(
                read, answer, self._trail, Masker(masks_of([*sent, *hidden])), now, both_failed=tried is not None
            )
        return read

    def _name(self, client: ClientSecret) -> tuple[str, str, str, str]:
        return (self._parts.workspace, self._parts.integration_id, self._url, client.client_id)

    async def _ask(
        self, fields: Callable[[], Form], client: ClientSecret | None, method: Method | None
    ) -> tuple[TokenAnswer | BadAnswer, Answer, tuple[str, ...]]:
        if method is not None:
            self._trail["client_auth"] = f"client_secret_{method}"
        hidden: list[str] = list(client.hidden()) if client else []

        def build() -> Request:
            form = [*fields(), *(client.fields(method) if client and method else [])]
            hidden.extend(value for name, value in form if name in ("assertion", "client_assertion", "subject_token"))
            headers = [("Accept", "application/json"), ("Content-Type", "application/x-www-form-urlencoded")]
            headers += client.headers(method) if client and method else ()
            return Request("POST", self._url, tuple(headers), encoded(form), frozenset({"authorization"}))

        answer = await send(self._parts, build, self._trail, self._ends_at)
        return read_token_answer(answer), answer, tuple(hidden)


async def send(parts: CredentialParts, build: Callable[[], Request], trail: Trail, ends_at: float) -> Answer:
    """The answer of a POST that may be repeated; at most two more attempts on lost connections, 429 and 5xx (rules B2)."""
    timing = parts.tokens.timing
    number = 0
    while True:
        trail["requests"] = int(str(trail.get("requests", 0))) + 1
        request = build()
        limits = Limits(max(ends_at - timing.monotonic(), 0.001), MAX_BYTES, redirects=0)
        failure: CallError | None = None
        answer: Answer | None = None
        try:
            answer = await parts.upstream.send(request, pool=parts.workspace, limits=limits)
        except RedirectRefused as e:
            raise redirected(request.url, e) from None
        except (UpstreamUnreachable, OutcomeUnknown) as e:
            if isinstance(e, CertificateRefused):
                raise unreachable(request.url, e) from None
            failure = e
        except CallError as e:
            raise unreachable(request.url, e) from None
        asked = 0.0
        if answer is not None:
            _note_clock(answer, timing.wall(), trail)
            if 300 <= answer.status < 400:
                raise redirected(request.url, None)
            if answer.status not in _AGAIN:
                return answer
            asked = retry_after_s(answer.headers, timing.wall()) or 0.0
        wait = max(asked, timing.random() * 0.5 * 2**number)
        if number == MAX_RETRIES or timing.monotonic() + wait >= ends_at:
            if answer is None:
                raise unreachable(request.url, failure)
            return answer
        await timing.sleep(wait)
        number += 1


def check_destination(parts: CredentialParts, url: str, paths: Sequence[str]) -> None:
    """Nothing is posted to a URL that writing would refuse, nor a secret used for an origin it wasn't given for (A1, B2)."""
    if found := token_url_faults(url, parts.network):
        raise Misconfigured(f"the token URL can't be used: it {found[0]}")
    origin = origin_of(url)
    for path in paths:
        if path in parts.origins and origin not in parts.origins[path]:
            raise Misconfigured(
                f"the secret under {path} was given for other origins than {origin}",
                advice="give the value again in an update, or let an owner or admin make the change",
            )


def extra_fields(params: dict[str, str] | None) -> Form:
    """`token_params` as form fields, in a fixed order (rules B8)."""
    return sorted((params or {}).items())


def scope_field(scopes: Sequence[str]) -> Form:
    """No scopes, no parameter (rules B3)."""
    return [("scope", " ".join(scopes))] if scopes else []


def _speaks_the_other_way(answer: Answer, read: BadAnswer) -> bool:
    return answer.status in (400, 401) and read.error in ("invalid_client", "invalid_request")


def _said(read: TokenAnswer | BadAnswer) -> str:
    return read.what if isinstance(read, BadAnswer) else "ok"


def _note_clock(answer: Answer, wall: float, trail: Trail) -> None:
    """How far the server's clock is ahead of ours, in seconds, by its Date header."""
    try:
        trail["clock_skew_s"] = round(parsedate_to_datetime(answer.headers["date"]).timestamp() - wall)
    except (KeyError, ValueError, TypeError, OverflowError):
        return
