"""Which secrets an integration names, where they may go, and who may say so (rules A1, A2, A7).

Pure: given the new and the stored configuration, the caller, the operator's list and the records of shared secrets, either the
bindings to keep with the row, or the faults.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tools.callers import Caller
from tools.credentials.authorization import secret_fields
from tools.errors import Issue, SecretPathNotAllowed
from tools.kinds.mcp.commands import stdio_origin
from tools.kinds.paths import origin_of
from tools.kinds.rest import SECRET_REFERENCE
from tools.masking import is_secret_header
from tools.models import AuthConfig, Binding, Integration
from tools.registry import SecretRecord
from tools.secrets import MASK, is_under, path_fault


@dataclass(frozen=True, slots=True)
class AllowedSecretPath:
    """An entry of the operator's list: `path` exactly, or everything under it when it ends in "/"; `workspace` "*" is any."""

    workspace: str
    path: str
    origins: tuple[str, ...]

    def covers(self, workspace: str, path: str) -> bool:
        if self.workspace not in ("*", workspace):
            return False
        return is_under(path, self.path) if self.path.endswith("/") else path == self.path


@dataclass(frozen=True, slots=True)
class SecretUse:
    """One place that names a secret: `loc` inside the integration."""

    loc: tuple[str | int, ...]
    path: str


def secret_uses(integration: Integration) -> Iterator[SecretUse]:
    """Every place of an integration that names a secret path."""
    yield from _auth_uses(integration.auth, ("auth",))
    for i, endpoint in enumerate(integration.endpoints):
        yield from _auth_uses(endpoint.auth, ("endpoints", i, "auth"))
        yield from _map_uses(endpoint.headers, ("endpoints", i, "headers"))
    yield from _map_uses(integration.mcp_headers or {}, ("mcp_headers",))
    yield from _map_uses(integration.mcp_env or {}, ("mcp_env",))
    for key in integration.published_keys:
        if key.state == "next":
            yield SecretUse(("auth", "private_key_ssm_param_path"), key.path)


def _auth_uses(auth: AuthConfig | None, loc: tuple[str | int, ...]) -> Iterator[SecretUse]:
    if auth is not None:
        for field, path in secret_fields(auth):
            yield SecretUse((*loc, field), path)


def _map_uses(values: Mapping[str, str], loc: tuple[str | int, ...]) -> Iterator[SecretUse]:
    for name, value in values.items():
        if value.startswith(SECRET_REFERENCE):
            yield SecretUse((*loc, name), value.removeprefix(SECRET_REFERENCE))


def origins_of(integration: Integration) -> tuple[str, ...]:
    """Every origin that this configuration can send something to, sorted."""
    urls = [integration.base_url, integration.mcp_url]
    auths = [integration.auth]
    for endpoint in integration.endpoints:
        urls.append(endpoint.base_url)
        auths.append(endpoint.auth)
    urls += [auth.token_url for auth in auths if auth is not None]
    origins = {origin_of(url) for url in urls if url}
    if integration.mcp_transport == "stdio" and integration.mcp_command:
        origins.add(stdio_origin(integration))
    return tuple(sorted(origins))


def mask_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as answers show them: references stay, values of secret-looking names are `[secret]`."""
    return {n: v if v.startswith(SECRET_REFERENCE) or not is_secret_header(n) else MASK for n, v in headers.items()}


@dataclass(frozen=True, slots=True)
class Bound:
    """What `bind` decided. `rebound` are the paths that were bound to further origins by an owner or admin (audited)."""

    bindings: dict[str, Binding]
    issues: tuple[Issue, ...]
    rebound: tuple[str, ...]


def bind(
    new: Integration,
    *,
    given: frozenset[str],
    stored: Mapping[str, Binding],
    records: Mapping[str, SecretRecord],
    allowed: tuple[AllowedSecretPath, ...],
    caller: Caller,
    prefix: str,
) -> Bound:
    """The bindings of `new`. `given` are paths whose value comes with this write (they are owned and bound anew).

    Raises SecretPathNotAllowed for a path that may not be named at all, whether it exists or not (rules A2).
    """
    origins = origins_of(new)
    bindings: dict[str, Binding] = {}
    issues: list[Issue] = []
    rebound: list[str] = []
    for use in secret_uses(new):
        loc = ("body", *use.loc)
        if fault := path_fault(use.path):
            issues.append(Issue(loc, fault))
            continue
        if use.path in bindings:
            continue
        if use.path in given:
            bindings[use.path] = Binding(origins=origins, owned=True)
            continue
        binding = stored.get(use.path) or _named(new, use.path, origins, records, allowed, caller, prefix)
        further = [o for o in origins if o not in binding.origins]
        if further and (
            caller.is_admin and not _has_fixed_origins(use.path, new.workspace_id, allowed, prefix, caller)
        ):
            binding = binding.model_copy(update={"origins": tuple(sorted({*binding.origins, *origins}))})
            rebound.append(use.path)
        elif further:
            issues.append(
                Issue(
                    loc,
                    f"this secret was not given for {', '.join(further)}: give its value again with this change, or let an owner "
                    "or admin make it",
                    "secret_rebind_required",
                )
            )
        bindings[use.path] = binding
    return Bound(bindings, tuple(issues), tuple(rebound))


def _named(
    new: Integration,
    path: str,
    origins: tuple[str, ...],
    records: Mapping[str, SecretRecord],
    allowed: tuple[AllowedSecretPath, ...],
    caller: Caller,
    prefix: str,
) -> Binding:
    """A path that this integration names for the first time."""
    if caller.names_any_secret:
        return Binding(origins=origins)
    if is_under(path, f"/{prefix}/{new.workspace_id}/shared") and (record := records.get(path)) is not None:
        return Binding(origins=record.origins)
    for entry in allowed:
        if entry.covers(new.workspace_id, path):
            return Binding(origins=entry.origins)
    raise SecretPathNotAllowed(
        f"this integration may not use the secret path {path}. It may use its own (give the value inline), "
        f"/{prefix}/{new.workspace_id}/shared/... that an owner or admin stored, and those that the operator allows."
    )


def _has_fixed_origins(
    path: str, workspace: str, allowed: tuple[AllowedSecretPath, ...], prefix: str, caller: Caller
) -> bool:
    """Shared and operator-listed secrets go where their own entry says: an admin changes the entry, not the integration."""
    if caller.names_any_secret:
        return False
    return is_under(path, f"/{prefix}/{workspace}/shared") or any(e.covers(workspace, path) for e in allowed)


def provisioned_path(prefix: str, workspace: str, integration_id: str, field: str) -> str:
    """Where an inline value is kept: `/{prefix}/{workspace}/integrations/{integration id}/{field}`."""
    return f"/{prefix}/{workspace}/integrations/{integration_id}/{field}"
