"""The noun "database": opened by URL, read and written in transactions whose errors are StorageUnavailable."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote

import anyio
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from server.store import schema, sqlite
from server.store.backend import Backend
from server.store.faults import explained
from server.store.tables import counters
from tools.errors import StorageUnavailable

BUSY_S = 5.0
RETRY_S = 2.0
"""How long watchers wait before they look at a database again that couldn't be used."""


class Database:
    """Transactions on one registry. Made by `open_database`, which brings the schema up to date."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._errors = (SQLAlchemyError, OSError, *backend.errors)
        self._sleepers: set[anyio.Event] = set()
        self.insert = backend.insert
        self.fill = backend.fill
        self.name = backend.name

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection, None]:
        """A transaction that sees one consistent state from its first statement to its last."""
        async with self._transaction(self._backend.reads) as connection:
            yield connection

    @asynccontextmanager
    async def write(self, *, watched: bool = True) -> AsyncGenerator[AsyncConnection, None]:
        """A transaction that is committed when the block ends, and whole or not at all; on SQLite one at a time.

        `watched`: it may raise a counter, so that this process's watchers look at once.
        """
        async with self._transaction(self._backend.writes) as connection:
            yield connection
        if watched:
            self._wake()

    async def raise_counter(self, connection: AsyncConnection, name: str) -> int:
        """Within a write: the counter's next value. Last in the transaction, since writers queue up behind it."""
        raised = update(counters).where(counters.c.name == name).values(value=counters.c.value + 1)
        value = (await connection.execute(raised.returning(counters.c.value))).scalar_one()
        if self._backend.listener is not None:
            await self._backend.listener.announce(connection, name)
        return value

    async def counter(self, name: str) -> int:
        async with self.read() as connection:
            return (await connection.execute(select(counters.c.value).where(counters.c.name == name))).scalar_one()

    async def moves(self, name: str, *, every_look: bool = False) -> AsyncIterator[int]:
        """The counter's value now, and again whenever it has moved, by this process or another; or at `every_look` that worked.

        Outlives the database: while it can't be used nothing is told, and what moved meanwhile is told afterwards.
        """
        last: int | None = None
        while True:
            woken = anyio.Event()
            self._sleepers.add(woken)
            try:
                value, pause = await self._look(name)
                if value is not None and (every_look or value != last):
                    last = value
                    yield value
                with anyio.move_on_after(pause):
                    await woken.wait()
            finally:
                self._sleepers.discard(woken)

    async def _look(self, name: str) -> tuple[int | None, float]:
        try:
            if self._backend.listener is not None:
                await self._listen()
            return await self.counter(name), self._backend.poll_s
        except StorageUnavailable:
            return None, RETRY_S

    async def _listen(self) -> None:
        assert self._backend.listener is not None
        try:
            await self._backend.listener.ensure(self._wake)
        except self._errors as error:
            raise explained(error, self.name) from None

    def _wake(self) -> None:
        for woken in tuple(self._sleepers):
            woken.set()

    @asynccontextmanager
    async def _transaction(self, engine: AsyncEngine) -> AsyncGenerator[AsyncConnection, None]:
        try:
            # anyio cancels again and again until a task has ended; aiosqlite's thread, told to stop while it is being closed,
            # then leaves a close that never ends. A transaction is short, so what cancels us waits for it.
            with anyio.CancelScope(shield=True):
                async with engine.begin() as connection:
                    yield connection
        except self._errors as error:
            # `from None`: the original's text holds SQL, and its parameters could hold what must not be logged.
            raise explained(error, self.name) from None

    async def close(self) -> None:
        if self._backend.listener is not None:
            await self._backend.listener.close()
        await self._backend.reads.dispose()
        await self._backend.writes.dispose()


@asynccontextmanager
async def open_database(url: str, *, busy_s: float = BUSY_S) -> AsyncGenerator[Database, None]:
    """Opens `sqlite:///file` or `postgresql://...` (also postgres://) with its schema up to date; closes it at the end.

    `busy_s`: how long SQLite waits for another process's lock. Raises StorageUnavailable, also for a URL of neither kind.
    """
    database = Database(await _backend(url, busy_s))
    try:
        async with database.read() as connection:
            ready = await schema.is_current(connection)
        if not ready:
            async with database.write() as connection:
                await schema.upgrade(connection)
        yield database
    finally:
        # Closed also when the opener was cancelled; disposing takes milliseconds, the bound is for a hung network.
        with anyio.move_on_after(5, shield=True):
            await database.close()


async def _backend(url: str, busy_s: float) -> Backend:
    scheme, _, rest = url.partition("://")
    if scheme in ("sqlite", "sqlite+aiosqlite") and rest.startswith("/") and len(rest) > 1:
        return await sqlite.backend(Path(unquote(rest[1:])), busy_s)  # sqlite:///relative, sqlite:////absolute
    if scheme in ("postgres", "postgresql", "postgresql+asyncpg") and rest:
        from server.store import postgres  # asyncpg is imported only where it is used: start-up time counts

        return postgres.backend(f"postgresql://{rest}")
    raise StorageUnavailable("A database URL is sqlite:///path/to/file or postgresql://user:password@host/database.")
