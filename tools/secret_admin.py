"""Management of shared secrets: values that several integrations of a workspace name by path (rules A2).

Written by an owner or admin, with the origins that they may go to; nobody reads a value back.
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
        _require(caller)
        path = self.root(caller) + name
        issues: list[Issue] = []
        if fault := path_fault(path):
            issues.append(Issue(("path", "name"), fault, "value_error", name, True))
        if fault := value_fault(value):
            issues.append(Issue(("body", "value"), fault))
        issues += [
            Issue(("body", "origins", i), fault, "url")
            for i, url in enumerate(origins)
            if (fault := base_url_fault(url))
        ]
        if issues:
            raise InvalidRequest(issues)
        now = datetime.now(UTC)
        before = await self._registry.secret_record(path)
        old = await self._secrets.versions(path)
        made = SecretRecord(
            path,
            caller.workspace,
            tuple(sorted({origin_of(url) for url in origins})),
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
        root = self.root(caller)
        found = [r for r in await self._registry.secret_records(caller.workspace) if r.path.startswith(root)]
        return found[offset : offset + limit], len(found)

    async def delete(self, caller: Caller, name: str) -> None:
        """Integrations that still name it fail from now on, in other processes within a minute. Raises NotFound."""
        _require(caller)
        path = self.root(caller) + name
        before = None if path_fault(path) else await self._registry.secret_record(path)
        if before is None:
            raise NotFound("there is no such shared secret in this workspace")
        await self._secrets.remove(path, await self._secrets.versions(path))
        await self._registry.delete_secret_record(path)
        self._written(path)
        self._told(caller, "secret.delete", before, None)

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
