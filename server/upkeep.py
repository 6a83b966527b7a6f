"""What goes on beside the calls for as long as a process lives: it follows the registry's changes, and sweeps what is over."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

import anyio

from server.announcements import Announcements
from server.auth import Keys
from server.bearer import Bearer
from server.store.keys import SqlKeyStore
from server.store.registry import SqlRegistry
from server.telemetry import Log
from tools.auth_admin import AuthAdmin
from tools.catalog import Catalogs
from tools.errors import CallError, StorageUnavailable
from tools.writing import Writer

_HOUSEKEEPING_S = 30.0
_KNOWN_KEYS, _KNOWN_WORKSPACES = 1000, 50
log = Log("integrations_mcp")


class Expiring(Protocol):
    """A table whose rows have an end."""

    async def forget_expired(self, now: datetime) -> None: ...


async def kept_up(what: str, run: Callable[[], Awaitable[None]]) -> None:
    """Runs a watcher for ever; a fault in it is logged and it begins again, since nothing works long without it."""
    while True:
        try:
            await run()
        except Exception as e:
            log.error("a background task failed and is started again", task=what, fault=type(e).__name__, exc_info=e)
        await anyio.sleep(1)


async def follow_changes(registry: SqlRegistry, catalogs: Catalogs, announcements: Announcements) -> None:
    """Catalogs of a changed workspace are old, and its clients are told."""
    async for workspace in registry.changes(catalogs.all_told):
        catalogs.invalidate(workspace)
        await announcements.tools_changed(workspace)


async def follow_keys(keys: Keys, store: SqlKeyStore, catalogs: Catalogs, *, serves: bool) -> None:
    """Ended keys are forgotten; those in use, and their workspaces, are known before the registry may be away (a new replica's too)."""
    async for _ in store.key_changes():
        keys.forget()
        if not serves:
            continue  # one local user
        with suppress(StorageUnavailable, CallError):
            recent = await store.recent_keys(_KNOWN_KEYS)
            keys.remember(recent)
            for workspace in list(dict.fromkeys(key.workspace for key in recent))[:_KNOWN_WORKSPACES]:
                if catalogs.peek(workspace) is None:
                    await catalogs.get(workspace)


async def renew_issuers(bearer: Bearer) -> None:
    """The signing keys of identity providers are fetched before anybody waits for them."""
    while True:
        await bearer.renew()
        await anyio.sleep(_HOUSEKEEPING_S)


async def keep_house(keys: Keys, auth_admin: AuthAdmin, writer: Writer, expiring: Sequence[Expiring]) -> None:
    """last_used_at of keys, rotations that go on by themselves, secrets that nothing refers to, and rows whose time is over."""
    while True:
        try:
            await keys.write_used()
            await auth_admin.advance_keys()
            await writer.sweep()
            for table in expiring:
                await table.forget_expired(datetime.now(UTC))
        except StorageUnavailable as e:
            log.warning("housekeeping waits for the registry", reason=e.message)
        await anyio.sleep(_HOUSEKEEPING_S)
