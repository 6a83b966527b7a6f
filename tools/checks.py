"""Everything that is checked when an integration is written, so that a bad one fails now and not at a call (semantics: "create").

`check` returns all faults at once with their place in the body; nothing is sent and no name is resolved.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from tools.address_guard import NetworkPolicy, check_url
from tools.credentials.authorization import secret_fields
from tools.credentials.gcp_wif import account_faults, identity_faults, uses_own_identity
from tools.credentials.keys import key_faults
from tools.credentials.own_identity import NOBODY, OwnIdentity, may_go_to
from tools.credentials.token_url import token_url_faults
from tools.credentials.types import TYPES
from tools.errors import Issue
from tools.host_list import ALL_HOSTS, HostList
from tools.json_schema import Schema, effective_schema
from tools.kinds.fhir.interactions import faults_of
from tools.kinds.mcp.commands import require_allowed, variable_faults
from tools.kinds.paths import base_url_fault, origin_of, parse_path
from tools.kinds.rest import SECRET_REFERENCE, PlanRefused, compile_rest, split_headers
from tools.models import (
    INLINE_SECRETS,
    MAX_HEADERS,
    MAX_TEMPLATE_BYTES,
    AuthConfig,
    AuthConfigWithSecrets,
    EndpointConfig,
    Integration,
)
from tools.naming import RESERVED, tool_name
from tools.published import PublishRefused, publish
from tools.schemas import check_schema
from tools.secrets import path_fault, value_fault
from tools.shaping import ShapeSyntaxError, compile_shaper

Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class CheckRules:
    """What of the operator's settings the checks need."""

    network: NetworkPolicy
    tool_name_max: int = 48
    stdio_allow: tuple[str, ...] = ()
    public_url: str = ""
    own_identity: OwnIdentity = NOBODY
    hosts: HostList = ALL_HOSTS


class GoodEndpoints:
    """Endpoints that were found without a fault, by everything that their check looks at.

    A write checks its integration whole, and in the event loop: of 1,000 endpoints mostly all but one were checked before.
    Those with an address or auth of their own are always looked at: what the guard says of an address can change.
    """

    def __init__(self, most: int = 20_000) -> None:
        self._most = most
        self._known: set[bytes] = set()

    def key(self, integration: Integration, endpoint: EndpointConfig) -> bytes | None:
        if endpoint.base_url is not None or endpoint.auth is not None:
            return None
        # repr and not JSON, which has one spelling for several values (NaN and null, 1 and "1" as keys).
        seen = repr((integration.protocol, integration.base_url, endpoint))
        return blake2b(seen.encode("utf-8", "surrogatepass"), digest_size=32).digest()

    def __contains__(self, key: bytes | None) -> bool:
        return key in self._known

    def add(self, key: bytes | None) -> None:
        if key is not None:
            if len(self._known) >= self._most:
                self._known.clear()
            self._known.add(key)


def check(
    integration: Integration,
    others: Iterable[Integration],
    rules: CheckRules,
    taken: Mapping[str, tuple[str, str]] = {},
    good: GoodEndpoints | None = None,
) -> list[Issue]:
    """All faults of one integration as it would be stored. Raises CommandNotAllowed, whatever else is wrong.

    Its names may not be those of `others`, nor be `taken`: name in lower case -> (integration, endpoint). What is in `good`
    isn't looked at again; what proves to be good is put there.
    """
    good = GoodEndpoints() if good is None else good
    require_allowed(integration, rules.stdio_allow)
    return [
        *_check_protocol(integration, rules),
        *_check_auth(integration.auth, ("body", "auth"), integration.base_url, rules),
        *_check_identity(integration, rules),
        *unreached(integration, rules.hosts),
        *_check_names(integration, others, taken, rules.tool_name_max),
        *(
            issue
            for i, e in enumerate(integration.endpoints)
            for issue in _check_unknown(integration, i, e, rules, good)
        ),
    ]


