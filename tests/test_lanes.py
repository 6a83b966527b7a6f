"""Slots and turns: who waits, who is next, and what becomes of a turn whose owner has left."""

import asyncio

import pytest

from tools.errors import TooManyCalls
from tools.lanes import Lane, Lanes

pytestmark = pytest.mark.anyio
LONG = 60.0


async def settled() -> None:
    """Until every task that can run has run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def queue(lane: Lane, who: str, order: list[str]) -> None:
    await lane.wait(who, LONG)
    order.append(who)


async def test_those_who_wait_are_served_in_turn_by_who_they_are() -> None:
    lane, order = Lane("here", 1), list[str]()
    assert lane.take()
    waiting = [asyncio.ensure_future(queue(lane, who, order)) for who in ("greedy", "greedy", "greedy", "late", "last")]
    await settled()
    for _ in waiting:
        lane.give_back()
        await settled()
    await asyncio.gather(*waiting)
    assert order == ["greedy", "late", "last", "greedy", "greedy"]
    lane.give_back()
    assert lane.is_idle


async def test_nobody_overtakes_those_who_wait() -> None:
    lane, order = Lane("here", 1), list[str]()
    assert lane.take()
    waiting = asyncio.ensure_future(queue(lane, "first", order))
    await settled()
    lane.give_back()
    assert not lane.take()
    await waiting


async def test_a_caller_who_leaves_the_queue_takes_no_slot_with_him() -> None:
    lane, order = Lane("here", 1), list[str]()
    assert lane.take()
    leaves = asyncio.ensure_future(queue(lane, "a", order))
    stays = asyncio.ensure_future(queue(lane, "b", order))
    await settled()
    leaves.cancel()
    await settled()
    lane.give_back()
    await stays
    assert order == ["b"]
    lane.give_back()
    assert lane.is_idle


async def test_a_turn_that_comes_while_its_owner_is_leaving_goes_to_the_next() -> None:
    lane, order = Lane("here", 1), list[str]()
    assert lane.take()
    leaves = asyncio.ensure_future(queue(lane, "a", order))
    stays = asyncio.ensure_future(queue(lane, "b", order))
    await settled()
    lane.give_back()  # a's turn is set, and a has not run since
    leaves.cancel()
    await asyncio.wait_for(stays, 5)
    assert order == ["b"]
    lane.give_back()
    assert lane.is_idle


async def test_who_waits_in_vain_is_told_what_the_limit_is() -> None:
    lane = Lane("of this integration", 1)
    assert lane.take()
    with pytest.raises(TooManyCalls, match="1 calls of this integration run at once, and none ended within 0 s"):
        await lane.wait("a", 0)
    lane.give_back()
    assert lane.is_idle


async def test_the_queue_is_bounded() -> None:
    lane, order = Lane("here", 1), list[str]()
    assert lane.take()
    waiting = [asyncio.ensure_future(queue(lane, str(n), order)) for n in range(10)]
    await settled()
    with pytest.raises(TooManyCalls, match="too many wait already"):
        await lane.wait("one more", LONG)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    lane.give_back()
    assert lane.is_idle


async def test_a_raised_limit_lets_further_calls_in_and_idle_lanes_are_forgotten() -> None:
    lanes = Lanes("here")
    assert lanes.lane("x", 1).take()
    assert not lanes.lane("x", 1).take()
    assert lanes.lane("x", 2).take()
    lanes.give_back("x")
    lanes.give_back("x")
    assert lanes.lane("x", 1).active == 0
