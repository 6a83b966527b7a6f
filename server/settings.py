"""Settings: read once, from flags and `INTEGRATIONS_MCP_*`; an unknown name is an error that names the nearest known one."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from server.egress import EgressSettings, Network, networks_of
from server.identity_providers import IdentityProvider, may_fetch
from tools.bindings import AllowedSecretPath
from tools.credentials.external_account import AUDIENCE, SERVICE_ACCOUNT
from tools.credentials.own_identity import AllowedIdentity
from tools.kinds.paths import base_url_fault, origin_of
from tools.models import WORKSPACE_ID
from tools.naming import nearest
from tools.secrets import path_fault

ENV_PREFIX = "INTEGRATIONS_MCP_"
_CLIENT_ONLY = frozenset({"URL", "API_KEY"})
"""Read by `integrations-mcp connect`, not by the server; known, so not refused."""
FROM_FILES = frozenset({"SECRET_KEY", "DATABASE_URL", "METRICS_TOKEN", "OUTBOUND_PROXY"})
"""Settings that hold a secret: NAME_FILE names a file with the value, as container secrets are given."""


class SettingsError(ValueError):
    """A setting can't be used; the message says which and what to write instead."""


class AllowedSecretPathSetting(BaseModel):
    """One entry of `secret_paths_allow`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    workspace: str = "*"
    path: str
    origins: tuple[str, ...]

    @field_validator("path")
    @classmethod
    def _path(cls, path: str) -> str:
        if fault := path_fault(path.removesuffix("/")):
            raise ValueError(fault)
        return path

    @field_validator("origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return _as_origins(origins)


class GcpIdentitySetting(BaseModel):
    """One entry of `gcp_identity_allow`; compared as written, so it has to be written as Google writes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    workspace: str = Field(pattern=WORKSPACE_ID)
    audience: str
    service_account: str
    origins: tuple[str, ...] = ()

    @field_validator("audience")
    @classmethod
    def _audience(cls, audience: str) -> str:
        if not AUDIENCE.fullmatch(audience):
            raise ValueError(
                f"{audience!r} is no provider: write //iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/"
                "POOL/providers/PROVIDER"
            )
        return audience

    @field_validator("service_account")
    @classmethod
    def _service_account(cls, account: str) -> str:
        if account and not SERVICE_ACCOUNT.fullmatch(account):
            raise ValueError(
                f"{account!r} is no service account: write NAME@PROJECT.iam.gserviceaccount.com, or nothing for none"
            )
        return account

    @field_validator("origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return _as_origins(origins)


def _as_origins(urls: tuple[str, ...]) -> tuple[str, ...]:
    """As bindings spell them, with the port: "https://api.example" would never be equal to one."""
    for url in urls:
        if fault := base_url_fault(url):
            raise ValueError(f"{url!r} is no origin: {fault}")
    return tuple(sorted({origin_of(url) for url in urls}))


class Settings(EgressSettings):
    """Every setting; the environment variable is the name in capitals behind `INTEGRATIONS_MCP_`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    home: Path = Field(
        default_factory=lambda: Path.home() / ".integrations-mcp",
        description="Folder for the registry and the key file; made with mode 0700.",
    )
    database_url: str = Field(
        default="", description="Registry: sqlite:///PATH or postgresql://...; empty is registry.db in the home folder."
    )
    config: Path | None = Field(
        default=None,
        description="A file, or a folder of files, that is the registry of the workspace: its integrations are builtin, and it is loaded again when it changes.",
    )
    workspace: str = Field(default="default", pattern=WORKSPACE_ID, description="The workspace of stdio and the CLI.")
    secret_key: SecretStr | None = Field(
        default=None,
        description="Key of the local secret store, 32 bytes in base64; empty is the file secret.key in the home folder.",
    )
    secret_store: Literal["local", "environment", "ssm"] = Field(
        default="local",
        description="Where secrets are kept. `ssm` is AWS Parameter Store (needs the extra aws). `environment` reads INTEGRATIONS_SECRET_* and is for local use (stdio); a server must be told so by this setting.",
    )
    ssm_region: str = Field(default="", description="AWS region of Parameter Store; empty is AWS's own configuration.")
    ssm_endpoint_url: str = Field(
        default="", description="Another endpoint than AWS's own for Parameter Store (VPC endpoints, tests)."
    )
    ssm_kms_key: str = Field(
        default="", description="KMS key (id, ARN or alias) for new parameters; empty is the account's alias/aws/ssm."
    )
    secret_prefix: str = Field(
        default="gw",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="First segment of the paths of provisioned secrets.",
    )
    secret_paths_allow: tuple[AllowedSecretPathSetting, ...] = Field(
        default=(),
        description='JSON list of {"workspace","path","origins"}: secret paths that integrations may name; a path that ends in / covers all under it.',
    )
    gcp_identity_allow: tuple[GcpIdentitySetting, ...] = Field(
        default=(),
        description='JSON list of {"workspace","audience","service_account","origins"}: who may use this process\'s own AWS or Kubernetes identity at Google (gcp_wif), for exactly which provider and service account ("" for none); origins are where the token may go beside googleapis.com.',
    )
    gcp_kubernetes_token_file: Path | None = Field(
        default=None,
        description="The projected service-account token that is this process's Kubernetes identity at Google; read again for each exchange.",
    )
    allow_private_networks: str = Field(
        default="false", description="true, false, or a comma-separated list of CIDRs that upstreams may live in."
    )
    stdio_allow: tuple[str, ...] = Field(
        default=(), description="JSON list of absolute executables that MCP upstreams over stdio may run."
    )
    mcp_changed_tools: Literal["report", "block"] = Field(
        default="report",
        description="What happens to a tool that an MCP upstream describes otherwise than when it was first seen: health reports it, or it is also withdrawn until somebody saves the integration again.",
    )
    suspicious_tools: Literal["report", "block"] = Field(
        default="report",
        description="What happens to a tool of an MCP upstream, or an operation of an import, whose text holds hidden characters, look-alikes or instructions to the model: health, lint and the import report it, or it is also withheld.",
    )
    test_requires: Literal["execute", "view"] = Field(
        default="execute", description="What testing a method other than GET needs besides Integration.view."
    )
    public_url: str = Field(default="", description="The URL under which clients reach this server, for what is shown.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one and prints it.")
    workers: int = Field(default=1, ge=1, le=64, description="Server processes.")
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="JSON list of further Host headers that are accepted (name or name:port, name:* for any port).",
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(), description="JSON list of further Origin headers that are accepted."
    )
    identity_providers: tuple[IdentityProvider, ...] = Field(
        default=(),
        description="JSON list of issuers whose access tokens are taken beside API keys; needs PUBLIC_URL. See docs/oauth.md.",
    )
    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, description="Largest request body that is read.")
    max_connections: int = Field(
        default=5000, ge=1, le=1_000_000, description="Connections of clients that one process holds open."
    )
    client_seconds: float = Field(
        default=30,
        gt=0,
        le=600,
        description="How long a client may take to send a request whole, or to take more of an answer; calls aren't limited by it.",
    )
    grace_seconds: float = Field(default=10, ge=0, le=600, description="How long SIGTERM lets running calls end.")
    result_budget: int = Field(
        default=40_000,
        ge=0,
        description="Characters of a result before it is cut; 0 never cuts (endpoints' own limits hold).",
    )
    queue_wait: float = Field(
        default=40,
        ge=0,
        le=600,
        description="Seconds that a call of a queue endpoint, and get_result, wait for the answer; hosts give up at 60.",
    )
    history_days: int = Field(default=30, ge=0, le=3650, description="How long calls are kept; 0 keeps none.")
    audit_days: int = Field(default=365, ge=1, le=3650, description="How long management changes are kept.")
    record_arguments: bool = Field(
        default=False, description="Keep the arguments of calls in the history, with secrets masked."
    )
    tool_name_max: int = Field(default=48, ge=24, le=64, description="Longest tool name.")
    tools_page_size: int = Field(default=1000, ge=1, le=1000, description="Tools on one page of tools/list.")
    catalog_tools: int = Field(
        default=200_000,
        ge=1_000,
        description="Tools kept in memory by each process, about 10 KB each and 23 KB once called; the workspaces unused for longest go first.",
    )
    fast_path: bool = Field(
        default=True,
        description="Answer plain tools/call and tools/list without the MCP SDK's per-request cost; the same answers.",
    )
    tool_mode: Literal["all", "search", "auto"] = Field(
        default="all",
        description="What tools/list shows: all tools; only pinned ones with find_tools and call_tool (search); or that beyond 60 tools or 15,000 tokens (auto).",
    )
    pinned_tools: tuple[str, ...] = Field(
        default=(),
        description="JSON list of tool names that a searched list shows all the same; * stands for anything.",
    )
    inline_secrets_over_mcp: bool = Field(
        default=False, description="Let management tools take secrets as arguments, where they pass through a model."
    )
    metrics_token: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Who sends it as a Bearer token may read /metrics; empty: there is no /metrics.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="Log lines on stderr; commands that don't serve write warnings only unless it is set.",
    )

    @property
    def registry_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'registry.db'}"

    @property
    def allowed_secret_paths(self) -> tuple[AllowedSecretPath, ...]:
        return tuple(AllowedSecretPath(e.workspace, e.path, e.origins) for e in self.secret_paths_allow)

    @property
    def allowed_identities(self) -> tuple[AllowedIdentity, ...]:
        return tuple(
            AllowedIdentity(e.workspace, e.audience, e.service_account, e.origins) for e in self.gcp_identity_allow
        )

    @property
    def private_networks(self) -> bool | tuple[Network, ...]:
        text = self.allow_private_networks.strip().lower()
        if text in ("true", "1", "yes"):
            return True
        if text in ("false", "0", "no", ""):
            return False
        return networks_of(text.split(","))

    @field_validator("allow_private_networks")
    @classmethod
    def _networks(cls, text: str) -> str:
        if text.strip().lower() not in ("true", "1", "yes", "false", "0", "no", ""):
            networks_of(text.split(","), "true, false or CIDRs like 10.0.0.0/8")
        return text

    @field_validator("gcp_identity_allow")
    @classmethod
    def _identities(cls, entries: tuple[GcpIdentitySetting, ...]) -> tuple[GcpIdentitySetting, ...]:
        if len({(e.workspace, e.audience, e.service_account) for e in entries}) < len(entries):
            raise ValueError("the same workspace, audience and service_account are there twice: make it one entry")
        return entries

    @field_validator("gcp_kubernetes_token_file")
    @classmethod
    def _token_file(cls, file: Path | None) -> Path | None:
        if file is not None and not file.is_absolute():
            raise ValueError(f"{str(file)!r} is not absolute: name the mounted file with its whole path")
        return file

    @field_validator("stdio_allow")
    @classmethod
    def _executables(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not Path(path).is_absolute():
                raise ValueError(f"{path!r} is not absolute: name the executable with its whole path")
        return paths

    @field_validator("public_url")
    @classmethod
    def _public(cls, url: str) -> str:
        if url and not url.startswith(("https://", "http://")):
            raise ValueError("a URL begins with https://")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _providers(self) -> "Settings":
        providers = self.identity_providers
        if providers and not self.public_url:
            raise ValueError(
                f"{ENV_PREFIX}IDENTITY_PROVIDERS needs {ENV_PREFIX}PUBLIC_URL: tokens are for the URL that clients use"
            )
        if len({p.issuer for p in providers}) < len(providers):
            raise ValueError(f"{ENV_PREFIX}IDENTITY_PROVIDERS: an issuer is there twice")
        for url in (u for p in providers for u in (p.issuer, p.jwks_url) if u):
            if not may_fetch(url, self.private_networks is not False):
                raise ValueError(
                    f"{ENV_PREFIX}IDENTITY_PROVIDERS: {url} must be https (http only on this machine, or where "
                    f"{ENV_PREFIX}ALLOW_PRIVATE_NETWORKS allows some)"
                )
        return self


def read_settings(environ: Mapping[str, str] | None = None, **flags: Any) -> Settings:
    """Flags (None: not given) win over the environment. Raises SettingsError with every fault."""
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    unknown: list[str] = []
    for name, text in environ.items():
        if not name.startswith(ENV_PREFIX) or name.removeprefix(ENV_PREFIX) in _CLIENT_ONLY:
            continue
        field = name.removeprefix(ENV_PREFIX).lower()
        if field.upper().removesuffix("_FILE") in FROM_FILES - {field.upper()}:
            if not environ.get(name.removesuffix("_FILE")):  # the value itself wins, as a flag does over it
                values[field.removesuffix("_file")] = _from_file(name, text)
            continue
        if field not in Settings.model_fields:
            close = nearest(field, Settings.model_fields)
            unknown.append(
                f"{name} is not a setting" + (f"; did you mean {ENV_PREFIX}{close.upper()}?" if close else "")
            )
        elif text != "" or field in ("database_url", "public_url"):
            values[field] = _from_text(field, text)
    if unknown:
        raise SettingsError("; ".join(unknown))
    values.update({k: v for k, v in flags.items() if v is not None})
    try:
        return Settings.model_validate(values)
    except ValidationError as e:
        raise SettingsError(
            "; ".join(
                f"{ENV_PREFIX}{'.'.join(str(p) for p in f['loc']).upper()}: {f['msg'].removeprefix('Value error, ')}"
                for f in e.errors(include_url=False)
            )
        ) from None


def _from_file(name: str, path: str) -> str:
    """One line break at the end isn't part of the value."""
    try:
        return Path(path).read_text("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it isn't text"
        raise SettingsError(f"{name}: {path} can't be read ({why})") from None


_JSON: TypeAdapter[Any] = TypeAdapter(Any)


def _from_text(field: str, text: str) -> Any:
    """Lists are JSON; a plain word is a list of one, so that simple cases need no brackets."""
    if field not in (
        "secret_paths_allow",
        "gcp_identity_allow",
        "stdio_allow",
        "allowed_hosts",
        "allowed_origins",
        "pinned_tools",
        "identity_providers",
        "client_certificates",
        "upstream_hosts_allow",
    ):
        return text
    if not text.lstrip().startswith(("[", "{")):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        return _JSON.validate_json(text)
    except ValidationError:
        raise SettingsError(f"{ENV_PREFIX}{field.upper()}: not valid JSON") from None
