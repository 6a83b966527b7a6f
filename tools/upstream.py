"""The only door to the network: every request of calls, tokens, discovery and probes leaves through `Upstream.send`.

One deadline over everything (names, connecting, retries, redirects, waiting, reading), the address guard before anything else,
retries by rules F1 and F3, redirects by rules F5. Cancelling the caller closes the upstream connection at once.
"""

import asyncio
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote, urljoin

from yarl import URL

from tools.address_guard import NetworkPolicy, check_url
from tools.dialing import coarse_ms, refused
from tools.due import Deadline, Due
from tools.engine import HttpEngine
from tools.errors import (
    AddressRefused,
    AnswerLost,
    CallError,
    CredentialUnavailable,
    Misconfigured,
    OutcomeUnknown,
    RedirectRefused,
    Sent,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tools.exchange import Answer, ConnectFailed, ConnectionLost, Engine, Request, Stream, Wire
from tools.header_names import header_fault

__all__ = ["Answer", "Attempt", "Limits", "Request", "Retry", "Signer", "Upstream", "http_date", "retry_after_s"]

BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 8.0
_SLOW_CREDENTIAL_S = 10.0
SAFE_METHODS = frozenset({"GET", "HEAD"})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
# The upstream says that it did nothing: the only statuses after which a write is sent again (rules F1).
NOTHING_DONE = frozenset({429, 503})
# The upstream, or a proxy before it, failed somewhere on the way: it may have done it.
MAYBE_DONE = frozenset({500, 502, 504})
# Never carried to another origin, whoever set them.
_ALWAYS_PRIVATE = frozenset({"authorization", "cookie", "proxy-authorization"})
_FINISHED_URL = re.compile(r"https?://[!-\[\]-~]+")  # printable ASCII without blank and backslash
_ORIGIN = re.compile(r"[^/]+//[^/?#]+")
_NOT_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


@dataclass(slots=True)
class Attempt:
    """One request to the upstream with the redirects that it followed, for explain and `test`.

    `wait_s` was waited before it; `why` it was made; `error` why it brought no answer; `maybe_done`: whether the
    upstream carried it out isn't known (rules F2). `detail` is an error's, for operators alone.
    """

    number: int
    status: int | None
    wait_s: float
    why: str
    ms: float
    error: str | None
    maybe_done: bool = False
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """`max_retries` more attempts on `statuses` and on lost or refused connections; `idempotent` as rules F1 mean it."""

    max_retries: int = 0
    statuses: frozenset[int] = frozenset()
    idempotent: bool = True


@dataclass(slots=True)
class Limits:
    """`deadline_s` for the whole send; `max_bytes` of one answer, decompressed; `redirects` followed at most.

    `other_origins` False refuses a redirect to another origin instead of following it without credentials (rules C6).
    """

    deadline_s: float = 30.0
    max_bytes: int = 10 * 1024 * 1024
    redirects: int = 3
    other_origins: bool = True


class Signer(Protocol):
    """Adds the credential, late: once for each attempt."""

    async def sign(self, request: Request) -> tuple[tuple[str, str], ...]:
        """The headers to send with this attempt; they replace the request's of the same name."""
        ...

    async def refused(self, answer: Answer) -> bool:
        """The origin that got the credential answered 401. True: sign again and try once more (rules A5, B7)."""
        ...


NO_RETRY = Retry()
DEFAULT_LIMITS = Limits()


class Upstream:
    """`engine` carries the requests (default: ours under `network`); the rest is injected by tests so that none waits."""

    def __init__(
        self,
        network: NetworkPolicy,
        *,
        engine: Engine | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._network = network
        self._engine = engine or HttpEngine(network)
        self._clock = clock
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._random = random
        self._passed: set[str] = set()
        self._due = Due()

    async def aclose(self) -> None:
        await self._engine.aclose()

    async def send(
        self,
        request: Request,
        *,
        pool: str,
        retry: Retry = NO_RETRY,
        limits: Limits = DEFAULT_LIMITS,
        signer: Signer | None = None,
        attempts: list[Attempt] | None = None,
        on_progress: Callable[[Attempt], None] | None = None,
    ) -> Answer:
        """The upstream's last answer, whatever its status: 401, 404, 500, also 429 and 503 after the retries.

        `pool` is the workspace: connections are never shared between pools. `attempts` is filled as they are made;
        `on_progress` is told each one when it has ended. Raises, each with `sent` and `retryable` set:
        - Misconfigured: the URL or a header can't be sent (control characters, framing headers).
        - AddressRefused: the guard refused the target (or a redirect's), or the name doesn't exist. Never retried.
        - CertificateRefused: TLS failed. Never retried. UpstreamUnreachable: no connection, also after the retries.
        - OutcomeUnknown: not idempotent, and the connection was lost after sending began. (One that ended with 500, 502
          or 504 is returned as the answer: the caller decides.) AnswerLost: the same, idempotent, also after the retries.
        - UpstreamTimeout: the deadline passed (CredentialUnavailable: while the signer was waited for).  - RedirectRefused: a redirect that isn't followed (rules F5).
        - ResponseTooLarge, InvalidResponse: an answer that can't be taken. Never retried.
        - whatever the signer raises.
        """
        wire = Wire()
        log: list[Attempt] = [] if attempts is None else attempts
        ends_at = self._clock() + limits.deadline_s
        deadline = Deadline(self._due, limits.deadline_s)
        try:
            with deadline:
                return await self._try(request, pool, retry, limits, signer, log, on_progress, wire, ends_at)
        except TimeoutError as exc:
            if not deadline.expired:
                raise
            raise _timed_out(request, retry, limits, wire) from exc

    @asynccontextmanager
    async def stream(self, request: Request, *, pool: str, signer: Signer, wire: Wire) -> AsyncGenerator[Stream, None]:
        """One answer whose body the caller reads as it comes. No retry but the one after a 401, no redirect, no deadline.

        Raises as `send` does, but ConnectFailed and ConnectionLost come as they are: `wire.sent` tells what to think of them.
        """
        self._check(request)
        for last in (False, True):
            signed = _signed(request, await signer.sign(request))
            async with self._engine.stream(signed, pool=pool, wire=wire) as stream:
                answer = Answer(stream.status, stream.headers, b"", request.url)
                if answer.status == 401 and not last and await signer.refused(answer):
                    wire.sent = False
                    continue
                yield stream
                return

    async def _try(
        self,
        request: Request,
        pool: str,
        retry: Retry,
        limits: Limits,
        signer: Signer | None,
        log: list[Attempt],
        on_progress: Callable[[Attempt], None] | None,
        wire: Wire,
        ends_at: float,
    ) -> Answer:
        self._check(request)
        first = len(log)
        why, wait_s, retries, signed_again = "first", 0.0, 0, False
        while True:
            attempt = Attempt(len(log) - first + 1, None, wait_s, why, 0.0, None)
            log.append(attempt)
            outcome = await self._attempt(request, pool, limits, signer, attempt, wire)
            if on_progress:
                on_progress(attempt)

            if isinstance(outcome, Answer):
                if outcome.status not in MAYBE_DONE:
                    wire.sent = False
                if outcome.status == 401 and signer and not signed_again and not wire.strayed:
                    signed_again = True
                    if await signer.refused(outcome):
                        why, wait_s = "401, signed again", 0.0
                        continue
                if outcome.status not in retry.statuses or not (retry.idempotent or outcome.status in NOTHING_DONE):
                    return outcome
                again, why = True, f"status {outcome.status}"
                asked = retry_after_s(outcome.headers, self._wall_clock()) or 0.0
            else:
                again = retry.idempotent or isinstance(outcome, ConnectFailed)
                why = "no connection" if isinstance(outcome, ConnectFailed) else "connection lost"
                asked = 0.0

            if again and retries < retry.max_retries:
                wait_s = max(asked, self._random() * min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2**retries))
                if self._clock() + wait_s < ends_at:
                    retries += 1
                    if wait_s > 0:
                        await self._sleep(wait_s)
                    continue
            if isinstance(outcome, Answer):
                return outcome
            raise _without_answer(outcome, retry, wire) from outcome

    async def _attempt(
        self, request: Request, pool: str, limits: Limits, signer: Signer | None, attempt: Attempt, wire: Wire
    ) -> Answer | ConnectFailed | ConnectionLost:
        """One signed request and its redirects. What can be tried again is returned, the rest is raised."""
        started, coarse = self._clock(), False
        outcome: Answer | ConnectFailed | ConnectionLost
        try:
            if signer:
                wire.signing = True
                request = _signed(request, await signer.sign(request))
                wire.signing = False
            outcome = await self._follow(request, pool, limits, wire)
            attempt.status = outcome.status
            attempt.maybe_done = outcome.status in MAYBE_DONE
        except ConnectFailed as exc:
            outcome, attempt.error = exc, f"no connection: {exc}"
        except ConnectionLost as exc:
            outcome, attempt.error, attempt.status, attempt.maybe_done = exc, str(exc), exc.status, True
        except asyncio.CancelledError:
            attempt.error, attempt.maybe_done = "cut off", wire.sent
            raise
        except CallError as exc:
            attempt.error, attempt.detail = exc.message, exc.detail
            coarse = isinstance(exc, AddressRefused)
            raise
        finally:
            took = (self._clock() - started) * 1000
            attempt.ms = coarse_ms(took) if coarse else took
        return outcome

    async def _follow(self, request: Request, pool: str, limits: Limits, wire: Wire) -> Answer:
        hops = 0
        wire.strayed = False
        while True:
            answer = await self._engine.exchange(request, pool=pool, max_bytes=limits.max_bytes, wire=wire)
            if answer.status not in REDIRECTS or "Location" not in answer.headers:
                return answer
            following = _redirected(request, answer, limits, hops)
            self._guard(following.url)
            wire.strayed = wire.strayed or _origin(following.url) != _origin(request.url)
            request = following
            hops += 1

    def _check(self, request: Request) -> None:
        if not _FINISHED_URL.fullmatch(request.url):
            raise Misconfigured("the URL can't be sent: it isn't an absolute, percent-encoded http or https URL")
        _check_headers(request.headers)
        self._guard(request.url)

    def _guard(self, url: str) -> None:
        # By origin, since the verdict depends on nothing else: this is on the path of each call. The URL is finished, so
        # what stands before the path is the origin (and perhaps a user part, which is refused).
        origin = _ORIGIN.match(url)
        key = origin[0] if origin else url
        if key not in self._passed:
            if reason := check_url(url, self._network):
                raise refused(reason)
            if len(self._passed) >= 10_000:
                self._passed.clear()
            self._passed.add(key)


def _check_headers(headers: tuple[tuple[str, str], ...]) -> None:
    for name, value in headers:
        if not _may_be_sent(name):
            raise Misconfigured("a header with this name can't be sent", detail=repr(name))
        if _NOT_IN_VALUE.search(value):
            raise Misconfigured(f"the value of header {name} holds a control character")


@lru_cache(maxsize=1024)
def _may_be_sent(name: str) -> bool:
    return header_fault(name) is None


def _signed(request: Request, headers: tuple[tuple[str, str], ...]) -> Request:
    """The credential wins over a header of the same name, and none of it goes to another origin. Raises Misconfigured.

    The request's own headers were checked before.
    """
    if not headers:
        return request
    _check_headers(headers)
    names = frozenset([name.lower() for name, _ in headers])
    kept = tuple([header for header in request.headers if header[0].lower() not in names])
    return Request(request.method, request.url, kept + headers, request.body, request.private_headers | names)


def _redirected(request: Request, answer: Answer, limits: Limits, hops: int) -> Request:
    """The request that follows this redirect, or RedirectRefused (rules F5)."""
    where = _location(request.url, answer.headers["Location"])

    def no(reason: str) -> RedirectRefused:
        message = f"the answer is a redirect ({answer.status}), and {reason}"
        return RedirectRefused(message, upstream_status=answer.status, detail=f"Location: {_masked(where)}")

    if request.method not in SAFE_METHODS:
        raise no(f"a {request.method} isn't sent again elsewhere")
    if hops >= limits.redirects:
        raise no(f"more than {limits.redirects} aren't followed")
    if where is None:
        raise no("where to can't be read")
    if request.url.startswith("https:") and not where.startswith("https:"):
        raise no("it leads from https to http")
    if _origin(where) == _origin(request.url):
        return replace(request, url=where)
    if not limits.other_origins:
        raise no("it leads to another origin")
    private = request.private_headers | _ALWAYS_PRIVATE
    return replace(request, url=where, headers=tuple(h for h in request.headers if h[0].lower() not in private))


def _location(base: str, location: str) -> str | None:
    """Location resolved against the URL that answered, percent-encoded, without fragment; None if it is no http(s) URL."""
    location = quote(location.strip(" \t").partition("#")[0], safe="!$%&'()*+,/:;=?@[]~", errors="surrogateescape")
    try:
        joined = urljoin(base, location)
        URL(joined, encoded=True).port  # noqa: B018 - a port that isn't a number raises here
    except (ValueError, IndexError):  # the latter is yarl's for http://[::1]@/
        return None
    return joined if _FINISHED_URL.fullmatch(joined) else None


def _masked(where: str | None) -> str:
    """Scheme, host and path for operators; a query can hold a credential, and so can a user part."""
    if where is None:
        return "(unreadable)"
    url = URL(where, encoded=True)
    return f"{url.scheme}://{url.host_port_subcomponent}{url.raw_path}{'?...' if url.raw_query_string else ''}"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parsed = URL(url, encoded=True)
    return parsed.scheme, (parsed.raw_host or "").lower(), parsed.port


def _without_answer(failure: ConnectFailed | ConnectionLost, retry: Retry, wire: Wire) -> CallError:
    if not wire.sent:
        return UpstreamUnreachable("no connection could be made", detail=str(failure))
    status = failure.status if isinstance(failure, ConnectionLost) else None
    if retry.idempotent:
        return AnswerLost(
            "the connection was lost before the answer was complete", upstream_status=status, detail=str(failure)
        )
    return OutcomeUnknown(
        "the connection was lost after the request was sent", upstream_status=status, detail=str(failure)
    )


def _timed_out(request: Request, retry: Retry, limits: Limits, wire: Wire) -> CallError:
    if wire.signing and not wire.sent:
        return CredentialUnavailable(
            f"there was none within {limits.deadline_s:g} s: its token endpoint or the secret store is slow",
            retry_after_s=_SLOW_CREDENTIAL_S,
        )
    sent: Sent = "no" if not wire.sent else "yes" if request.method in SAFE_METHODS else "unknown"
    message = f"no answer within {limits.deadline_s:g} s"
    return UpstreamTimeout(message, sent=sent, retryable=sent != "unknown" or retry.idempotent)


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Retry-After in seconds from now, None if absent or unreadable. A date counts from the answer's own Date, since the
    upstream's clock may be off, else from `now` (Unix time). RFC 9110 10.2.3."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    until = http_date(value)
    if until is None:
        return None
    since = http_date(headers.get("Date", ""))
    return max(0.0, until - (now if since is None else since))


def http_date(value: str) -> float | None:
    """Unix time of a Date or Retry-After header; None where it isn't one (RFC 9110 5.6.7)."""
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