def unreached(integration: Integration, hosts: HostList) -> Iterator[Issue]:
    """Every URL of it whose host the operator doesn't let its workspace reach."""
    i = integration
    urls: list[tuple[Loc, str | None]] = [(("base_url",), i.base_url), (("mcp_url",), i.mcp_url)]
    urls.append((("auth", "token_url"), i.auth.token_url if i.auth is not None else None))
    for n, e in enumerate(i.endpoints):
        urls.append((("endpoints", n, "base_url"), e.base_url))
        urls.append((("endpoints", n, "auth", "token_url"), e.auth.token_url if e.auth is not None else None))
    for loc, url in urls:
        if url and (fault := hosts.fault(i.workspace_id, url)):
            yield Issue(("body", *loc), fault, "url")


def check_inline(auth: AuthConfigWithSecrets, loc: Loc, workspace: str, rules: CheckRules) -> list[Issue]:
    """Faults of inline values: size, the value and its path together, values that the type has no use for."""
    issues: list[Issue] = []
    for field, path_field in INLINE_SECRETS.items():
        value = getattr(auth, field)
        if value is None:
            continue
        if getattr(auth, path_field) is not None:
            issues.append(Issue((*loc, field), f"give either {field} or {path_field}, not both"))
        if fault := value_fault(value.value):
            issues.append(Issue((*loc, field, "value"), fault))
    if auth.private_key_value is not None:
        issues += [Issue((*loc, f.field), f.message) for f in key_faults(auth, auth.private_key_value.value)]
    if auth.type == "gcp_wif" and auth.api_key_value is not None:
        found = account_faults(with_stand_ins(auth), auth.api_key_value.value, workspace, rules.own_identity)
        issues += [Issue((*loc, f.field), f.message) for f in found]
    return issues


def with_stand_ins(auth: AuthConfigWithSecrets) -> AuthConfig:
    """As it will be stored, with a stand-in for each path that a value which is given inline will get."""
    fields: dict[str, Any] = {name: getattr(auth, name) for name in AuthConfig.model_fields}
    fields.update(dict.fromkeys(inline_values(auth), "/file/inline/value"))
    return AuthConfig(**fields)


def _check_identity(integration: Integration, rules: CheckRules) -> Iterator[Issue]:
    """A tenant can't speak for another, nor use an identity that isn't lent to him, nor send it elsewhere (rules E1)."""
    i, lent = integration, rules.own_identity
    auths: list[tuple[AuthConfig | None, Loc]] = [(i.auth, ("body", "auth"))]
    auths += [(e.auth, ("body", "endpoints", n, "auth")) for n, e in enumerate(i.endpoints)]
    for auth, loc in auths:
        if auth is not None and auth.type == "gcp_wif":
            faults = identity_faults(auth, i.workspace_id, i.id, rules.public_url, lent)
            yield from (Issue((*loc, f.field), f.message) for f in faults)
    further = [origin for entry in lent.of(i.workspace_id) for origin in entry.origins]
    calls: list[tuple[AuthConfig | None, str | None, Loc]] = [(i.auth, i.base_url, ("body", "base_url"))]
    calls += [(e.auth or i.auth, e.base_url, ("body", "endpoints", n, "base_url")) for n, e in enumerate(i.endpoints)]
    for auth, url, loc in calls:
        if auth is None or not url or not uses_own_identity(auth) or base_url_fault(url):
            continue
        if lent.of(i.workspace_id) and not may_go_to(origin_of(url), further):
            yield Issue(
                loc,
                "a token of this gateway's own identity goes to https hosts under googleapis.com, and to origins that the "
                "operator adds to his list",
            )


