"""The registry is asked, but not waited for longer than a caller should be: what is known goes on without its answer."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from tools.errors import StorageUnavailable

PATIENCE_S = 2.0
"""Of who has something to go on with; a call's host waits 60 s, and there are other waits in it."""
_T = TypeVar("_T")


class Patience:
    """Owns what was left waiting; `aclose` ends it."""

    def __init__(self, seconds: float = PATIENCE_S) -> None:
        self._seconds = seconds
        self._left: set[asyncio.Task[Any]] = set()

    async def wait(self, asking: Coroutine[Any, Any, _T]) -> _T:
        """Raises StorageUnavailable where the registry does, or is slower than that.

        Then it isn't cut off, which would close a connection each time: the database's own deadlines end it.
        """
        task = asyncio.ensure_future(asking)
        self._left.add(task)
        task.add_done_callback(self._ended)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            raise StorageUnavailable("The registry doesn't answer in time.")
        return task.result()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever still waits

    async def aclose(self) -> None:
        left = tuple(self._left)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
