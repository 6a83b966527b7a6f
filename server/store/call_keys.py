"""Callers' idempotency keys in the registry's database, so that every process knows them (rules F2)."""

from datetime import datetime

from sqlalchemy import delete, select

from server.store.database import Database
from server.store.tables import idempotency_keys as keys
from tools.idempotency import KEPT_FOR, KeyUse


class SqlCallKeys:
    """`tools.idempotency.CallKeys`: hashes only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, use: KeyUse, now: datetime) -> bool:
        async with self._database.write(watched=False) as connection:
            await connection.execute(delete(keys).where(keys.c.key == use.key, keys.c.expires_at <= now))
            row = self._database.insert(keys).values(key=use.key, arguments=use.arguments, expires_at=now + KEPT_FOR)
            await connection.execute(row.on_conflict_do_nothing(index_elements=["key"]))
            bound = await connection.execute(select(keys.c.arguments).where(keys.c.key == use.key))
            return bound.scalar_one() == use.arguments

    async def forget_expired(self, now: datetime) -> None:
        async with self._database.write(watched=False) as connection:
            await connection.execute(delete(keys).where(keys.c.expires_at <= now))
