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

from tools.bindings import AllowedSecretPath, bind, provisioned_path, secret_uses
from tools.callers import Caller
from tools.checks import CheckRules, GoodEndpoints, check, check_inline, inline_values
from tools.errors import (
    BuiltinReadOnly,
    InvalidRequest,
    Issue,
    NameTaken,
    NotFound,
    SecretNotFound,
    StorageUnavailable,
    VersionMismatch,
)
from tools.generated_keys import with_generated_key, without_kept_key
from tools.kept_values import (
    keep_headers,
    keep_secrets,
    keep_values,
    kept_elsewhere,
    kept_in_process,
    kept_without_value,
)
from tools.models import (
    AuthConfig,
    AuthConfigWithSecrets,
    Binding,
    CreateIntegrationRequest,
    Integration,
    UpdateIntegrationRequest,
)
from tools.naming import tool_name
from tools.registry import Registry, SecretRecord
from tools.secrets import SecretStore
from tools.signing_keys import key_paths, merged, pinned, public_of

LEASE = timedelta(seconds=60)
"""A write stores its values and commits its row within this time, or fails."""
OLD_VERSION_LIFE = timedelta(seconds=660)
"""How long a replaced value stays for calls that began before: the longest deadline and a minute."""
_NULLABLE = frozenset(
    {"auth", "mcp_transport", "mcp_command", "mcp_args", "mcp_url", "mcp_headers", "mcp_env", "limits"}
)
_ATTEMPTS = 10
_TOO_OFTEN = "this integration is being changed too often at the moment; try again"

