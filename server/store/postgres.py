"""PostgreSQL: asyncpg behind SQLAlchemy, safe behind pgbouncer in transaction mode (no statement outlives its transaction)."""

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from server.store.backend import Backend, Wake

CHANNEL = "integrations_mcp"
CONNECT_S = 10
COMMAND_S = 30


def backend(url: str) -> Backend:
    """`url` as libpq and asyncpg read it (postgresql://user:password@host/database?sslmode=...)."""

    async def connect(**options: Any) -> Any:
        # The URL goes to the driver only: SQLAlchemy never sees it, so that no repr of an engine can show the password.
        opened: Any = asyncpg.connect  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - untyped
        opening = asyncio.ensure_future(
            opened(url, timeout=CONNECT_S, command_timeout=COMMAND_S, statement_cache_size=0, **options)
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Cancelled in the middle of its handshake asyncpg leaves futures behind that nobody awaits: let it end first.
            opening.add_done_callback(_abandon)
            raise

    options: dict[str, Any] = {
        "async_creator_fn": connect,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: f"s_{uuid4().hex}",
    }
    engine = create_async_engine(
        "postgresql+asyncpg://",
        connect_args=options,
        pool_size=5,
        max_overflow=5,
        pool_timeout=CONNECT_S,
        pool_pre_ping=True,
        hide_parameters=True,
    )
    return Backend(
        name="PostgreSQL",
        reads=engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True),
        writes=engine,
        insert=insert,
        errors=(asyncpg.PostgresError, asyncpg.InterfaceError),
        poll_s=1.0,
        listener=_Listener(connect),
    )


def _abandon(opening: "asyncio.Future[Any]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().terminate()


class _Listener:
    """One connection outside the pool that hears NOTIFY; whoever watches calls `ensure` at each look, which mends it."""

    def __init__(self, connect: Any) -> None:
        self._connect = connect
        self._connection: Any = None

    async def ensure(self, wake: Wake) -> None:
        if self._connection is not None and not self._connection.is_closed():
            return
        connection = await self._connect()
        if self._connection is not None and not self._connection.is_closed():
            await connection.close()  # somebody else was quicker
            return
        self._connection = connection

        def heard(*_: object) -> None:
            wake()

        await connection.add_listener(CHANNEL, heard)
        connection.add_termination_listener(heard)

    async def announce(self, connection: AsyncConnection, counter: str) -> None:
        await connection.execute(select(func.pg_notify(CHANNEL, counter)))

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
