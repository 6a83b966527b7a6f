"""The bookkeeping of secrets: who refers to which path and version, what must be looked at again, what people stored.

Never a value. The rows that refer are maintained by the write of the integration itself, in its transaction (rules A4, A9).
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from server.store.database import Database
from server.store.tables import secret_records, secret_references, secret_sweeps, workspaces
from server.store.workspaces import WorkspaceRows, ensure, key_of
from tools.models import Integration
from tools.registry import SecretRecord

NEWEST = ""
"""The version of a reference that takes the newest."""

_RECORD = (
    secret_records.c.path,
    secret_records.c.origins,
    secret_records.c.created_at,
    secret_records.c.updated_at,
    workspaces.c.id.label("workspace"),
)


async def set_references(connection: AsyncConnection, integration: Integration) -> None:
    """Within a write: the integration refers to exactly what its bindings name."""
    await connection.execute(delete(secret_references).where(secret_references.c.integration == integration.id))
    named = {(path, binding.version or NEWEST) for path, binding in integration.bindings.items()}
    # A key that will sign later is referred to beside the one that signs now (rules D2).
    named |= {(key.path, key.version) for key in integration.published_keys if key.version is not None}
    rows = [{"path": path, "integration": integration.id, "version": version} for path, version in sorted(named)]
    if rows:
        await connection.execute(insert(secret_references), rows)


async def set_sweeps(database: Database, connection: AsyncConnection, sweeps: Mapping[str, datetime | None]) -> None:
    """Within a write: each path is due at exactly this moment, or (None) not at all."""
    for path, due in sorted(sweeps.items()):
        if due is None:
            await connection.execute(delete(secret_sweeps).where(secret_sweeps.c.path == path))
        else:
            row = database.insert(secret_sweeps).values(path=path, due=due)
            await connection.execute(row.on_conflict_do_update(index_elements=["path"], set_={"due": due}))


class SecretRows(WorkspaceRows):
    """The part of the Registry that is about secrets."""

    async def schedule_sweep(self, paths: Sequence[str], due: datetime) -> None:
        async with self._database.write() as connection:
            for path in sorted(set(paths)):
                row = self._database.insert(secret_sweeps).values(path=path, due=due)
                # The later one wins: an earlier look, due to another write, would take a value whose row isn't there yet.
                later = row.on_conflict_do_update(
                    index_elements=["path"], set_={"due": due}, where=secret_sweeps.c.due < due
                )
                await connection.execute(later)

    async def due_sweeps(self, now: datetime) -> list[str]:
        query = select(secret_sweeps.c.path).where(secret_sweeps.c.due <= now)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(secret_sweeps.c.due, secret_sweeps.c.path))
            return list(rows.scalars())

    async def secret_versions(self, path: str) -> set[str]:
        query = select(secret_references.c.version).where(
            secret_references.c.path == path, secret_references.c.version != NEWEST
        )
        async with self._database.read() as connection:
            return set((await connection.execute(query)).scalars())

    async def sweep_done(self, path: str, due_before: datetime) -> None:
        done = delete(secret_sweeps).where(secret_sweeps.c.path == path, secret_sweeps.c.due <= due_before)
        async with self._database.write() as connection:
            await connection.execute(done)

    async def secret_users(self, path: str) -> set[str]:
        query = select(secret_references.c.integration).where(secret_references.c.path == path)
        async with self._database.read() as connection:
            return set((await connection.execute(query)).scalars())

    async def put_secret_record(self, record: SecretRecord) -> None:
        values = {
            "workspace": None if record.workspace is None else key_of(record.workspace),
            "origins": json.dumps(record.origins),
            "created_at": record.created_at,
            "updated_at": record.updated_at,
        }
        async with self._database.write() as connection:
            if record.workspace is not None:
                await ensure(self._database, connection, record.workspace)
            row = self._database.insert(secret_records).values(path=record.path, **values)
            await connection.execute(row.on_conflict_do_update(index_elements=["path"], set_=values))

    async def secret_record(self, path: str) -> SecretRecord | None:
        async with self._database.read() as connection:
            row = (await connection.execute(_records().where(secret_records.c.path == path))).first()
        return None if row is None else _record(row)

    async def secret_records(self, workspace: str | None) -> list[SecretRecord]:
        query = _records().order_by(secret_records.c.path)
        if workspace is not None:
            query = query.where(secret_records.c.workspace == key_of(workspace))
        async with self._database.read() as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def delete_secret_record(self, path: str) -> None:
        async with self._database.write() as connection:
            await connection.execute(delete(secret_records).where(secret_records.c.path == path))


def _records() -> Any:
    joined = secret_records.outerjoin(workspaces, workspaces.c.key == secret_records.c.workspace)
    return select(*_RECORD).select_from(joined)


def _record(row: Row[*tuple[Any, ...]]) -> SecretRecord:
    return SecretRecord(
        path=row.path,
        workspace=row.workspace,
        origins=tuple(json.loads(row.origins)),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
