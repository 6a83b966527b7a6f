"""What is asked of an import and what it answers."""

from typing import Any, Literal

from pydantic import Field

from tools.models import (
    AuthConfig,
    AuthConfigWithSecrets,
    IntegrationName,
    McpTransport,
    Model,
    NameString,
    SecretInput,
)

Patterns = tuple[str, ...]
Change = Literal["add", "change", "same", "own", "gone", "remove", "offered"]


class ImportRequest(Model):
    """One source (`url` or `document`, `curl`, `fhir`, `mcp_url` or `mcp_command`), what is wanted of it, and whether to write it."""

    url: str | None = Field(default=None, max_length=2048, description="Where the OpenAPI document is.")
    document: dict[str, Any] | str | None = Field(
        default=None, description="The OpenAPI document: JSON, or text of either."
    )
    curl: str | None = Field(default=None, max_length=64 * 1024, description="A curl command line.", repr=False)
    fhir: str | None = Field(
        default=None, max_length=2048, description="A FHIR server's base URL; its /metadata is read."
    )
    mcp_url: str | None = Field(default=None, max_length=2048, description="An MCP server's URL.")
    mcp_command: str | None = Field(
        default=None, max_length=512, description="An MCP server's program: a path on the operator's list."
    )
    mcp_transport: McpTransport | None = Field(default=None, description="Of mcp_url. Default: found out.")
    mcp_args: tuple[str, ...] | None = None
    mcp_headers: dict[str, str] | None = Field(default=None, repr=False)
    mcp_env: dict[str, str] | None = Field(default=None, repr=False)
    name: IntegrationName | None = Field(default=None, description="The integration. Default: from the source's title.")
    display_name: NameString | None = None
    base_url: str | None = Field(default=None, max_length=2048, description="Instead of what the document says.")
    tags: Patterns = Field(default=(), description="Patterns of * and ?; with ! before it, what isn't wanted.")
    paths: Patterns = ()
    methods: Patterns = ()
    operations: Patterns = Field(
        default=(), description="Patterns of operationIds; of search_patient and the like; of an MCP server's tools."
    )
    names: Patterns = Field(default=(), description="Patterns of endpoint names.")
    auth: AuthConfigWithSecrets | None = Field(default=None, description="Instead of what the source says.")
    secret: SecretInput | None = Field(
        default=None, description="The secret of the auth that the source says; of a server, a bearer token."
    )
    client_id: str | None = Field(default=None, description="With oauth2_client_credentials.")
    enabled: bool = Field(default=False, description="Whether a new integration is enabled at once.")
    prune: bool = Field(default=False, description="Remove endpoints whose operation the document no longer has.")
    apply: bool = Field(default=False, description="Write it; without, it is a preview.")


class ImportedEndpoint(Model):
    """One operation and what the import does with it. `kept` fields are the operator's edits, `conflicts` those of them that the
    document changed too. `offered`: not there and not asked for."""

    operation: str
    name: str
    tool: str
    change: Change
    operation_id: str = ""
    tags: tuple[str, ...] = ()
    tokens: int = 0
    changed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class NotImported(Model):
    """What of the source can't be used, and why."""

    operation: str
    why: str


class ImportAnswer(Model):
    """A preview, or what was done. `tokens` is what the tools of the integration cost in a list; `problems` would refuse it."""

    integration: str
    id: str | None = None
    change: Literal["create", "update", "none"]
    applied: bool
    enabled: bool
    base_url: str
    auth: AuthConfig | None = None
    endpoints: tuple[ImportedEndpoint, ...]
    left_out: tuple[NotImported, ...]
    counts: dict[str, int]
    tokens: int
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
