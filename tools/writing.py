"""Writes integrations: checks, binds, provisions and commits together, or not at all (rules A1, A2, A4, A9).

The order of a write, which is what a crash at any point depends on: schedule the sweep of the paths; store the new values as
new versions; commit the row that points to them. What a crash leaves is swept when its lease is over; what a failure leaves is
removed at once.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tools.bindings import AllowedSecretPath, bind, is_secret_header, origins_of, provisioned_path, secret_uses
from tools.callers import Caller
from tools.checks import CheckRules, check, check_inline, inline_values
from tools.errors import BuiltinReadOnly, InvalidRequest, Issue, NameTaken, StorageUnavailable, VersionMismatch
from tools.models import (
    INLINE_SECRETS,
    AuthConfig,
    AuthConfigWithSecrets,
    Binding,
    CreateIntegrationRequest,
    EndpointConfig,
    Integration,
    UpdateIntegrationRequest,
)
from tools.registry import Registry, SecretRecord
from tools.secrets import MASK, SecretStore

LEASE = timedelta(seconds=60)
"""A write stores its values and commits its row within this time, or fails."""
OLD_VERSION_LIFE = timedelta(seconds=660)
"""How long a replaced value stays for calls that began before: the longest deadline and a minute."""
_NULLABLE = frozenset({"auth", "mcp_transport", "mcp_command", "mcp_args", "mcp_url", "mcp_headers", "mcp_env"})
_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did. `before` is None for a create; `rebound` secrets now go to further origins (audited)."""

    before: Integration | None
    after: Integration
    rebound: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Draft:
    """An integration as it will be stored, without the versions of the values to provision."""

    integration: Integration
    values: Mapping[str, str]
    rebound: tuple[str, ...]


