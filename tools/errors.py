"""Everything that can go wrong, as a tree: one class per thing that a caller does differently.

    GatewayError
    |-- RequestError                 a request to the gateway is refused (told by rest_api and admin tools)
    |   |-- InvalidRequest 422       |-- Unauthenticated 401      |-- Forbidden 403
    |   |-- NotFound 404             |-- NameTaken 409            |-- VersionMismatch 412
    |   |-- TooLarge 413             |-- RateLimited 429          |-- StorageUnavailable 503
    |   `-- Declined 409             `-- IdentityProviderUnavailable 503
    `-- CallError                    a tool call ended without the answer (told to a model by error_text)
        |-- not sent:   InvalidArguments, UnknownTool, NotAllowed, AddressRefused, NameNotFound, Misconfigured,
        |               CredentialUnavailable, UpstreamUnreachable, CertificateRefused, TooManyCalls, CircuitOpen, RegistryUnavailable,
        |               ApprovalRequired, ApprovalDenied
        |-- sent:       UpstreamStatus, UpstreamRefused, UpstreamUnavailable, CredentialRejected, RedirectRefused, ResponseTooLarge,
        |               InvalidResponse, ShapingFailed
        |-- unknown:    OutcomeUnknown, UpstreamTimeout (both "may have been done"), AnswerLost (idempotent: repeat it),
        |               ProbablyDone
        `-- own:        ResultExpired, Cancelled, Internal (and RequestRefused, in admin_tools)

Each has a stable `code` (never decided by message text) and an HTTP `status` for REST. A CallError also says whose fault it is,
whether anything was sent, and whether repeating the same call helps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Fault = Literal["arguments", "upstream", "configuration", "limit"]
Sent = Literal["no", "yes", "unknown"]


class GatewayError(Exception):
    """Root. `code` is stable and may be scripted against; `status` is the HTTP status that REST answers with."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


# --------------------------------------------------------------------------- requests to the gateway


class RequestError(GatewayError):
    """A request to the gateway itself is refused; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One fault in what was given. `loc` is the path in the input, e.g. ("body", "endpoints", 0, "path").

    `input` is left out wherever it could echo a secret (semantics.md, Errors).
    """

    loc: tuple[str | int, ...]
    msg: str
    type: str = "value_error"
    input: Any = None
    has_input: bool = False


class InvalidRequest(RequestError):
    """The input has faults; all of them are listed."""

    code = "invalid_request"
    status = 422

    def __init__(self, issues: Sequence[Issue]) -> None:
        super().__init__("; ".join(f"{'.'.join(str(p) for p in i.loc)}: {i.msg}" for i in issues))
        self.issues = tuple(issues)


class SecretRebindRequired(InvalidRequest):
    """A stored secret would go to an origin it was not given for (rules A1)."""

    code = "secret_rebind_required"


class Unauthenticated(RequestError):
    """No valid API key or token."""

    code = "unauthenticated"
    status = 401
    challenge = "Bearer"
    """What `WWW-Authenticate` says (RFC 6750 3, RFC 9728 5.1)."""


class TokenExpired(Unauthenticated):
    """The access token's time is over: get a new one."""


class Forbidden(RequestError):
    """The caller may not do this."""

    code = "forbidden"
    status = 403


class MissingPermission(Forbidden):
    """The caller lacks a permission; for an access token, `challenge` names the scope that would give it."""

    challenge: str | None = None

    def __init__(self, permission: str) -> None:
        super().__init__(f"this needs the permission {permission}")
        self.permission = permission


class BuiltinReadOnly(Forbidden):
    """The integration belongs to the operator's own file."""

    code = "builtin"


class SecretPathNotAllowed(Forbidden):
    """The integration may not name this secret path (rules A2), whether it exists or not."""

    code = "secret_path_not_allowed"


class NotFound(RequestError):
    """The workspace doesn't have this."""

    code = "not_found"
    status = 404


class NameTaken(RequestError):
    """The name is already used in this workspace."""

    code = "name_taken"
    status = 409


class VersionMismatch(RequestError):
    """Somebody else changed it meanwhile (If-Match)."""

    code = "version_mismatch"
    status = 412


