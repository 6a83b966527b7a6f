"""Bodies and answers that the contract doesn't have: preview, keys, secrets, history."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from tools.callers import Permission, Role
from tools.history import Action
from tools.models import Model, TestEndpointResponse

KeyName = Annotated[str, StringConstraints(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]


class TestEndpointAnswer(TestEndpointResponse):
    """Each stage of one call; `explain` only where it was asked for."""

    __test__ = False
    explain: dict[str, Any] | None = Field(
        default=None, description="Additive, with explain=true: the request, each attempt, sizes, what the agent sees."
    )


class PreviewRequest(Model):
    """A response to shape without calling anything."""

    response: Any = Field(description="What the upstream would answer, as JSON or text.")
    params: dict[str, Any] = Field(default_factory=dict[str, Any], description="The arguments, for templates.")
    endpoint: dict[str, Any] = Field(
        default_factory=dict[str, Any],
        description="A JSON merge patch (RFC 7396) of the endpoint, tried and not stored.",
    )


class ConnectionHealth(Model):
    """What one probe of an integration found."""

    id: str
    name: str
    display_name: str
    protocol: str
    status: Literal["healthy", "auth_failed", "unreachable", "timeout", "ssl_error", "misconfigured"]
    auth: str
    latency_ms: float | None
    message: str
    checked_at: datetime
    credential: dict[str, Any] | None = Field(
        default=None, description="Where the credential came from and whether it works; never its value."
    )


class HealthReport(Model):
    """Every enabled integration, probed side by side."""

    status: Literal["healthy", "degraded", "unhealthy"]
    checked_at: datetime
    counts: dict[str, int] = Field(description="How many integrations have each status.")
    integrations: tuple[ConnectionHealth, ...]


class CreateApiKeyRequest(Model):
    """A key for somebody else, at most as strong as the caller's own."""

    duration_days: int = Field(ge=1, le=90, description="Days until it expires.")
    name: KeyName = ""
    role: Role = "member"
    permissions: tuple[Permission, ...] | None = Field(
        default=None, description="Fewer than the role's; null: the role's."
    )
    integrations: tuple[str, ...] | None = Field(
        default=None, max_length=1000, description="Only these (ids or names)."
    )
    tools: tuple[str, ...] | None = Field(default=None, max_length=1000, description="Only these tools.")


class ApiKeyResponse(Model):
    """A key as it is listed; never the key itself."""

    key_id: str
    name: str
    role: Role
    permissions: tuple[Permission, ...]
    integrations: tuple[str, ...] | None
    tools: tuple[str, ...] | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewApiKeyResponse(ApiKeyResponse):
    """A key just made: the only answer that has `api_key`."""

    api_key: str


class ApiKeyPage(Model):
    items: tuple[ApiKeyResponse, ...]
    has_more: bool
    continuation_token: int | None = None
    total: int | None = None


class PutSecretRequest(Model):
    """A value and where it may go."""

    value: str = Field(repr=False, min_length=1, max_length=8192)
    origins: tuple[str, ...] = Field(min_length=1, max_length=50, description="URLs; scheme, host and port count.")


class SecretResponse(Model):
    """A shared secret as it is listed; never its value."""

    name: str
    path: str = Field(description="What an integration writes to use it.")
    origins: tuple[str, ...]
    created_at: datetime
    updated_at: datetime


class SecretPage(Model):
    items: tuple[SecretResponse, ...]
    has_more: bool
    continuation_token: int | None = None
    total: int | None = None


class Error(Model):
    """Every error but 422."""

    detail: str = Field(description="A sentence for people.")
    error_code: str = Field(description="Stable; scripts may decide by it.")
    request_id: str = Field(description="The same as in the x-request-id header.")


class CallResponse(Model):
    """One call as history keeps it."""

    at: datetime
    call_id: str = Field(description="As in the answer's `_meta` and in the log.")
    request_id: str | None = Field(
        description="The x-request-id of the answer; null where no HTTP request waited for it (stdio, background calls)."
    )
    caller: str = Field(description="The key's id.")
    caller_kind: str
    tool: str
    integration_id: str | None
    status_code: int | None = Field(description="The last upstream status; null where nothing answered.")
    error_code: str | None = Field(description="Null for a success.")
    duration_ms: float
    attempts: int
    response_bytes: int
    arguments: dict[str, Any] | None = Field(description="Only where the setting record_arguments is on; masked.")


class CallPage(Model):
    items: tuple[CallResponse, ...]
    has_more: bool
    continuation_token: int | None = None


class AuditResponse(Model):
    """One management change."""

    at: datetime
    caller: str
    caller_kind: str
    action: Action
    target: str = Field(description="An id, or a secret's path.")
    name: str
    changes: tuple[dict[str, Any], ...] = Field(description="Rows of at (JSON pointer), before, after; never secrets.")


class AuditPage(Model):
    items: tuple[AuditResponse, ...]
    has_more: bool
    continuation_token: int | None = None


class ApprovalResponse(Model):
    """One call that waits for a person, or that one has decided and that wasn't made again yet."""

    id: str
    state: Literal["waiting", "approved", "denied"]
    tool: str
    integration_id: str
    integration: str
    integration_version: int
    caller: str = Field(description="The id of the key that asks.")
    caller_kind: str
    method: str
    url: str
    headers: tuple[str, ...] = Field(description="Those that the call brings.")
    body: str | None
    created_at: datetime
    expires_at: datetime


class ApprovalList(Model):
    items: tuple[ApprovalResponse, ...]


class SigningKeyRequest(Model):
    """A signing key to make in the secret store."""

    alg: Literal["RS256", "RS384", "ES256", "ES384"] | None = Field(
        default=None, description="Null: the algorithm of the key before, else what the auth type takes."
    )
    hold: bool = Field(default=False, description="Publish it, but don't sign with it before it is confirmed.")
    compromised: bool = Field(default=False, description="The old key is unpublished and this one signs, both at once.")


class SigningKey(Model):
    """One key that signs, will sign or has signed; never its private part."""

    kid: str
    alg: str
    state: Literal["next", "active", "retiring"]
    since: datetime
    until: datetime | None = Field(description="When this state ends by itself.")
    waits_for_confirmation: bool
    secret_path: str


class SigningKeys(Model):
    """The signing keys of an integration."""

    integration: str
    jwks_url: str = Field(description="What the other side registers; a path only where no public URL is configured.")
    keys: tuple[SigningKey, ...]


class TokenEndpointRequest(Model):
    """The discovered token endpoint that an owner or admin has seen and takes."""

    token_endpoint: str = Field(max_length=2048)


class TokenEndpoint(Model):
    """The token endpoint that the FHIR server names now."""

    integration: str
    token_endpoint: str
    confirmed: bool


class Jwks(Model):
    """Public keys (RFC 7517)."""

    keys: tuple[dict[str, str], ...]


class OpenidConfiguration(Model):
    """The gateway as the issuer of this integration's subject tokens (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    jwks_uri: str
    response_types_supported: tuple[str, ...]
    subject_types_supported: tuple[str, ...]
    id_token_signing_alg_values_supported: tuple[str, ...]
