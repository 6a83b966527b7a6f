"""SQLite: one connection that writes, a few that read, and a file that only its owner can read."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Table, event
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from server.store.backend import Backend
from server.store.faults import explained, unopened, without_wal

READERS = 4


async def backend(path: Path, busy_s: float) -> Backend:
    """Makes the file (mode 0600, its folder 0700) where it isn't there, and puts it into WAL mode."""
    try:
        await asyncio.to_thread(_make, path, busy_s)
    except OSError as error:
        raise unopened(error, path.name) from None
    except sqlite3.Error as error:
        raise explained(error, path.name) from None
    url = URL.create("sqlite+aiosqlite", database=str(path))
    writes = _engine(url, size=1, begin="BEGIN IMMEDIATE", busy_s=busy_s)
    reads = _engine(url, size=READERS, begin="BEGIN", busy_s=busy_s, query_only=True)
    return Backend(
        name=path.name,
        reads=reads,
        writes=writes,
        insert=insert,
        errors=(sqlite3.Error,),
        poll_s=0.25,
        fill=_fill,
    )


async def _fill(connection: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """One statement, which reads the rows from JSON: the driver gives Python's lock away at each step, and with a step for each
    row the loop and the driver's thread took it from one another so often that this cost more than all else of a row."""
    columns = list(rows[0])
    values = ", ".join(f"json_extract(value, '$[{i}]')" for i in range(len(columns)))
    statement = f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT {values} FROM json_each(?)"  # noqa: S608 - our own names
    await connection.exec_driver_sql(
        statement, (orjson.dumps([[*row.values()] for row in rows], _moment, _MOMENTS).decode(),)
    )


_MOMENTS = orjson.OPT_PASSTHROUGH_DATETIME


def _moment(value: Any) -> str:
    """As SQLAlchemy keeps moments here."""
    if not isinstance(value, datetime):
        raise TypeError
    return value.astimezone(UTC).isoformat(" ", "microseconds")[:26]


def _make(path: Path, busy_s: float) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    # WAL is a property of the file. Switching takes a lock that SQLite doesn't wait for when another process switches too.
    connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None)
    deadline = time.monotonic() + busy_s
    try:
        while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            try:
                if connection.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
                    raise without_wal(path.name)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
    finally:
        connection.close()


def _engine(url: URL, *, size: int, begin: str, busy_s: float, query_only: bool = False) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=size, max_overflow=0, pool_timeout=busy_s * 2, hide_parameters=True)
    pragmas = {
        "busy_timeout": int(busy_s * 1000),
        "synchronous": "FULL",
        "foreign_keys": "ON",
        "secure_delete": "ON",
        "query_only": "ON" if query_only else "OFF",
    }

    def connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself: `begun` does
        cursor = connection.cursor()
        for name, value in pragmas.items():
            cursor.execute(f"PRAGMA {name}={value}")
        cursor.close()

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "begin", begun)
    return engine