class Writer:
    """`changed` hears of each commit. `builtin`: writes for the operator's file, and only that changes what is builtin."""

    def __init__(
        self,
        registry: Registry,
        secrets: SecretStore,
        rules: CheckRules,
        *,
        allowed: tuple[AllowedSecretPath, ...] = (),
        prefix: str = "gw",
        builtin: bool = False,
        changed: Callable[[str], None] = lambda _: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._registry, self._secrets, self._rules = registry, secrets, rules
        self._allowed, self._prefix, self._builtin = allowed, prefix, builtin
        self._changed, self._now = changed, now

    async def create(self, caller: Caller, request: CreateIntegrationRequest) -> Written:
        """Raises InvalidRequest, NameTaken, SecretPathNotAllowed, StorageUnavailable."""
        draft = await self.draft_create(caller, request)
        if await self._is_taken(caller.workspace, request.name):
            raise NameTaken(f"there is an integration named {request.name} already; update it or choose another name")

        async def commit(integration: Integration, sweeps: Mapping[str, datetime | None]) -> None:
            await self._registry.insert(integration, sweeps)

        after = await self._provision(draft, None, commit)
        return Written(None, after)

    async def draft_create(self, caller: Caller, request: CreateIntegrationRequest) -> _Draft:
        """Everything of a create but the writing; raises as `create` does. Also what `validate_only` runs."""
        now = self._now()
        workspace = await self._registry.ensure_workspace(caller.workspace)
        integration_id = str(uuid.uuid4())
        fields = {name: getattr(request, name) for name in type(request).model_fields if name != "auth"}
        auth, values = self._with_paths(request.auth, workspace, integration_id)
        new = Integration(
            **fields,
            auth=auth,
            id=integration_id,
            workspace_id=workspace,
            builtin=self._builtin,
            created_at=now,
            updated_at=now,
        )
        issues = check_inline(request.auth, ("body", "auth")) if request.auth else []
        issues += _kept_without_value(new)
        return await self._draft(caller, new, values, {}, issues)

    async def update(
        self,
        caller: Caller,
        ref: str,
        request: UpdateIntegrationRequest | Callable[[Integration], UpdateIntegrationRequest],
        if_match: int | None = None,
    ) -> Written:
        """Merges and replaces; without `if_match` the last write wins whole. Raises also NotFound, VersionMismatch.

        A function as `request` is given the integration as it is at that moment (for a change of one endpoint).
        """
        for _ in range(_ATTEMPTS):
            current = await self._registry.get(caller.workspace, ref)
            if if_match is not None and current.version != if_match:
                raise VersionMismatch(
                    f"it was changed meanwhile: its version is {current.version}, not {if_match}; read it again"
                )
            fields = request(current) if callable(request) else request
            draft = await self.draft_update(caller, current, fields)

            async def commit(
                integration: Integration, sweeps: Mapping[str, datetime | None], expected: int = current.version
            ) -> None:
                await self._registry.replace(integration, expected, sweeps)

            try:
                after = await self._provision(draft, current, commit)
            except VersionMismatch:
                if if_match is not None:
                    raise
                continue
            return Written(current, after, draft.rebound)
        raise StorageUnavailable("this integration is being changed too often at the moment; try again")

    async def draft_update(self, caller: Caller, current: Integration, request: UpdateIntegrationRequest) -> _Draft:
        """The merged integration, checked like a create."""
        given = {n: getattr(request, n) for n in request.model_fields_set}
        fields: dict[str, Any] = {n: v for n, v in given.items() if n != "auth" and (v is not None or n in _NULLABLE)}
        if current.builtin and not self._builtin and (set(given) - {"enabled"}):
            raise BuiltinReadOnly(f"{current.name} belongs to the operator's file; only enabled can be changed here")
        issues: list[Issue] = []
        values: Mapping[str, str] = {}
        auth = current.auth
        if "auth" in given:
            asked = request.auth
            if asked is not None:
                issues += check_inline(asked, ("body", "auth"))
                asked = _keep_secrets(asked, current.auth)
            auth, values = self._with_paths(asked, current.workspace_id, current.id)
        if "endpoints" in fields:
            fields["endpoints"], missing = _keep_headers(fields["endpoints"], current.endpoints)
            issues += missing
        for name in ("mcp_headers", "mcp_env"):
            if isinstance(fields.get(name), dict):
                fields[name], missing = _keep_values(fields[name], getattr(current, name) or {}, ("body", name))
                issues += missing
        new = current.model_copy(
            update={
                **fields,
                "auth": auth,
                "updated_at": max(self._now(), current.updated_at),
                "version": current.version + 1,
            }
        )
        issues += _kept_elsewhere(current, new, caller)
        return await self._draft(caller, new, values, current.bindings, issues)

    async def delete(self, caller: Caller, ref: str, if_match: int | None = None) -> Integration:
        """The row goes; the secrets provisioned for it go when no running call can need them (rules A9)."""
        current = await self._registry.get(caller.workspace, ref)
        if current.builtin and not self._builtin:
            raise BuiltinReadOnly(f"{current.name} belongs to the operator's file; take it out there")
        owned = [path for path, binding in current.bindings.items() if binding.owned]
        due = self._now() + OLD_VERSION_LIFE
        await self._registry.delete(caller.workspace, current.id, if_match, dict.fromkeys(owned, due))
        self._changed(current.workspace_id)
        return current

    async def sweep(self) -> int:
        """Removes stored values that no row refers to any more, where due; returns how many versions went."""
        removed = 0
        now = self._now()
        for path in await self._registry.due_sweeps(now):
            # Read what is stored before what is referred to: a value stored in between is younger than the lease.
            stored = await self._secrets.versions(path)
            kept = await self._registry.secret_versions(path)
            named = await self._registry.secret_record(path) is not None
            gone = [] if named else [v for v, at in stored.items() if v not in kept and at <= now - LEASE]
            if gone:
                await self._secrets.remove(path, gone)
                removed += len(gone)
            await self._registry.sweep_done(path, now)
        return removed

    # ------------------------------------------------------------------ steps

    async def _draft(
        self,
        caller: Caller,
        new: Integration,
        values: Mapping[str, str],
        stored: Mapping[str, Binding],
        issues: list[Issue],
    ) -> _Draft:
        _, everything = await self._registry.load(new.workspace_id)
        issues = issues + check(new, [i for i in everything if i.id != new.id], self._rules)
        if issues:
            raise InvalidRequest(issues)
        issues = await self._check_key_users(new)
        if issues:
            raise InvalidRequest(issues)
        records = await self._records(new, values, stored)
        bound = bind(
            new,
            given=frozenset(values),
            stored=stored,
            records=records,
            allowed=self._allowed,
            caller=caller,
            prefix=self._prefix,
        )
        if bound.issues:
            raise InvalidRequest(bound.issues)
        return _Draft(new.model_copy(update={"bindings": bound.bindings}), values, bound.rebound)

    async def _check_key_users(self, new: Integration) -> list[Issue]:
        """A key signs for one integration only (rules C4): whoever registered its public part trusts just this one."""
        issues: list[Issue] = []
        for use in secret_uses(new):
            if use.loc[-1] == "private_key_ssm_param_path" and await self._registry.secret_users(use.path) - {new.id}:
                issues.append(
                    Issue(("body", *use.loc), "this key signs for another integration already; make one of its own")
                )
        return issues

    async def _records(
        self, new: Integration, values: Mapping[str, str], stored: Mapping[str, Binding]
    ) -> dict[str, SecretRecord]:
        paths = {use.path for use in secret_uses(new)} - set(values) - set(stored)
        found = {path: await self._registry.secret_record(path) for path in paths}
        return {path: record for path, record in found.items() if record is not None}

    async def _provision(
        self,
        draft: _Draft,
        before: Integration | None,
        commit: Callable[[Integration, Mapping[str, datetime | None]], Awaitable[None]],
    ) -> Integration:
        """Stores the values, then commits the row; whatever fails, nothing stays behind."""
        new = draft.integration
        written: dict[str, str] = {}
        try:
            async with asyncio.timeout(LEASE.total_seconds() / 2):
                if draft.values:
                    await self._registry.schedule_sweep(list(draft.values), self._now() + LEASE)
                for path, value in draft.values.items():
                    written[path] = await self._secrets.write(path, value)
                bindings = {
                    path: b.model_copy(update={"version": written[path]}) if path in written else b
                    for path, b in new.bindings.items()
                }
                new = new.model_copy(update={"bindings": bindings})
                await commit(new, self._sweeps(new, before))
        except BaseException as e:
            await asyncio.shield(self._undo(written))
            if isinstance(e, TimeoutError):
                raise StorageUnavailable(
                    "the registry or the secret store is too slow at the moment; nothing was changed"
                ) from None
            raise
        self._changed(new.workspace_id)
        return new

    def _sweeps(self, new: Integration, before: Integration | None) -> dict[str, datetime | None]:
        """When owned paths are looked at again: never while their only value is in use, later where an old one is left."""
        due = self._now() + OLD_VERSION_LIFE
        old = {p: b for p, b in (before.bindings if before else {}).items() if b.owned}
        sweeps: dict[str, datetime | None] = {
            path: due for path, binding in old.items() if new.bindings.get(path) != binding
        }
        if before is None:
            # Only here: at an update, another writer's crash may be waiting for the same sweep.
            sweeps.update({path: None for path, binding in new.bindings.items() if binding.owned})
        return sweeps

    async def _undo(self, written: Mapping[str, str]) -> None:
        for path, version in written.items():
            try:
                await self._secrets.remove(path, [version])
            except StorageUnavailable:
                return  # the sweep is scheduled: it removes what we can't now

    async def _is_taken(self, workspace: str, name: str) -> bool:
        _, integrations = await self._registry.load(workspace)
        return any(i.name == name for i in integrations)

    def _with_paths(
        self, auth: AuthConfigWithSecrets | None, workspace: str, integration_id: str
    ) -> tuple[AuthConfig | None, dict[str, str]]:
        """The auth config with paths in place of inline values, and path -> value."""
        if auth is None:
            return None, {}
        fields = {n: getattr(auth, n) for n in AuthConfig.model_fields}
        values: dict[str, str] = {}
        for path_field, value in inline_values(auth).items():
            name = path_field.removesuffix("_ssm_param_path") if path_field != "ssm_param_path" else "api_key"
            path = provisioned_path(self._prefix, workspace, integration_id, name)
            fields[path_field] = path
            values[path] = value
        return AuthConfig(**fields), values


def _keep_secrets(asked: AuthConfigWithSecrets, current: AuthConfig | None) -> AuthConfigWithSecrets:
    """`auth` of the same type without a secret keeps the stored one (semantics: "update")."""
    if current is None or current.type != asked.type:
        return asked
    kept = {
        path_field: getattr(current, path_field)
        for field, path_field in INLINE_SECRETS.items()
        if getattr(asked, field) is None and path_field not in asked.model_fields_set
    }
    return asked.model_copy(update=kept)


def _keep_headers(
    new: tuple[EndpointConfig, ...], current: tuple[EndpointConfig, ...]
) -> tuple[tuple[EndpointConfig, ...], list[Issue]]:
    """`[secret]` in an endpoint's headers means: as it was in the endpoint of this name."""
    before = {e.name: e.headers for e in current}
    endpoints: list[EndpointConfig] = []
    issues: list[Issue] = []
    for i, endpoint in enumerate(new):
        headers, missing = _keep_values(
            endpoint.headers, before.get(endpoint.name, {}), ("body", "endpoints", i, "headers")
        )
        issues += missing
        endpoints.append(endpoint.model_copy(update={"headers": headers}))
    return tuple(endpoints), issues


def _keep_values(
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


def _kept_without_value(new: Integration) -> list[Issue]:
    """`[secret]` in a create: there is nothing to keep."""
    issues: list[Issue] = []
    for i, endpoint in enumerate(new.endpoints):
        issues += _keep_values(endpoint.headers, {}, ("body", "endpoints", i, "headers"))[1]
    issues += _keep_values(new.mcp_headers or {}, {}, ("body", "mcp_headers"))[1]
    issues += _keep_values(new.mcp_env or {}, {}, ("body", "mcp_env"))[1]
    return issues


def _kept_elsewhere(current: Integration, new: Integration, caller: Caller) -> list[Issue]:
    """A secret-looking header value that is kept may not go to an origin that it was not written for (rules A1, A7)."""
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
    return [
        Issue(
            loc,
            f"this value was not given for {', '.join(further)}: write it again, or let an owner or admin make the change",
            "secret_rebind_required",
        )
        for loc, value, old in places
        if is_secret_header(str(loc[-1])) and value == old and not value.startswith("secret:")
    ]