class Declined(RequestError):
    """The user was asked and didn't want it."""

    code = "declined"
    status = 409


class TooLarge(RequestError):
    """The request body is over the limit."""

    code = "too_large"
    status = 413


class RateLimited(RequestError):
    """Too many requests; `retry_after_s` says when to come back."""

    code = "rate_limited"
    status = 429

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StorageUnavailable(RequestError):
    """The registry can't be reached, is locked, read-only or full. Nothing was changed."""

    code = "storage_unavailable"
    status = 503


class IdentityProviderUnavailable(RequestError):
    """The identity provider's keys can't be fetched, so a token that it may have issued can't be judged."""

    code = "identity_provider_unavailable"
    status = 503

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SecretStoreUnavailable(StorageUnavailable):
    """The secret store can't be reached."""

    code = "secret_store_unavailable"


class SecretNotFound(RequestError):
    """No secret is stored under this path (and version)."""

    code = "secret_not_found"
    status = 404


# --------------------------------------------------------------------------- calls


class CallError(GatewayError):
    """A tool call that ended without the upstream's answer.

    `said` are the upstream's own words (masked, at most 2,000 characters); `advice` is what to do next;
    `upstream_status` the last HTTP status, if any. `detail` is the precise cause (hosts, addresses, a masked Location) for
    operators: shown only to callers with Integration.update.
    """

    status = 502
    fault: ClassVar[Fault] = "upstream"
    retryable: bool = False
    sent: Sent = "no"

    def __init__(
        self,
        message: str,
        *,
        said: str | None = None,
        advice: str | None = None,
        retry_after_s: float | None = None,
        upstream_status: int | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.detail = detail
        self.said = said
        self.advice = advice
        self.retry_after_s = retry_after_s
        self.upstream_status = upstream_status

    @property
    def full_code(self) -> str:
        """The code in brackets at the end of the text; more precise than `code` only for upstream statuses."""
        return self.code


@dataclass(frozen=True, slots=True)
class ArgumentFault:
    """One argument that doesn't fit: `where` is the published name or path, `what` a sentence without it."""

    where: str
    what: str


class InvalidArguments(CallError):
    """The arguments don't fit the tool's schema; nothing was sent."""

    code = "invalid_arguments"
    status = 422
    fault = "arguments"

    def __init__(self, faults: Sequence[ArgumentFault], accepted: Sequence[str]) -> None:
        super().__init__("; ".join(f"{f.where}: {f.what}" for f in faults))
        self.faults = tuple(faults)
        self.accepted = tuple(accepted)


class StateRefused(InvalidArguments):
    """The client came again with a `requestState` that isn't this call's. Over MCP a protocol error: no model can mend it."""


class UnknownTool(CallError):
    """There is no such tool for this caller."""

    code = "unknown_tool"
    status = 404
    fault = "arguments"


class NotAllowed(CallError):
    """The caller may not call this tool."""

    code = "not_allowed"
    status = 403
    fault = "configuration"


class AddressRefused(CallError):
    """The address guard refused the target before any packet was sent (rules H1, H2)."""

    code = "misconfigured"
    fault = "configuration"


class NameNotFound(AddressRefused):
    """The target's name doesn't resolve. Who may not change the integration is told what a refused address is told (rules H2)."""


class Misconfigured(CallError):
    """The integration can't work as it is configured."""

    code = "misconfigured"
    fault = "configuration"


class CredentialUnavailable(CallError):
    """The secret or token for this call could not be had."""

    code = "credential_unavailable"
    fault = "configuration"


class UpstreamUnreachable(CallError):
    """No connection could be made: nothing was sent."""

    code = "upstream_unreachable"
    retryable = True


class CertificateRefused(UpstreamUnreachable):
    """The upstream's TLS certificate or handshake isn't accepted: nothing was sent."""

    code = "certificate_refused"
    retryable = False


class AnswerLost(UpstreamUnreachable):
    """The connection was lost after sending, also in the retries; the operation is idempotent, so the call can be repeated."""

    code = "answer_lost"
    sent = "unknown"


class TooManyCalls(CallError):
    """A limit of the gateway: too many calls at once or in this time."""

    code = "too_many_calls"
    status = 429
    fault = "limit"
    retryable = True


class CircuitOpen(CallError):
    """The upstream failed again and again, and is given a rest. The message goes on from "The ...'s server"."""

    code = "circuit_open"
    status = 503
    retryable = True


class RegistryUnavailable(CallError):
    """The gateway's own registry can't be used, and this call needs it: nothing was sent."""

    code = "storage_unavailable"
    status = 503
    fault = "configuration"
    retryable = True


class ApprovalRequired(CallError):
    """A person must approve exactly this call before it is sent (rules H5)."""

    code = "approval_required"
    status = 409
    fault = "limit"

    def __init__(self, message: str, *, approval_id: str) -> None:
        super().__init__(message)
        self.approval_id = approval_id


class ApprovalDenied(CallError):
    """A person was asked about this call and said no."""

    code = "approval_denied"
    status = 409
    fault = "limit"


class UpstreamStatus(CallError):
    """The upstream answered with an error status that repeating will not change."""

    code = "upstream_error"
    sent = "yes"

    @property
    def full_code(self) -> str:
        return f"upstream_{self.upstream_status}"


class UpstreamRefused(CallError):
    """An MCP upstream answered with an error instead of a result. The message goes on from "The ...'s server"."""

    code = "upstream_refused"
    sent = "yes"


class UpstreamUnavailable(CallError):
    """The upstream said that it is busy or down (429, 502, 503, 504), also after the retries."""

    code = "upstream_unavailable"
    sent = "yes"
    retryable = True


class CredentialRejected(CallError):
    """The upstream or its token endpoint doesn't accept our credentials."""

    code = "credential_rejected"
    fault = "configuration"
    sent = "yes"
    reason: str | None = None
    """The OAuth error code of the token endpoint, where there is one."""


class RedirectRefused(CallError):
    """The upstream redirects where we must not follow."""

    code = "redirect_refused"
    fault = "configuration"
    sent = "yes"


class ResponseTooLarge(CallError):
    """The answer is over the size limit (decompressed bytes count)."""

    code = "response_too_large"
    fault = "limit"
    sent = "yes"


class InvalidResponse(CallError):
    """The answer can't be read: not the JSON or charset that it claims to be, or broken on the wire."""

    code = "invalid_response"
    sent = "yes"


class OutcomeUnknown(CallError):
    """A write whose answer was lost or was 500, 502, 504: it may have been done."""

    code = "outcome_unknown"
    sent = "unknown"


class ProbablyDone(CallError):
    """The write failed because an earlier attempt of this call, whose answer was lost, was probably carried out (rules F2)."""

    code = "probably_done"
    sent = "unknown"


class UpstreamTimeout(CallError):
    """The deadline passed. `sent` tells whether the request may have been carried out."""

    code = "upstream_timeout"
    status = 504

    def __init__(self, message: str, *, sent: Sent, retryable: bool, advice: str | None = None) -> None:
        super().__init__(message, advice=advice)
        self.sent = sent
        self.retryable = retryable

    @property
    def full_code(self) -> str:
        return "upstream_timeout_unknown" if self.sent == "unknown" else "upstream_timeout"


class ShapingFailed(CallError):
    """A shaping stage failed over this answer. `stage` is response_filter, response_mapping, result_key or result_template.

    `partial` has the stages before it: a `shaping.Shaped` whose stages that weren't reached are None (and `text` "").
    """

    code = "shaping_failed"
    fault = "configuration"
    sent = "yes"
    partial: Any = None

    def __init__(self, message: str, *, stage: str, expression: str, available: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.stage = stage
        self.expression = expression
        self.available = tuple(available)


class ResultExpired(CallError):
    """The kept result is gone, or was never this caller's."""

    code = "result_expired"
    status = 404
    fault = "arguments"


class Internal(CallError):
    """A fault of the gateway itself; the details are in its log under the request id."""

    code = "internal"
    status = 500
    fault = "configuration"
    sent = "unknown"
