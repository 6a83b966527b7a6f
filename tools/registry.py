"""The Protocols that `server/store` implements: where integrations, API keys and the bookkeeping of secrets are kept.

Every write of an integration raises its workspace's version in the same transaction; the version is what the catalog is
compiled and cached by. All raise StorageUnavailable when the database can't be used; then nothing was changed.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from tools.callers import Permission, Role
from tools.models import Integration, UpstreamTools

SortField = Literal["name", "display_name", "created_at", "updated_at"]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Filters, order and page of a list. `ids` narrows to what the caller may see; None is everything."""

    enabled: bool | None = None
    protocol: str | None = None
    search: str | None = None
    sort: SortField = "created_at"
    descending: bool = True
    limit: int = 10
    offset: int = 0
    ids: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class ListPage:
    """`total` counts what the filters leave."""

    items: tuple[Integration, ...]
    total: int


@dataclass(frozen=True, slots=True)
class SecretRecord:
    """What is known of a secret that a person stored by path: never its value. `workspace` None: the operator's own."""

    path: str
    workspace: str | None
    origins: tuple[str, ...]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key's row: never the key, only its SHA-256 (`hash`). `expires_at` None: never (the operator's CLI only)."""

    id: str
    workspace: str
    name: str
    role: Role
    permissions: frozenset[Permission]
    hash: bytes
    created_at: datetime
    expires_at: datetime | None
    integrations: frozenset[str] | None = None
    tools: frozenset[str] | None = None
    last_used_at: datetime | None = None


class Registry(Protocol):
    """Integrations by workspace. Workspace ids are compared ignoring case."""

    async def ensure_workspace(self, workspace: str) -> str:
        """Makes the workspace if it isn't there; returns its id as first written."""
        ...

    async def version(self, workspace: str) -> int:
        """The workspace's version; 0 where there is no such workspace."""
        ...

    async def load(self, workspace: str, known: Sequence[Integration] = ()) -> tuple[int, tuple[Integration, ...]]:
        """One consistent snapshot: (version, all integrations ordered by name).

        `known` are of a snapshot before: one that has its version still isn't read from its document again.
        """
        ...

    async def get(self, workspace: str, ref: str) -> Integration:
        """By id or name. Raises NotFound."""
        ...

    async def page(self, workspace: str, query: ListQuery) -> ListPage: ...

    async def insert(self, integration: Integration, sweeps: Mapping[str, datetime | None]) -> None:
        """Adds a row, and its workspace where that isn't there yet; `sweeps` as in `replace`. Raises NameTaken."""
        ...

    async def replace(
        self, integration: Integration, expected_version: int, sweeps: Mapping[str, datetime | None]
    ) -> None:
        """Replaces the row whose version is `expected_version`; raises VersionMismatch or NotFound.

        The row's version is `expected_version + 1` afterwards, whatever `integration.version` says; name, created_at and
        what `record_test` keeps stay as they are. `sweeps` sets the moment at which secret paths are due (None: never), in
        the same transaction. That moment must leave other writes of the same path time to end: one that has stored its
        value and not yet its row would lose it.
        """
        ...

    async def delete(
        self, workspace: str, id: str, expected_version: int | None, sweeps: Mapping[str, datetime | None]
    ) -> None:
        """Removes the row; None: at any version. `sweeps` as in `replace`. Raises NotFound, VersionMismatch."""
        ...

    async def names_taken(self, workspace: str, names: Sequence[str], besides: str) -> dict[str, tuple[str, str]]:
        """Which of the tool `names` belong to other integrations than the id `besides`, disabled ones too.

        Name in lower case -> (integration's name, endpoint's name). `insert` and `replace` raise NameTaken for what another
        writer takes in between.
        """
        ...

    async def record_test(self, workspace: str, id: str, at: datetime, status: str) -> None:
        """Keeps when and how test-connection last ended; doesn't raise any version. Raises NotFound."""
        ...

    async def keep_upstream_tools(self, workspace: str, id: str, tools: UpstreamTools) -> None:
        """Keeps what an MCP upstream shows; raises the workspace's version where it differs from what was kept, not the row's.
        Raises NotFound."""
        ...

    async def keys_due(self, now: datetime) -> list[tuple[str, str]]:
        """(workspace, integration id) where a signing key's state changes by itself at `now` or before (rules D2)."""
        ...

    def changes(self, looked: Callable[[], None] = lambda: None) -> AsyncIterator[str]:
        """Workspaces whose version moved, written by this or any other process; latency at most a second.

        Begins with every workspace that was ever written, so that nothing falls between a `load` and the first item.
        Never ends by itself: while the registry can't be used it tells nothing, and afterwards what moved meanwhile.
        `looked` is called after each look at the registry, when all that moved until then has been taken.
        """
        ...

    # -- bookkeeping of secrets: nothing that was provisioned may be lost sight of (rules A4, A9)

    async def schedule_sweep(self, paths: Sequence[str], due: datetime) -> None:
        """Before a value is provisioned: whatever happens, `paths` are looked at again at `due`, or later if they are due
        later already."""
        ...

    async def due_sweeps(self, now: datetime) -> list[str]:
        """Paths that are due at `now`, the longest overdue first."""
        ...

    async def secret_versions(self, path: str) -> set[str]:
        """The versions of `path` that rows pin (rows that take the newest, of secrets they don't own, don't count)."""
        ...

    async def sweep_done(self, path: str, due_before: datetime) -> None:
        """Forgets the sweep of `path` unless it was scheduled anew for after `due_before`."""
        ...

    async def secret_users(self, path: str) -> set[str]:
        """Ids of the integrations that name `path` (rules C4)."""
        ...

    async def put_secret_record(self, record: SecretRecord) -> None: ...

    async def secret_record(self, path: str) -> SecretRecord | None: ...

    async def secret_records(self, workspace: str | None) -> list[SecretRecord]:
        """Those of a workspace; None: all of them. By path."""
        ...

    async def delete_secret_record(self, path: str) -> None: ...


class KeyStore(Protocol):
    """API keys by workspace."""

    async def insert_key(self, key: ApiKey) -> None: ...

    async def key_by_hash(self, hash: bytes) -> ApiKey | None:
        """The key, also when it has expired."""
        ...

    async def recent_keys(self, limit: int) -> list[ApiKey]:
        """The keys of all workspaces that were used or made last."""
        ...

    async def get_key(self, workspace: str, id: str) -> ApiKey:
        """Raises NotFound."""
        ...

    async def keys(self, workspace: str, limit: int, offset: int) -> tuple[list[ApiKey], int]:
        """(page, total), newest first."""
        ...

    async def replace_key(self, old_id: str, key: ApiKey) -> None:
        """Rotation: the old key ends and the new one begins in one transaction. Raises NotFound."""
        ...

    async def delete_key(self, workspace: str, id: str) -> None:
        """Raises NotFound."""
        ...

    async def touch_keys(self, used: Mapping[str, datetime]) -> None:
        """Writes last_used_at of many keys (by id) at once; a moment earlier than the one kept is left out."""
        ...

    async def keys_version(self) -> int:
        """Moves whenever any key is written (not when it is touched), so that caches of keys notice a revocation."""
        ...

    def key_changes(self) -> AsyncIterator[int]:
        """`keys_version` now, and again whenever it has moved; otherwise as `Registry.changes`."""
        ...
