"""One timer for all deadlines: who is late is told once, who was removed never, and a deadline ends only what it is around."""

import asyncio

import pytest

from tools.due import Deadline, Due

pytestmark = pytest.mark.anyio


class Waits:
    """Tells when its time has come."""

    def __init__(self) -> None:
        self.told = 0
        self.is_late = asyncio.Event()

    def late(self) -> None:
        self.told += 1
        self.is_late.set()


async def test_who_waits_is_told_once_in_the_order_of_times_and_who_was_removed_never() -> None:
    due, order = Due(), list[str]()

    class Named(Waits):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def late(self) -> None:
            order.append(self.name)
            super().late()

    last, first, gone = Named("last"), Named("first"), Named("gone")
    due.add(last, 0.02)
    due.add(gone, 0.005)
    due.add(first, 0.001)  # earlier than what the timer was set for
    due.remove(gone)
    async with asyncio.timeout(5):
        await last.is_late.wait()
    due.add(last, 0.001)
    last.is_late.clear()
    async with asyncio.timeout(5):
        await last.is_late.wait()
    assert order == ["first", "last", "last"]
    assert gone.told == 0


async def test_a_deadline_cancels_what_it_is_around_and_ends_with_a_timeout() -> None:
    due, cancelled = Due(), list[str]()
    deadline = Deadline(due, 0.001)

    async def stuck() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.append("cancelled")
            raise

    with pytest.raises(TimeoutError), deadline:
        await stuck()
    assert cancelled == ["cancelled"]
    assert deadline.expired
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0  # what comes after isn't cancelled too


async def test_a_deadline_that_was_kept_leaves_nothing_and_lets_errors_through() -> None:
    due = Due()
    with Deadline(due, 0.001) as kept:
        pass
    with pytest.raises(KeyError), Deadline(due, 0.001):
        raise KeyError("theirs")
    other = Waits()
    due.add(other, 0.002)
    async with asyncio.timeout(5):
        await other.is_late.wait()
    assert not kept.expired


async def test_somebody_elses_cancelling_is_no_timeout() -> None:
    due, started = Due(), asyncio.Event()

    async def work() -> None:
        with Deadline(due, 60):
            started.set()
            await asyncio.get_running_loop().create_future()

    task = asyncio.ensure_future(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_outer_of_two_deadlines_ends_both_with_its_own_timeout() -> None:
    due = Due()
    outer, inner = Deadline(due, 0.001), Deadline(due, 60)
    with pytest.raises(TimeoutError), outer, inner:
        await asyncio.get_running_loop().create_future()
    assert outer.expired
    assert not inner.expired
