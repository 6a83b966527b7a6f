"""The nouns of the contract as frozen pydantic models: what an operator writes and what answers carry.

Names, defaults and limits are those of the platform's Integrations API (tests/contract/openapi.json); the additive fields are
marked. A model carries the *path* of a secret; inline values exist only in `*WithSecrets` and never leave `provisioning`.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tools.rates import RATE

Protocol = Literal["rest", "fhir", "mcp"]
McpTransport = Literal["stdio", "sse", "http"]
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
BodyFormat = Literal["json", "form"]
ResultDelivery = Literal["interrupt", "queue"]
ApprovalPolicy = Literal["none", "writes", "all"]
AuthType = Literal[
    "api_key_header",
    "bearer_token",
    "oauth2_client_credentials",
    "oauth2_jwt_bearer",
    "gcp_wif",
    "smart_backend_services",
]

WORKSPACE_ID = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
INTEGRATION_NAME = r"^[a-z0-9][a-z0-9_-]*[a-z0-9]$"
ENDPOINT_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"

MAX_ENDPOINTS = 1000
MAX_HEADERS = 50
MAX_SCHEMA_BYTES = 64 * 1024
MAX_SCHEMA_DEPTH = 32
MAX_TEMPLATE_BYTES = 16 * 1024
MAX_EXPRESSION_CHARS = 1000

IntegrationName = Annotated[str, StringConstraints(min_length=2, max_length=128, pattern=INTEGRATION_NAME)]
EndpointName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=ENDPOINT_NAME)]
NameString = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Expression = Annotated[str, StringConstraints(max_length=MAX_EXPRESSION_CHARS)]
HttpStatus = Annotated[int, Field(ge=400, le=599)]


class Model(BaseModel):
    """Frozen, and an unknown key is an error (with the nearest known name, see `parsing`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SecretInput(Model):
    """An inline secret: provisioned to the secret store when the integration is written, never shown again."""

    value: str = Field(repr=False)


class AuthConfig(Model):
    """How calls to an integration are signed. Secrets are named by path. See semantics: "Auth types"."""

    type: AuthType
    header_name: str | None = None
    ssm_param_path: str | None = None
    token_ssm_param_path: str | None = None
    token_url: str | None = None
    client_id: str | None = None
    client_secret_ssm_param_path: str | None = None
    scopes: tuple[str, ...] | None = None
    gcp_scopes: tuple[str, ...] | None = None
    private_key_ssm_param_path: str | None = None
    assertion_issuer: str | None = None
    assertion_subject: str | None = None
    assertion_audience: str | None = None
    token_lifetime_seconds: int = 3600
    assertion_algorithm: Literal["RS384", "ES384"] | None = None
    assertion_scopes_in_jwt: bool = False
    assertion_kid: str | None = None
    client_auth_method: Literal["basic", "post"] | None = Field(
        default=None, description="Additive: how the client authenticates at the token endpoint; null finds out."
    )
    token_params: dict[str, str] | None = Field(
        default=None, description="Additive: further form fields of the token request (at most 10)."
    )


class AuthConfigWithSecrets(AuthConfig):
    """AuthConfig that accepts inline secret values; each is stored and replaced by its path."""

    api_key_value: SecretInput | None = None
    bearer_token_value: SecretInput | None = None
    client_secret_value: SecretInput | None = None
    private_key_value: SecretInput | None = None


INLINE_SECRETS: dict[str, str] = {
    "api_key_value": "ssm_param_path",
    "bearer_token_value": "token_ssm_param_path",
    "client_secret_value": "client_secret_ssm_param_path",
    "private_key_value": "private_key_ssm_param_path",
}
"""Inline field -> the path field that replaces it."""


class RetryConfig(Model):
    """Which upstream answers are tried again, and how often (semantics: "Calling")."""

    max_retries: int = Field(default=2, ge=0, le=10)
    retry_on_status: tuple[HttpStatus, ...] = (429, 502, 503, 504)


class Annotations(Model):
    """MCP tool annotations that override what the method implies. Additive."""

    title: str | None = Field(default=None, max_length=60)
    readOnlyHint: bool | None = None  # noqa: N815 - the MCP spec's own names
    destructiveHint: bool | None = None  # noqa: N815
    idempotentHint: bool | None = None  # noqa: N815
    openWorldHint: bool | None = None  # noqa: N815


class EndpointConfig(Model):
    """One operation of an integration; while both stand and the integration is enabled, one MCP tool."""

    name: EndpointName
    description: str = Field(max_length=8192)
    method: Method = "POST"
    path: str = Field(max_length=2048)
    base_url: str | None = Field(default=None, max_length=2048)
    auth: AuthConfig | None = None
    input_schema: dict[str, Any] = Field(default_factory=dict[str, Any])
    response_mapping: dict[str, Expression] | None = None
    response_filter: tuple[Expression, ...] | None = None
    result_template: str | None = None
    result_key: Expression | None = None
    max_result_length: int = Field(default=0, ge=0)
    retry_config: RetryConfig = RetryConfig()
    result_delivery: ResultDelivery = "interrupt"
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    body_format: BodyFormat = "json"
    timeout_seconds: float | None = Field(
        default=None, gt=0, le=600, description="Additive: deadline of the whole call in seconds; null is 30."
    )
    annotations: Annotations | None = Field(default=None, description="Additive: MCP tool annotations.")
    approval_policy: ApprovalPolicy | None = Field(
        default=None, description="Additive: when a person must approve; null takes the integration's."
    )


class CallLimits(Model):
    """How much of this integration may run, in each server process. Additive."""

    concurrency: int | None = Field(default=None, ge=1, le=10_000, description="Calls at once; further ones wait.")
    rate: Annotated[str, Field(pattern=RATE)] | None = Field(
        default=None, description="Calls in a time: 10/s, 600/min or 1000/h. Further ones are refused."
    )


class IntegrationFields(Model):
    """What an operator decides about an integration; shared by requests, rows and answers."""

    display_name: NameString
    protocol: Protocol = "rest"
    base_url: str = Field(default="", max_length=2048)
    endpoints: tuple[EndpointConfig, ...] = Field(default=(), max_length=MAX_ENDPOINTS)
    enabled: bool = True
    mcp_transport: McpTransport | None = None
    mcp_command: str | None = Field(default=None, max_length=512)
    mcp_args: tuple[str, ...] | None = None
    mcp_url: str | None = Field(default=None, max_length=2048)
    mcp_headers: dict[str, str] | None = None
    mcp_env: dict[str, str] | None = Field(
        default=None, description="Additive: environment of the stdio upstream's process."
    )
    approval_policy: ApprovalPolicy = Field(default="none", description="Additive: when a person must approve.")
    limits: CallLimits | None = Field(
        default=None, description="Additive: limits of its calls; the operator's own hold beside them."
    )


class CreateIntegrationRequest(IntegrationFields):
    """Body of create."""

    name: IntegrationName
    auth: AuthConfigWithSecrets | None = None


class UpdateIntegrationRequest(Model):
    """Body of update: a field left out stays; null clears a nullable one (`auth`, `mcp_*`) and leaves the others."""

    display_name: NameString | None = None
    protocol: Protocol | None = None
    base_url: str | None = Field(default=None, max_length=2048)
    auth: AuthConfigWithSecrets | None = None
    endpoints: tuple[EndpointConfig, ...] | None = Field(default=None, max_length=MAX_ENDPOINTS)
    enabled: bool | None = None
    mcp_transport: McpTransport | None = None
    mcp_command: str | None = Field(default=None, max_length=512)
    mcp_args: tuple[str, ...] | None = None
    mcp_url: str | None = Field(default=None, max_length=2048)
    mcp_headers: dict[str, str] | None = None
    mcp_env: dict[str, str] | None = None
    approval_policy: ApprovalPolicy | None = None
    limits: CallLimits | None = None


class Binding(Model):
    """What the registry keeps about a secret path that an integration names (rules A1, A4, A9); never shown.

    `version` pins the value for owned secrets (None: the newest); `origins` are where it may go
    ("https://host:443"); `owned` says that it was provisioned for this integration and goes with it.
    """

    version: str | None = None
    origins: tuple[str, ...] = ()
    owned: bool = False


class PublishedKey(Model):
    """The public part of a key that signs for an integration, as its JWKS shows it, and where the private part is (rules D).

    `path` and `version` as in `Binding` (None: the newest); `since` is when this state began. `hold`: a next key that
    waits until a person has said that the other side has it (rules D2, D3).
    """

    kid: str
    jwk: dict[str, str]
    state: Literal["next", "active", "retiring"]
    path: str
    version: str | None = None
    since: datetime
    hold: bool = False


class UpstreamTools(Model):
    """What the registry keeps of an MCP upstream, so that lists never wait for it. `tools` are as the upstream describes them,
    without those that no host could take; `source` is where they were read from.

    `pins` is each tool's digest when it was first seen; `changed` are those that look different now; `left_out` says what and why.
    """

    tools: tuple[dict[str, Any], ...] = ()
    pins: dict[str, str] = Field(default_factory=dict[str, str])
    changed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    server: str = ""
    protocol_version: str = ""
    source: str = ""


class Integration(IntegrationFields):
    """A row of the registry: the whole of one integration at one `version` (its ETag)."""

    auth: AuthConfig | None = None
    id: str
    workspace_id: str
    name: IntegrationName
    builtin: bool = False
    created_at: datetime
    updated_at: datetime
    version: int = 1
    bindings: dict[str, Binding] = Field(default_factory=dict[str, Binding])
    published_keys: tuple[PublishedKey, ...] = ()
    last_tested_at: datetime | None = None
    last_test_status: str | None = None
    upstream_tools: UpstreamTools | None = None


class IntegrationResponse(IntegrationFields):
    """What answers show of an integration: secret paths stay, header secrets are masked (rules A7)."""

    auth: AuthConfig | None = None
    id: str
    workspace_id: str
    name: str
    builtin: bool = False
    created_at: datetime
    updated_at: datetime
    last_tested_at: datetime | None = Field(default=None, description="Additive: when test-connection last ran.")
    last_test_status: str | None = Field(default=None, description="Additive: what test-connection last found.")


READ_ONLY_FIELDS = frozenset(
    {"id", "workspace_id", "builtin", "created_at", "updated_at", "last_tested_at", "last_test_status"}
)
"""Accepted and ignored on create and update, so that GET, change, PUT works."""


class IntegrationPage(Model):
    """A page of the list; `continuation_token` is the offset of the next one."""

    items: tuple[IntegrationResponse, ...]
    has_more: bool
    continuation_token: int | None = None
    total: int | None = None


class TestEndpointRequest(BaseModel):
    """Arguments for a test; unknown keys are ignored (a published client example sends them)."""

    __test__ = False
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)
    params: dict[str, Any] = Field(default_factory=dict[str, Any])


class TestEndpointResponse(Model):
    """Each stage of one call; stages not reached are null."""

    __test__ = False
    status_code: int | None = None
    duration_ms: float = 0
    retries: int = 0
    raw_response: Any = None
    after_filter: Any = None
    after_mapping: Any = None
    final_result: str | None = None
    error: str | None = None
