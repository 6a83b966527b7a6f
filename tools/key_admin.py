"""Management of API keys: who may make, see, rotate and end them. Nobody gives a key more than his own (rules H4)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from tools.callers import ROLE_PERMISSIONS, Caller, Permission, Role
from tools.errors import InvalidRequest, Issue, NotFound
from tools.history import Action, History, change_record
from tools.registry import ApiKey, KeyStore, Registry


class IssuedKey(Protocol):
    """A key just made: the only moment at which `api_key` is known."""

    @property
    def api_key(self) -> str: ...

    @property
    def row(self) -> ApiKey: ...


class KeyIssuer(Protocol):
    """Makes and ends keys; all raise StorageUnavailable."""

    async def create(
        self,
        workspace: str,
        *,
        role: Role = "member",
        name: str = "",
        permissions: Sequence[Permission] | None = None,
        integrations: Sequence[str] | None = None,
        tools: Sequence[str] | None = None,
        days: int | None = None,
        by: Caller | None = None,
    ) -> IssuedKey:
        """Raises Forbidden for more than `by` has."""
        ...

    async def rotate(self, workspace: str, key_id: str, by: Caller | None = None) -> IssuedKey:
        """Raises NotFound, Forbidden."""
        ...

    async def revoke(self, workspace: str, key_id: str) -> None:
        """Raises NotFound."""
        ...


class KeyAdmin:
    """The operations on a workspace's keys."""

    def __init__(self, issuer: KeyIssuer, store: KeyStore, registry: Registry, history: History) -> None:
        self._issuer, self._store, self._registry, self._history = issuer, store, registry, history

    async def create(
        self,
        caller: Caller,
        *,
        days: int | None,
        name: str = "",
        role: Role = "member",
        permissions: Sequence[Permission] | None = None,
        integrations: Sequence[str] | None = None,
        tools: Sequence[str] | None = None,
    ) -> IssuedKey:
        """`integrations` are ids or names; `days` None never expires. Raises InvalidRequest, Forbidden."""
        caller.require("ApiKey.create")
        beyond = sorted(set(permissions or ()) - ROLE_PERMISSIONS[role])
        if beyond:
            raise InvalidRequest(
                [Issue(("body", "permissions"), f"the role {role} doesn't have {', '.join(beyond)}", "value_error")]
            )
        made = await self._issuer.create(
            caller.workspace,
            role=role,
            name=name,
            permissions=permissions,
            integrations=None if integrations is None else await self._ids(caller, integrations),
            tools=tools,
            days=days,
            by=caller,
        )
        self._told(caller, "api_key.create", made.row.id, made.row)
        return made

    async def page(self, caller: Caller, limit: int, offset: int) -> tuple[list[ApiKey], int]:
        """(keys, total), newest first."""
        caller.require("ApiKey.view")
        return await self._store.keys(caller.workspace, limit, offset)

    async def rotate(self, caller: Caller, key_id: str) -> IssuedKey:
        """A new key with the old one's rights, which ends in the same moment. Raises NotFound, Forbidden."""
        caller.require("ApiKey.create")
        made = await self._issuer.rotate(caller.workspace, key_id, caller)
        self._told(caller, "api_key.rotate", key_id, made.row)
        return made

    async def revoke(self, caller: Caller, key_id: str) -> None:
        """Raises NotFound."""
        caller.require("ApiKey.delete")
        row = await self._store.get_key(caller.workspace, key_id)
        await self._issuer.revoke(caller.workspace, key_id)
        self._told(caller, "api_key.delete", key_id, row)

    async def _ids(self, caller: Caller, refs: Sequence[str]) -> list[str]:
        found: list[str] = []
        for i, ref in enumerate(refs):
            try:
                integration = await self._registry.get(caller.workspace, ref)
            except NotFound:
                integration = None
            if integration is None or (caller.integrations is not None and integration.id not in caller.integrations):
                raise InvalidRequest(
                    [Issue(("body", "integrations", i), "there is no such integration", "value_error")]
                )
            found.append(integration.id)
        return found

    def _told(self, caller: Caller, action: Action, key_id: str, row: ApiKey) -> None:
        rights = {
            "id": row.id,
            "role": row.role,
            "permissions": sorted(row.permissions),
            "integrations": None if row.integrations is None else sorted(row.integrations),
            "tools": None if row.tools is None else sorted(row.tools),
            "expires_at": None if row.expires_at is None else row.expires_at.isoformat(),
        }
        gone = action == "api_key.delete"
        change = {"at": "", "before": rights if gone else None, "after": None if gone else rights}
        self._history.change(change_record(caller, datetime.now(UTC), action, "api_key", key_id, row.name, [change]))