Commit = Callable[[Integration, Mapping[str, datetime | None]], Awaitable[None]]
Changed = tuple[Integration, Mapping[str, str]]
"""The integration as it shall be, and by path the values to provision for it."""
Step = Callable[[Integration], Changed | None]


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
        self._good = GoodEndpoints()

    async def create(self, caller: Caller, request: CreateIntegrationRequest) -> Written:
        """Raises InvalidRequest, NameTaken, SecretPathNotAllowed, StorageUnavailable."""
        try:
            draft = await self.draft_create(caller, request)
            after = await self._provision(draft, None, self._registry.insert)
        except InvalidRequest:
            # Of several at once with one name, the others' tools clash with the first's: the name is what to tell.
            if await self._is_taken(caller.workspace, request.name):
                raise _name_taken(request.name) from None
            raise
        return Written(None, after)

    async def draft_create(self, caller: Caller, request: CreateIntegrationRequest) -> _Draft:
        """Everything of a create but the writing; raises as `create` does. Also what `validate_only` runs."""
        if await self._is_taken(caller.workspace, request.name):
            raise _name_taken(request.name)
        now = self._now()
        workspace = await self._registry.ensure_workspace(caller.workspace)
        integration_id = str(uuid.uuid4())
        fields = {name: getattr(request, name) for name in type(request).model_fields if name != "auth"}
        asked = await with_generated_key(request.auth)
        auth, values = self._with_paths(asked, workspace, integration_id)
        new = Integration(
            **fields,
            auth=auth,
            id=integration_id,
            workspace_id=workspace,
            builtin=self._builtin,
            created_at=now,
            updated_at=now,
        )
        issues = check_inline(asked, ("body", "auth"), workspace, self._rules) if asked else []
        issues += kept_without_value(new)
        return await self._draft(caller, new, values, None, issues)

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

            try:
                after = await self._provision(draft, current, self._replacing(current))
            except VersionMismatch:
                if if_match is not None:
                    raise
                continue
            return Written(current, after, draft.rebound)
        raise StorageUnavailable(_TOO_OFTEN)

    async def change(self, workspace: str, ref: str, step: Step) -> Written | None:
        """What the gateway itself changes in a row (its keys, where a secret may go); None when `step` had nothing to do."""
        for _ in range(_ATTEMPTS):
            current = await self._registry.get(workspace, ref)
            changed = step(current)
            if changed is None:
                return None
            try:
                after = await self._provision(_Draft(*changed, ()), current, self._replacing(current))
            except VersionMismatch:
                continue
            return Written(current, after)
        raise StorageUnavailable(_TOO_OFTEN)

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
            asked = await with_generated_key(without_kept_key(request.auth, current))
            if asked is not None:
                issues += check_inline(asked, ("body", "auth"), current.workspace_id, self._rules)
                asked = keep_secrets(asked, current.auth)
            auth, values = self._with_paths(asked, current.workspace_id, current.id)
        if "endpoints" in fields:
            fields["endpoints"], missing = keep_headers(fields["endpoints"], current.endpoints)
            issues += missing
        for name in ("mcp_headers", "mcp_env"):
            if isinstance(fields.get(name), dict):
                fields[name], missing = keep_values(fields[name], getattr(current, name) or {}, ("body", name))
                issues += missing
        new = current.model_copy(
            update={
                **fields,
                "auth": auth,
                "updated_at": max(self._now(), current.updated_at),
                "version": current.version + 1,
            }
        )
        issues += kept_elsewhere(current, new, caller) + kept_in_process(current, new, caller)
        return await self._draft(caller, new, values, current, issues)

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
        before: Integration | None,
        issues: list[Issue],
    ) -> _Draft:
        stored: Mapping[str, Binding] = before.bindings if before is not None else {}
        names = [tool_name(new.name, e.name, self._rules.tool_name_max) for e in new.endpoints]
        taken = await self._registry.names_taken(new.workspace_id, names, new.id)
        issues = issues + check(new, (), self._rules, taken, self._good)
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
        new = await self._with_published_keys(new.model_copy(update={"bindings": bound.bindings}), values, before)
        return _Draft(new, values, bound.rebound)

    async def _with_published_keys(
        self, new: Integration, values: Mapping[str, str], before: Integration | None
    ) -> Integration:
        """Public parts of the private keys (rules D1): read here, so that publishing them never needs the store."""
        known = dict(key_paths(before)) if before is not None else {}
        found: dict[str, dict[str, str] | None] = {}
        for path, auth in key_paths(new):
            if path in values:
                found[path] = public_of(auth, values[path])
            elif known.get(path) != auth:
                try:
                    found[path] = public_of(auth, (await self._secrets.read(path, new.bindings[path].version)).value)
                except SecretNotFound:
                    found[path] = None  # it can be stored later; a write of the auth publishes it then
        new = new.model_copy(update={"published_keys": merged(new, found, values, self._now())})
        used = {use.path for use in secret_uses(new)}
        return new.model_copy(update={"bindings": {p: b for p, b in new.bindings.items() if p in used}})

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
        commit: Commit,
    ) -> Integration:
        """Stores the values, then commits the row; whatever fails, nothing stays behind."""
        new = draft.integration
        written: dict[str, str] = {}
        committing: asyncio.Future[None] | None = None
        try:
            async with asyncio.timeout(LEASE.total_seconds() / 2):
                if draft.values:
                    await self._registry.schedule_sweep(list(draft.values), self._now() + LEASE)
                for path, value in draft.values.items():
                    written[path] = await self._secrets.write(path, value)
                new = pinned(new, written)
                committing = asyncio.ensure_future(commit(new, self._sweeps(new, before)))
                await asyncio.shield(committing)
        except BaseException as e:
            await asyncio.shield(self._undo(written, committing))
            self._changed(new.workspace_id)
            if isinstance(e, TimeoutError) and not _was_made(committing):
                raise StorageUnavailable(
                    "the registry or the secret store is too slow at the moment; nothing was changed"
                ) from None
            if not isinstance(e, TimeoutError):
                raise
        self._changed(new.workspace_id)
        return new

    def _replacing(self, current: Integration) -> Commit:
        async def commit(integration: Integration, sweeps: Mapping[str, datetime | None]) -> None:
            await self._registry.replace(integration, current.version, sweeps)

        return commit

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

    async def _undo(self, written: Mapping[str, str], committing: asyncio.Future[None] | None) -> None:
        """Removes what was stored for a row that wasn't written. A commit that was cut off may still have been made."""
        if committing is not None:
            done, _ = await asyncio.wait([committing], timeout=LEASE.total_seconds() / 4)
            if not done or _was_made(committing):
                return  # its row refers to what was stored, or may yet: the sweep will know
        try:
            for path, version in written.items():
                await self._secrets.remove(path, [version])
        except StorageUnavailable:
            return  # the sweep is scheduled: it removes what we can't now

    async def _is_taken(self, workspace: str, name: str) -> bool:
        try:
            return (await self._registry.get(workspace, name)).name == name
        except NotFound:
            return False

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


def _was_made(committing: "asyncio.Future[None] | None") -> bool:
    return (
        committing is not None and committing.done() and not committing.cancelled() and committing.exception() is None
    )


def _name_taken(name: str) -> NameTaken:
    return NameTaken(f"there is an integration named {name} already; update it or choose another name")
