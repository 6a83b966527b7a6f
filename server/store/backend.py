"""What differs between the two databases, as one value."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

Wake = Callable[[], None]


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
    raises beside SQLAlchemy's; `poll_s` how often watchers look."""

    name: str
    reads: AsyncEngine
    writes: AsyncEngine
    insert: Callable[..., Any]
    errors: tuple[type[Exception], ...]
    poll_s: float
    listener: Listener | None = None
