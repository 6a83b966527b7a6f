"""Values that a write keeps instead of giving them again: the stored secret of an auth, `[secret]` in headers (rules A1, A7)."""

from collections.abc import Mapping

from tools.bindings import origins_of
from tools.callers import Caller
from tools.errors import Issue
from tools.masking import is_secret_header
from tools.models import INLINE_SECRETS, AuthConfig, AuthConfigWithSecrets, EndpointConfig, Integration
from tools.secrets import MASK


def keep_secrets(asked: AuthConfigWithSecrets, current: AuthConfig | None) -> AuthConfigWithSecrets:
    """`auth` of the same type without a secret keeps the stored one (semantics: "update")."""
    if current is None or current.type != asked.type:
        return asked
    kept = {
        path_field: getattr(current, path_field)
        for field, path_field in INLINE_SECRETS.items()
        if getattr(asked, field) is None and path_field not in asked.model_fields_set
    }
    return asked.model_copy(update=kept)


def keep_headers(
    new: tuple[EndpointConfig, ...], current: tuple[EndpointConfig, ...]
) -> tuple[tuple[EndpointConfig, ...], list[Issue]]:
    """`[secret]` in an endpoint's headers means: as it was in the endpoint of this name."""
    before = {e.name: e.headers for e in current}
    endpoints: list[EndpointConfig] = []
    issues: list[Issue] = []
    for i, endpoint in enumerate(new):
        headers, missing = keep_values(
            endpoint.headers, before.get(endpoint.name, {}), ("body", "endpoints", i, "headers")
        )
        issues += missing
        endpoints.append(endpoint.model_copy(update={"headers": headers}))
    return tuple(endpoints), issues


def keep_values(
    new: Mapping[str, str], current: Mapping[str, str], loc: tuple[str | int, ...]
) -> tuple[dict[str, str], list[Issue]]:
    kept: dict[str, str] = {}
    issues: list[Issue] = []
    for name, value in new.items():
        if value == MASK:
            if name not in current:
                issues.append(
                    Issue((*loc, name), f"{MASK} means keep, but there was no value to keep; write the value")
                )
                continue
            value = current[name]
        kept[name] = value
    return kept, issues


def kept_without_value(new: Integration) -> list[Issue]:
    """`[secret]` in a create: there is nothing to keep."""
    issues: list[Issue] = []
    for i, endpoint in enumerate(new.endpoints):
        issues += keep_values(endpoint.headers, {}, ("body", "endpoints", i, "headers"))[1]
    issues += keep_values(new.mcp_headers or {}, {}, ("body", "mcp_headers"))[1]
    issues += keep_values(new.mcp_env or {}, {}, ("body", "mcp_env"))[1]
    return issues


def kept_in_process(current: Integration, new: Integration, caller: Caller) -> list[Issue]:
    """A program's other variables can say where a secret goes (its server's URL, a proxy): who changes one gives the secrets again."""
    if caller.is_admin or new.mcp_transport != "stdio":
        return []
    before, now = current.mcp_env or {}, new.mcp_env or {}
    changed = sorted(name for name, value in now.items() if before.get(name) != value)
    return [
        Issue(
            ("body", "mcp_env", name),
            f"this value was not given for a program that runs with another {', '.join(changed)}: write it again, or let an owner "
            "or admin make the change",
            "secret_rebind_required",
        )
        for name, value in now.items()
        if changed and name not in changed and (is_secret_header(name) or value.startswith("secret:"))
    ]


def kept_elsewhere(current: Integration, new: Integration, caller: Caller) -> list[Issue]:
    """A secret-looking value of a header or variable that is kept may not go to an origin that it was not written for (rules A1, A7)."""
    if caller.is_admin:
        return []
    further = sorted(set(origins_of(new)) - set(origins_of(current)))
    if not further:
        return []
    before = {e.name: e.headers for e in current.endpoints}
    places = [
        (("body", "endpoints", i, "headers", n), v, before.get(e.name, {}).get(n))
        for i, e in enumerate(new.endpoints)
        for n, v in e.headers.items()
    ]
    places += [
        (("body", "mcp_headers", n), v, (current.mcp_headers or {}).get(n)) for n, v in (new.mcp_headers or {}).items()
    ]
    places += [(("body", "mcp_env", n), v, (current.mcp_env or {}).get(n)) for n, v in (new.mcp_env or {}).items()]
    return [
        Issue(
            loc,
            f"this value was not given for {', '.join(further)}: write it again, or let an owner or admin make the change",
            "secret_rebind_required",
        )
        for loc, value, old in places
        if is_secret_header(str(loc[-1])) and value == old and not value.startswith("secret:")
    ]
