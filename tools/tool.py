"""One endpoint as a tool: what a host sees of it, and the compiled parts of its calls (made at the first call, then kept)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tools.arguments import Arguments, compile_arguments
from tools.callers import Caller
from tools.credentials import Credential
from tools.credentials.authorization import masks_of
from tools.credentials.types import TYPES, CredentialParts
from tools.descriptions import description_of, title_of
from tools.kinds.paths import origin_of, parse_path
from tools.kinds.rest import SECRET_REFERENCE, RestPlan, compile_rest, to_json
from tools.masking import Masker, is_secret_header
from tools.models import ApprovalPolicy, AuthConfig, EndpointConfig, Integration
from tools.naming import tool_name
from tools.published import Published, publish
from tools.shaping import Shaped, Shaper, compile_shaper, shape
from tools.tracing import Called
from tools.upstream import Retry

META = "dev.integrations-mcp/"
Circuit = tuple[str, int, str]
"""What fails as one: an integration's id and version, and an origin."""
DEFAULT_DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class Hints:
    """The four MCP annotations, always set (agents.md 1)."""

    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool

    def entry(self, title: str) -> dict[str, Any]:
        return {
            "title": title,
            "readOnlyHint": self.read_only,
            "destructiveHint": self.destructive,
            "idempotentHint": self.idempotent,
            "openWorldHint": self.open_world,
        }


_BY_METHOD: Mapping[str, Hints] = {
    "GET": Hints(True, False, True, True),
    "POST": Hints(False, False, False, True),
    "PUT": Hints(False, True, True, True),
    "PATCH": Hints(False, True, False, True),
    "DELETE": Hints(False, True, True, True),
}


def hints_of(endpoint: EndpointConfig) -> Hints:
    """What the method implies, overridden by the endpoint's own annotations."""
    base, own = _BY_METHOD[endpoint.method], endpoint.annotations
    if own is None:
        return base
    return Hints(
        base.read_only if own.readOnlyHint is None else own.readOnlyHint,
        base.destructive if own.destructiveHint is None else own.destructiveHint,
        base.idempotent if own.idempotentHint is None else own.idempotentHint,
        base.open_world if own.openWorldHint is None else own.openWorldHint,
    )


def may_repeat(endpoint: EndpointConfig) -> bool:
    """Whether an attempt whose outcome is unknown may be repeated (rules F1): by method, or because the operator says so."""
    own = endpoint.annotations.idempotentHint if endpoint.annotations else None
    return endpoint.method in ("GET", "PUT", "DELETE") or own is True


_OF_ENDPOINT = ("path_names", "arguments", "published", "shaper", "retry", "hints", "static_masks")
"""Compiled parts that an endpoint alone decides."""
_OF_BOTH = ("title", "entry", "entry_json")
_SHOWN_OF_INTEGRATION = ("name", "display_name", "protocol", "approval_policy")


