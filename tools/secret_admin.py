"""Management of shared secrets: values that several integrations of a workspace name by path (rules A2).

Written by an owner or admin, with the origins that they may go to; nobody reads a value back. The user at the keyboard, who may
name any path, manages other paths the same way.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from tools.callers import Caller
from tools.errors import Forbidden, InvalidRequest, Issue, NotFound
from tools.history import Action, History, change_record
from tools.kinds.paths import base_url_fault, origin_of
from tools.registry import Registry, SecretRecord
from tools.secrets import MASK, SecretStore, path_fault, value_fault


class SecretAdmin:
    """The operations on `/{prefix}/{workspace}/shared/{name}`; a name may have several segments."""

    def __init__(
        self,
        registry: Registry,
        secrets: SecretStore,
        prefix: str,
        history: History,
        written: Callable[[str], None],
    ) -> None:
        """`written` is told the path of each change, so that calls of this process see it at once."""
        self._registry, self._secrets, self._prefix, self._history = registry, secrets, prefix, history
        self._written = written

    def root(self, caller: Caller) -> str:
        return f"/{self._prefix}/{caller.workspace}/shared/"

    async def put(self, caller: Caller, name: str, value: str, origins: Sequence[str]) -> SecretRecord:
        """Stores or replaces a value. Raises InvalidRequest, Forbidden, StorageUnavailable."""
        return await self.put_at(caller, self.root(caller) + name, value, origins)

    async def put_at(self, caller: Caller, path: str, value: str, origins: Sequence[str]) -> SecretRecord:
        """`put` by the whole path. Without origins those of before stay; a shared secret needs some."""
        _require(caller)
        fault = path_fault(path)
        before = None if fault else await self._registry.secret_record(path)
        self._require_path(caller, path, before)
        issues: list[Issue] = []
        if fault:
            name = path.removeprefix(self.root(caller))
            issues.append(Issue(("path", "name"), fault, "value_error", name, True))
        elif owner := await self._owner(caller, path):
            said = f"this value belongs to integration {owner}: give the new one as a secret of its auth, in an update"
            issues.append(Issue(("path", "name"), said, "value_error"))
        if fault := value_fault(value):
            issues.append(Issue(("body", "value"), fault))
        issues += [
            Issue(("body", "origins", i), fault, "url")
            for i, url in enumerate(origins)
            if (fault := base_url_fault(url))
        ]
        if not origins and before is None and path.startswith(self.root(caller)):
            issues.append(Issue(("body", "origins"), "a shared secret needs at least one origin: where it may go"))
        if issues:
            raise InvalidRequest(issues)
        now = datetime.now(UTC)
        old = await self._secrets.versions(path)
        made = SecretRecord(
            path,
            caller.workspace,
            tuple(sorted({origin_of(url) for url in origins})) if origins else before.origins if before else (),
            before.created_at if before else now,
            now,
        )
        # The record first: should the write fail, the name is listed and can be written again or removed.
        await self._registry.put_secret_record(made)
        await self._secrets.write(path, value)
        await self._secrets.remove(path, old)
        self._written(path)
        self._told(caller, "secret.put", before, made)
        return made

    async def page(self, caller: Caller, limit: int, offset: int) -> tuple[list[SecretRecord], int]:
        """(records, total), by path; never values."""
        _require(caller)
        root = "/" if caller.names_any_secret else self.root(caller)
        found = [r for r in await self._registry.secret_records(caller.workspace) if r.path.startswith(root)]
        return found[offset : offset + limit], len(found)

    async def delete(self, caller: Caller, name: str) -> None:
        """Integrations that still name it fail from now on, in other processes within a minute. Raises NotFound."""
        await self.delete_at(caller, self.root(caller) + name)

    async def delete_at(self, caller: Caller, path: str) -> int:
        """`delete` by the whole path; gives how many integrations still name it."""
        _require(caller)
        before = None if path_fault(path) else await self._registry.secret_record(path)
        self._require_path(caller, path, before)
        if before is None:
            raise NotFound("there is no such shared secret in this workspace")
        users = await self._registry.secret_users(path)
        await self._secrets.remove(path, await self._secrets.versions(path))
        await self._registry.delete_secret_record(path)
        self._written(path)
        self._told(caller, "secret.delete", before, None)
        return len(users)

    def _require_path(self, caller: Caller, path: str, before: SecretRecord | None) -> None:
        foreign = before is not None and before.workspace != caller.workspace
        if foreign or not (caller.names_any_secret or path.startswith(self.root(caller))):
            raise Forbidden("only this workspace's shared secrets can be managed here")

    async def _owner(self, caller: Caller, path: str) -> str | None:
        """The integration whose configuration is pinned to a version of this value: replacing it here would break it (rules A4)."""
        users = await self._registry.secret_users(path)
        for integration in (await self._registry.load(caller.workspace))[1] if users else ():
            if integration.id in users and (binding := integration.bindings.get(path)) and binding.owned:
                return integration.name
        return None

    def _told(self, caller: Caller, action: Action, before: SecretRecord | None, after: SecretRecord | None) -> None:
        row = after or before
        assert row is not None
        change = {"at": "", "before": _rights(before), "after": _rights(after)}
        name = row.path.removeprefix(self.root(caller))
        self._history.change(change_record(caller, datetime.now(UTC), action, "secret", row.path, name, [change]))


def _rights(record: SecretRecord | None) -> dict[str, object] | None:
    return None if record is None else {"value": MASK, "origins": list(record.origins)}


def _require(caller: Caller) -> None:
    if not caller.may("Secret.write") or not caller.is_admin:
        raise Forbidden("shared secrets need the permission Secret.write and the role owner or admin")
    if caller.integrations is not None or caller.tools is not None:
        raise Forbidden("this key is narrowed to some integrations or tools, so it can't manage what all of them share")