def _check_protocol(integration: Integration, rules: CheckRules) -> Iterator[Issue]:
    i = integration
    if i.base_url:
        yield from _check_base(i.base_url, ("body", "base_url"), rules.network)
    match i.protocol:
        case "fhir" if not i.base_url:
            yield Issue(
                ("body", "base_url"), "fhir needs base_url: the server's FHIR base, like https://ehr.example.com/fhir"
            )
        case "mcp":
            if i.mcp_transport is None:
                yield Issue(("body", "mcp_transport"), "mcp needs mcp_transport: stdio, sse or http")
            elif i.mcp_transport == "stdio" and not i.mcp_command:
                yield Issue(
                    ("body", "mcp_command"), "mcp over stdio needs mcp_command: the absolute path of the program"
                )
            elif i.mcp_transport != "stdio" and not i.mcp_url:
                yield Issue(("body", "mcp_url"), f"mcp over {i.mcp_transport} needs mcp_url")
        case _:
            pass
    if i.mcp_url:
        yield from _check_base(i.mcp_url, ("body", "mcp_url"), rules.network)
    if i.mcp_headers:
        _, secret, faults = split_headers(i.mcp_headers, ("mcp_headers",))
        yield from (Issue(("body", *f.field), f.message) for f in faults)
        yield from _check_references(secret, ("body", "mcp_headers"))
    if i.mcp_env:
        yield from (
            Issue(("body", "mcp_env", name), fault) for name, fault in variable_faults(i.mcp_env, builtin=i.builtin)
        )
        references = [(n, v) for n, v in i.mcp_env.items() if v.startswith(SECRET_REFERENCE)]
        yield from _check_references(
            ((n, v.removeprefix(SECRET_REFERENCE)) for n, v in references), ("body", "mcp_env")
        )


def _check_base(url: str, loc: Loc, network: NetworkPolicy) -> Iterator[Issue]:
    if fault := base_url_fault(url) or check_url(url, network):
        yield Issue(loc, fault, "url")


def _check_references(secret: Iterable[tuple[str, str]], loc: Loc) -> Iterator[Issue]:
    for name, path in secret:
        if fault := path_fault(path):
            yield Issue((*loc, name), fault)


def _check_auth(auth: AuthConfig | None, loc: Loc, base_url: str, rules: CheckRules) -> Iterator[Issue]:
    if auth is None:
        return
    row = TYPES[auth.type]
    for fault in row.faults(auth):
        yield Issue((*loc, fault.field), fault.message)
    if auth.token_url:
        yield from (
            Issue((*loc, "token_url"), fault, "url") for fault in token_url_faults(auth.token_url, rules.network)
        )
    elif auth.type == "smart_backend_services" and not base_url:
        yield Issue(
            (*loc, "token_url"),
            "smart_backend_services needs token_url, or base_url to discover it from (the FHIR base)",
        )
    for field, path in secret_fields(auth):
        if fault := path_fault(path):
            yield Issue((*loc, field), fault)


def _check_names(
    integration: Integration, others: Iterable[Integration], names: Mapping[str, tuple[str, str]], limit: int
) -> Iterator[Issue]:
    """Tool names are unique in the workspace without regard to case; disabled integrations count."""
    taken: dict[str, str] = dict.fromkeys(RESERVED, "one of the gateway's own tools")
    taken.update({name: f"integration {by}, endpoint {endpoint}" for name, (by, endpoint) in names.items()})
    for other in others:
        for endpoint in other.endpoints:
            taken[tool_name(other.name, endpoint.name, limit).lower()] = (
                f"integration {other.name}, endpoint {endpoint.name}"
            )
    first: dict[str, int] = {}
    for i, endpoint in enumerate(integration.endpoints):
        loc = ("body", "endpoints", i, "name")
        if (before := first.get(endpoint.name)) is not None:
            yield Issue(
                loc, f"endpoints {before} and {i} are both named {endpoint.name}; a name is unique in its integration"
            )
            continue
        first[endpoint.name] = i
        name = tool_name(integration.name, endpoint.name, limit)
        if (by := taken.get(name.lower())) is not None:
            yield Issue(loc, f"its tool would be named {name}, which is taken by {by}")
        taken[name.lower()] = f"endpoint {endpoint.name} (number {i})"