@dataclass(frozen=True, eq=False)
class Tool:
    """An endpoint of an enabled integration. Cheap to make; `cached_property` parts compile when first needed."""

    integration: Integration
    endpoint: EndpointConfig
    name: str
    parts: CredentialParts = field(repr=False)

    @cached_property
    def path_names(self) -> tuple[str, ...]:
        return parse_path(self.endpoint.path).names

    @cached_property
    def arguments(self) -> Arguments:
        return compile_arguments(self.endpoint.input_schema, self.path_names)

    @cached_property
    def published(self) -> Published:
        return publish(self.endpoint.input_schema, self.path_names, path=self.endpoint.path)

    @cached_property
    def plan(self) -> RestPlan:
        return compile_rest(self.endpoint, self.integration.base_url, self.arguments.schema)

    @property
    def secret_headers(self) -> tuple[tuple[str, str], ...]:
        """(name, secret path) of headers that are read when a request is signed."""
        return self.plan.secret_headers

    @cached_property
    def called(self) -> Called:
        """What a trace shows of it."""
        i, e = self.integration, self.endpoint
        method, url = e.method, (e.base_url or i.base_url).rstrip("/") + e.path
        if i.protocol == "mcp":
            method, url = "POST", i.mcp_url or ""
        return Called(self.name, i.protocol, method, url.partition("?")[0])

    @property
    def is_discovered(self) -> bool:
        """Whether its name was found at an upstream and not written by an operator: then it gives way to one that was."""
        return False

    @cached_property
    def shaper(self) -> Shaper:
        return compile_shaper(self.endpoint)

    def shaped(self, arguments: Mapping[str, Any], raw: Any) -> Shaped:
        """A successful answer's value through every stage; raises ShapingFailed."""
        return shape(self.shaper, arguments, raw)

    @cached_property
    def auth(self) -> AuthConfig | None:
        return self.endpoint.auth or self.integration.auth

    @cached_property
    def credential(self) -> Credential | None:
        return TYPES[self.auth.type].make(self.auth, self.parts) if self.auth is not None else None

    @cached_property
    def credential_paths(self) -> tuple[str, ...]:
        return TYPES[self.auth.type].secret_paths(self.auth) if self.auth is not None else ()

    @cached_property
    def static_masks(self) -> tuple[str, ...]:
        """Spellings of secret-looking header values that are written into the endpoint itself (rules A7)."""
        headers = self.endpoint.headers.items()
        return masks_of([v for n, v in headers if is_secret_header(n) and not v.startswith(SECRET_REFERENCE)])

    def masker(self, masks: tuple[str, ...]) -> Masker:
        """What hides these spellings and the endpoint's own; kept, since credentials rarely change."""
        masker = self._maskers.get(masks)
        if masker is None:
            if len(self._maskers) >= 8:
                self._maskers.clear()
            masker = self._maskers[masks] = Masker((*masks, *self.static_masks))
        return masker

    @cached_property
    def _maskers(self) -> dict[tuple[str, ...], Masker]:
        return {}

    @cached_property
    def retry(self) -> Retry:
        config = self.endpoint.retry_config
        return Retry(config.max_retries, frozenset(config.retry_on_status), may_repeat(self.endpoint))

    @cached_property
    def hints(self) -> Hints:
        return hints_of(self.endpoint)

    @cached_property
    def title(self) -> str:
        own = self.endpoint.annotations.title if self.endpoint.annotations else None
        return own or title_of(self.integration.display_name, self.endpoint.name)

    def take_over(self, before: "Tool") -> None:
        """What was compiled of this endpoint at a version before goes on, if the endpoint is the same; a changed one begins anew."""
        # As it is stored: by ==, 1 and true would be the same.
        if type(before) is not type(self) or self.endpoint.model_dump_json() != before.endpoint.model_dump_json():
            return
        names = _OF_ENDPOINT
        if all(getattr(self.integration, n) == getattr(before.integration, n) for n in _SHOWN_OF_INTEGRATION):
            names += _OF_BOTH
        made = vars(before)
        vars(self).update({name: made[name] for name in names if name in made})

    @property
    def writes(self) -> bool:
        return not self.hints.read_only

    @property
    def approval_policy(self) -> ApprovalPolicy:
        return self.endpoint.approval_policy or self.integration.approval_policy

    @property
    def is_surely_read_only(self) -> bool:
        """By the operator's word or the method's, as approval takes it."""
        return not self.writes

    @property
    def needs_approval(self) -> bool:
        """Whether a person must approve each call (rules H5)."""
        return self.approval_policy == "all" or (self.approval_policy == "writes" and not self.is_surely_read_only)

    @cached_property
    def circuit(self) -> Circuit:
        """Calls that the circuit breaker counts together; a changed integration begins anew."""
        return self.integration.id, self.integration.version, origin_of(self._address)

    @property
    def _address(self) -> str:
        return self.endpoint.base_url or self.integration.base_url

    @property
    def deadline_s(self) -> float:
        return self.endpoint.timeout_seconds or DEFAULT_DEADLINE_S

    def is_visible_to(self, caller: Caller) -> bool:
        return caller.may("Integration.execute") and caller.sees(self.integration.id, self.name)

    @cached_property
    def entry(self) -> dict[str, Any]:
        """The tool as `tools/list` shows it (agents.md 2)."""
        e = self.endpoint
        return {
            "name": self.name,
            "title": self.title,
            "description": description_of(
                e,
                returns=self.shaper.names,
                needs_approval=self.needs_approval,
                takes_any_object=not e.input_schema and e.method in ("POST", "PUT", "PATCH"),
            ),
            "inputSchema": self.published.schema,
            "annotations": self.hints.entry(self.title),
            "_meta": self.own_meta,
        }

    @property
    def own_meta(self) -> dict[str, Any]:
        """What we say of it in `_meta`."""
        e = self.endpoint
        meta: dict[str, Any] = {
            f"{META}endpoint": {
                "integration": self.integration.name,
                "endpoint": e.name,
                "protocol": self.integration.protocol,
                "method": e.method,
            },
            f"{META}result_delivery": e.result_delivery,
        }
        if self.approval_policy != "none":
            meta[f"{META}approval"] = self.approval_policy
        if e.max_result_length > 50_000:
            meta["anthropic/maxResultSizeChars"] = min(e.max_result_length, 500_000)
        return meta

    @cached_property
    def entry_json(self) -> bytes:
        return to_json(self.entry)


def tools_of(integration: Integration, parts: CredentialParts, name_limit: int) -> tuple[Tool, ...]:
    """The tools that an integration shows: its endpoints, in the order of their names; none while it is disabled.

    MCP upstreams' are made by `kinds.mcp.mcp_tool`.
    """
    if not integration.enabled:
        return ()
    return tuple(
        Tool(integration, endpoint, tool_name(integration.name, endpoint.name, name_limit), parts)
        for endpoint in sorted(integration.endpoints, key=lambda e: e.name)
    )
