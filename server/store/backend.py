"""What differs between the two databases, as one value."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Table, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

Wake = Callable[[], None]
Fill = Callable[[AsyncConnection, Table, Sequence[Mapping[str, Any]]], Awaitable[None]]


async def fill(connection: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts many rows, all with the same columns."""
    await connection.execute(insert(table), rows)


class Listener(Protocol):
    """What hears of other processes' writes before the next poll."""

    async def ensure(self, wake: Wake) -> None:
        """Listens from now on, if it doesn't yet or no longer; `wake` is called whenever something was written."""
        ...

    async def announce(self, connection: Any, counter: str) -> None:
        """Within a write: tells the others at its commit."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Backend:
    """`name` is how errors call the database; `insert` the dialect's own (it knows ON CONFLICT); `errors` what its driver
    raises beside SQLAlchemy's; `poll_s` how often watchers look; `fill` inserts many rows, all with the same columns."""

    name: str
    reads: AsyncEngine
    writes: AsyncEngine
    insert: Callable[..., Any]
    errors: tuple[type[Exception], ...]
    poll_s: float
    fill: Fill = fill
    listener: Listener | None = None