def _check_unknown(
    integration: Integration, i: int, endpoint: EndpointConfig, rules: CheckRules, good: GoodEndpoints
) -> Iterator[Issue]:
    key = good.key(integration, endpoint)
    if key in good:
        return
    issues = list(_check_endpoint(integration, i, endpoint, rules))
    if not issues:
        good.add(key)
    yield from issues


def _check_endpoint(integration: Integration, i: int, endpoint: EndpointConfig, rules: CheckRules) -> Iterator[Issue]:
    loc: Loc = ("body", "endpoints", i)
    if len(endpoint.headers) > MAX_HEADERS:
        yield Issue((*loc, "headers"), f"at most {MAX_HEADERS} headers; these are {len(endpoint.headers)}")
    template = endpoint.result_template
    if template is not None and (size := len(template.encode("utf-8", "replace"))) > MAX_TEMPLATE_BYTES:
        yield Issue(
            (*loc, "result_template"), f"a template has at most {MAX_TEMPLATE_BYTES} bytes; this one has {size}"
        )
        return
    if endpoint.auth is not None:
        yield from _check_auth(endpoint.auth, (*loc, "auth"), endpoint.base_url or integration.base_url, rules)
    _, secret, _ = split_headers(endpoint.headers, ("headers",))
    yield from _check_references(secret, (*loc, "headers"))
    if endpoint.base_url is not None and (fault := check_url(endpoint.base_url, rules.network)):
        yield Issue((*loc, "base_url"), fault, "url")
    try:
        compile_shaper(endpoint)
    except ShapeSyntaxError as e:
        yield from (Issue((*loc, *f.field), f.message) for f in e.faults)
    if integration.protocol == "mcp":
        if not endpoint.path:
            yield Issue((*loc, "path"), "path is the name of the upstream's tool")
        if endpoint.input_schema:
            yield from _check_input_schema(endpoint.input_schema, loc)
        return
    yield from _check_request(integration, endpoint, loc)


def _check_input_schema(schema: Schema, loc: Loc) -> Iterator[Issue]:
    """The schema of an endpoint over an upstream's tool: it has no path and builds no request."""
    faults = check_schema(schema)
    yield from (Issue((*loc, "input_schema", *f.loc), f.message, f.rule) for f in faults)
    if faults:
        return
    try:
        publish(schema)
    except PublishRefused as e:
        yield Issue((*loc, "input_schema", *e.loc), f"{e.message} ({e.rule})", e.rule)


def _check_request(integration: Integration, endpoint: EndpointConfig, loc: Loc) -> Iterator[Issue]:
    if integration.protocol == "fhir":
        yield from (Issue((*loc, *f.field), f.message) for f in faults_of(endpoint, endpoint.input_schema))
    try:
        names = parse_path(endpoint.path).names
    except ValueError as e:
        yield Issue((*loc, "path"), str(e))
        names = ()
    schema_faults = check_schema(endpoint.input_schema, names)
    yield from (Issue((*loc, "input_schema", *f.loc), f.message, f.rule) for f in schema_faults)
    if schema_faults:
        return
    try:
        publish(endpoint.input_schema, names, path=endpoint.path)
    except PublishRefused as e:
        yield Issue((*loc, "input_schema", *e.loc), f"{e.message} ({e.rule})", e.rule)
        return
    try:
        compile_rest(endpoint, integration.base_url, effective_schema(endpoint.input_schema, names))
    except PlanRefused as e:
        for f in e.faults:
            if f.field == ("path",):
                continue  # told above
            where = ("body", "base_url") if f.field[:1] == ("..",) else (*loc, *f.field)
            if where != ("body", "base_url"):  # the integration's own is told once, not at every endpoint
                yield Issue(where, f.message)


def inline_values(auth: AuthConfigWithSecrets | None) -> Mapping[str, str]:
    """path field -> value of what is given inline."""
    if auth is None:
        return {}
    return {path: given.value for field, path in INLINE_SECRETS.items() if (given := getattr(auth, field)) is not None}
