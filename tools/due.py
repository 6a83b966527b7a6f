"""What is to happen at a time unless something else happens first: one timer of the loop for all that wait.

On the path of each call: `asyncio.timeout` costs 4 microseconds and a timer of the loop 1.3, for something that nearly never happens.
"""

import asyncio
from types import TracebackType
from typing import Literal, Protocol, Self

_NEVER = float("inf")


class Late(Protocol):
    """Something that is told when its time has come."""

    def late(self) -> None: ...


class Due:
    """Who waits, in one event loop. Not to be shared between loops."""

    __slots__ = ("_armed_for", "_timer", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[Late, float] = {}
        self._armed_for = _NEVER
        self._timer: asyncio.TimerHandle | None = None

    def add(self, what: Late, seconds: float) -> None:
        """`what.late()` is called once after that time, if it is still there then."""
        loop = asyncio.get_running_loop()
        at = self._waiting[what] = loop.time() + seconds
        if at < self._armed_for:
            self._arm(loop, at)

    def remove(self, what: Late) -> None:
        """Also where it isn't there any more."""
        self._waiting.pop(what, None)

    def _arm(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for, self._timer = at, loop.call_at(at, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        # The timer may come a little before its time, as clocks are read.
        now = max(loop.time(), self._armed_for)
        self._armed_for, self._timer = _NEVER, None
        for what in [w for w, at in self._waiting.items() if at <= now]:
            del self._waiting[what]
            what.late()
        if self._waiting:
            self._arm(loop, min(self._waiting.values()))


class Deadline:
    """`asyncio.timeout` over a `Due`: the block is cancelled when the time is over, and ends with TimeoutError."""

    __slots__ = ("_cancelling", "_due", "_seconds", "_task", "expired")

    def __init__(self, due: Due, seconds: float) -> None:
        self._due, self._seconds = due, seconds
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.expired = False

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("a deadline is for a task")
        self._cancelling = self._task.cancelling()
        self._due.add(self, self._seconds)
        return self

    def late(self) -> None:
        assert self._task is not None
        self.expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if not self.expired:
            self._due.remove(self)
        elif self._task is not None and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error  # as asyncio.timeout: somebody else's cancelling goes on as it is
        return False
