"""The whole registry out of one database and into another, table by table, in one transaction each.

Not copied: approvals (each is for one attempt, which may have been made since) and kept results (they live for minutes).
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table, func, insert, inspect, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server.store import schema
from server.store.background import ended_without_answer
from server.store.tables import (
    Instant,
    approvals,
    background_calls,
    counters,
    kept_results,
    metadata,
    secret_values,
    workspaces,
)
from tools.background import OPEN

COPIED = tuple(table for table in metadata.sorted_tables if table not in (approvals, kept_results))
"""In an order in which each refers only to those before it."""
_AT_ONCE = 500
_NOT_CONTENT = (counters, workspaces)
"""What a registry that nobody has used yet has, too."""
_VERSION = "alembic_version"


def columns_of(table: Table) -> tuple[tuple[str, str], ...]:
    """Names and kinds (`server.backup_file`)."""
    return tuple((column.name, _kind(column)) for column in table.columns)


def _kind(column: Column[Any]) -> str:
    if isinstance(column.type, Instant):
        return "instant"
    return "bytes" if column.type.python_type is bytes else "plain"


async def rows_of(connection: AsyncConnection, table: Table) -> AsyncIterator[Sequence[Sequence[Any]]]:
    """All rows, some at a time."""
    async with connection.stream(select(table)) as result:
        async for part in result.partitions(_AT_ONCE):
            yield part


async def key_ids(connection: AsyncConnection) -> tuple[str, ...]:
    """The keys that secrets and background calls are sealed with."""
    both = select(secret_values.c.key_id).union(select(background_calls.c.key_id))
    return tuple(sorted((await connection.execute(both)).scalars()))


async def is_used(connection: AsyncConnection) -> bool:
    """Whether there is anything that a restore would overwrite."""
    for table in metadata.sorted_tables:
        if table not in _NOT_CONTENT and (await connection.execute(select(table).limit(1))).first() is not None:
            return True
    return False


async def make_anew(connection: AsyncConnection, revision: str) -> None:
    """Removes every table and makes those of this revision, empty. Raises StorageUnavailable for one that isn't known."""
    await connection.run_sync(_make_anew, revision)


def _make_anew(connection: Connection, revision: str) -> None:
    metadata.drop_all(connection)
    if inspect(connection).has_table(_VERSION):
        connection.execute(text(f"DROP TABLE {_VERSION}"))
    schema.migrate(connection, None, revision)
    for table in _tables(connection).values():
        if table.name != _VERSION:
            connection.execute(table.delete())  # what the steps themselves have written


async def fill(connection: AsyncConnection, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Writes the rows of one table as it is in the database now; how many. Raises KeyError for a table that isn't there."""
    table = (await connection.run_sync(_tables))[name]
    left, count = iter(rows), 0
    while part := list(islice(left, _AT_ONCE)):
        await connection.execute(insert(table), [dict(zip(columns, row, strict=True)) for row in part])
        count += len(part)
    return count


def _tables(connection: Connection) -> dict[str, Table]:
    found = MetaData()
    found.reflect(connection)
    return dict(found.tables)


async def settle(connection: AsyncConnection, now: datetime, told: dict[str, int]) -> int:
    """After the rows: at this version's schema, told to whoever watches; how many calls were ended.

    `told` are the counters before. A background call that hadn't ended when the backup was made may have been carried out since:
    it ends without being sent.
    """
    await schema.upgrade(connection)
    calls = update(background_calls).where(background_calls.c.state.in_(OPEN))
    begun = func.coalesce(func.nullif(background_calls.c.attempts, 0), 1)
    ended = await connection.execute(calls.values(**ended_without_answer(now), attempts=begun))
    for counter in (await connection.execute(select(counters))).all():
        value = max(counter.value, told.get(counter.name, 0)) + 1
        await connection.execute(update(counters).where(counters.c.name == counter.name).values(value=value))
        if counter.name == "registry":
            await connection.execute(update(workspaces).values(changed=value))
    if connection.dialect.name == "postgresql":  # SQLite goes on after the highest number by itself
        for table in COPIED:
            for column in table.columns:
                if column.autoincrement is True:
                    highest = select(func.max(column)).scalar_subquery()
                    named = func.pg_get_serial_sequence(table.name, column.name)
                    await connection.execute(select(func.setval(named, func.coalesce(highest, 1))))
    return ended.rowcount
