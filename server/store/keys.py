"""API keys: their rows, never the keys themselves. Every write but `touch_keys` raises the counter `keys`."""

import json
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, bindparam, delete, func, insert, or_, select, update

from server.store.database import Database
from server.store.tables import api_keys, workspaces
from server.store.workspaces import ensure, key_of
from tools.errors import NotFound
from tools.registry import ApiKey


class SqlKeyStore:
    """`tools.registry.KeyStore` in SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert_key(self, key: ApiKey) -> None:
        async with self._database.write() as connection:
            await ensure(self._database, connection, key.workspace)
            await connection.execute(insert(api_keys).values(_values(key)))
            await self._database.raise_counter(connection, "keys")

    async def key_by_hash(self, hash: bytes) -> ApiKey | None:
        async with self._database.read() as connection:
            row = (await connection.execute(_keys().where(api_keys.c.hash == hash))).first()
        return None if row is None else _key(row)

    async def recent_keys(self, limit: int) -> list[ApiKey]:
        latest = func.coalesce(api_keys.c.last_used_at, api_keys.c.created_at)
        async with self._database.read() as connection:
            rows = await connection.execute(_keys().order_by(latest.desc(), api_keys.c.id).limit(limit))
            return [_key(row) for row in rows]

    async def get_key(self, workspace: str, id: str) -> ApiKey:
        query = _keys().where(api_keys.c.workspace == key_of(workspace), api_keys.c.id == id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            raise _absent(id)
        return _key(row)

    async def keys(self, workspace: str, limit: int, offset: int) -> tuple[list[ApiKey], int]:
        mine = api_keys.c.workspace == key_of(workspace)
        newest = _keys().where(mine).order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc())
        async with self._database.read() as connection:
            total = (await connection.execute(select(func.count()).select_from(api_keys).where(mine))).scalar_one()
            rows = await connection.execute(newest.limit(limit).offset(offset))
            return [_key(row) for row in rows], total

    async def replace_key(self, old_id: str, key: ApiKey) -> None:
        old = delete(api_keys).where(api_keys.c.workspace == key_of(key.workspace), api_keys.c.id == old_id)
        async with self._database.write() as connection:
            if not (await connection.execute(old)).rowcount:
                raise _absent(old_id)
            await connection.execute(insert(api_keys).values(_values(key)))
            await self._database.raise_counter(connection, "keys")

    async def delete_key(self, workspace: str, id: str) -> None:
        gone = delete(api_keys).where(api_keys.c.workspace == key_of(workspace), api_keys.c.id == id)
        async with self._database.write() as connection:
            if not (await connection.execute(gone)).rowcount:
                raise _absent(id)
            await self._database.raise_counter(connection, "keys")

    async def touch_keys(self, used: Mapping[str, datetime]) -> None:
        if not used:
            return
        # Never backwards: several processes write their batches in any order.
        earlier = or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < bindparam("at"))
        touched = (
            update(api_keys).where(api_keys.c.id == bindparam("key"), earlier).values(last_used_at=bindparam("at"))
        )
        # In one order everywhere, so that two processes' batches can't deadlock.
        batch = [{"key": id, "at": at} for id, at in sorted(used.items())]
        async with self._database.write() as connection:
            await connection.execute(touched, batch)

    async def keys_version(self) -> int:
        return await self._database.counter("keys")

    def key_changes(self) -> AsyncIterator[int]:
        return self._database.moves("keys")


def _keys() -> Select[*tuple[Any, ...]]:
    joined = api_keys.join(workspaces, workspaces.c.key == api_keys.c.workspace)
    return select(*api_keys.c, workspaces.c.id.label("workspace_id")).select_from(joined)


def _values(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "workspace": key_of(key.workspace),
        "name": key.name,
        "role": key.role,
        "permissions": json.dumps(sorted(key.permissions)),
        "hash": key.hash,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "integrations": _array(key.integrations),
        "tools": _array(key.tools),
        "last_used_at": key.last_used_at,
    }


def _key(row: Row[*tuple[Any, ...]]) -> ApiKey:
    return ApiKey(
        id=row.id,
        workspace=row.workspace_id,
        name=row.name,
        role=row.role,
        permissions=frozenset(json.loads(row.permissions)),
        hash=row.hash,
        created_at=row.created_at,
        expires_at=row.expires_at,
        integrations=_set(row.integrations),
        tools=_set(row.tools),
        last_used_at=row.last_used_at,
    )


def _array(values: frozenset[str] | None) -> str | None:
    return None if values is None else json.dumps(sorted(values))


def _set(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(json.loads(text))


def _absent(id: str) -> NotFound:
    return NotFound(f"There is no API key {id}.")
