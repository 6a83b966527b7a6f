"""The rows of background calls on both databases: one call however many accept it, one owner however many claim it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from server.keyring import Keyring, kept_in
from server.secret_stores.rekeying import reseal
from server.store.background import SqlCallQueue
from server.store.database import Database, open_database
from server.store.tables import background_calls
from tools.background import KEPT_FOR, MOST_OPEN, BackgroundCall
from tools.callers import Caller

pytestmark = pytest.mark.anyio
pytest_plugins = ("tests.postgres",)
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LEASE = timedelta(seconds=30)
CALLER = Caller("key_1", "Acme", "key", "agent", frozenset({"Integration.execute"}), None, frozenset({"clinic_export"}))
ARGUMENTS = {"patient": "Anna Berg", "big": 2**70}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as opened:
        yield opened


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    return kept_in(tmp_path)


@pytest.fixture
def queue(database: Database, ring: Keyring) -> SqlCallQueue:
    return SqlCallQueue(database, ring)


def call(n: int, **more: object) -> BackgroundCall:
    made = BackgroundCall(
        id=f"c_{n}",
        caller=CALLER,
        tool="clinic_export",
        integration="i",
        version=3,
        same=f"same{n}",
        wanted="w",
        accepted_at=NOW + timedelta(seconds=n),
        expires_at=NOW + KEPT_FOR,
        arguments=ARGUMENTS,
        idempotency_key="key",
        hops=1,
    )
    return replace(made, **more)  # type: ignore[arg-type]


async def claimed(queue: SqlCallQueue, owner: str, now: datetime = NOW, most: int = 10) -> list[str]:
    return [c.id for c in await queue.claim(owner, now, now + LEASE, most, past=now)]


async def test_what_was_accepted_is_what_is_claimed(queue: SqlCallQueue) -> None:
    await queue.accept(call(1), MOST_OPEN)
    [found] = await queue.claim("w1", NOW, NOW + LEASE, 10, past=NOW)
    assert found == replace(call(1), state="running", attempts=1, started_at=NOW)


async def test_nothing_of_arguments_and_results_is_readable_in_the_rows(
    queue: SqlCallQueue, database: Database
) -> None:
    await queue.accept(call(1), MOST_OPEN)
    [found] = await queue.claim("w1", NOW, NOW + LEASE, 10, past=NOW)
    await queue.end(found, "w1", "done", {"content": [{"type": "text", "text": "Anna Berg"}]}, None, NOW)
    async with database.read() as connection:
        row = (await connection.execute(select(background_calls))).one()
    assert all(b"Anna" not in (v if isinstance(v, bytes) else str(v).encode()) for v in row)
    ended = await queue.get("acme", "key_1", "c_1", NOW)
    assert ended is not None
    assert ended.result == {"content": [{"type": "text", "text": "Anna Berg"}]}
    assert (ended.state, ended.expires_at) == ("done", NOW + KEPT_FOR)


async def test_of_equal_calls_at_once_one_is_accepted_and_all_are_told_of_it(queue: SqlCallQueue) -> None:
    kept = await asyncio.gather(*(queue.accept(call(n, same="same"), MOST_OPEN) for n in range(8)))
    assert len({c.id for c in kept if c is not None}) == 1
    assert len(await claimed(queue, "w1")) == 1


async def test_an_equal_call_after_the_end_is_another_one(queue: SqlCallQueue) -> None:
    await queue.accept(call(1, same="same"), MOST_OPEN)
    [first] = await queue.claim("w1", NOW, NOW + LEASE, 10, past=NOW)
    await queue.end(first, "w1", "failed", {}, "upstream_500", NOW)
    second = await queue.accept(call(2, same="same"), MOST_OPEN)
    assert second is not None
    assert second.id == "c_2"


async def test_the_callers_own_key_finds_its_call_after_the_end_until_it_is_forgotten(queue: SqlCallQueue) -> None:
    await queue.accept(call(1, given="g"), MOST_OPEN)
    [first] = await queue.claim("w1", NOW, NOW + LEASE, 10, past=NOW)
    await queue.end(first, "w1", "done", {"content": []}, None, NOW)
    again = await queue.accept(call(2, given="g"), MOST_OPEN)
    assert again is not None
    assert (again.id, again.state) == ("c_1", "done")
    later = await queue.accept(call(3, given="g", accepted_at=NOW + KEPT_FOR), MOST_OPEN)
    assert later is not None
    assert later.id == "c_3"


async def test_a_workspace_has_only_so_many_open_calls(queue: SqlCallQueue) -> None:
    for n in range(3):
        await queue.accept(call(n), 3)
    assert await queue.accept(call(9), 3) is None
    other = await queue.accept(call(10, caller=replace(CALLER, workspace="beta")), 3)
    assert other is not None
    await queue.cancel("acme", "c_0", NOW)
    assert await queue.accept(call(9), 3) is not None


async def test_many_workers_at_once_never_claim_the_same_call(queue: SqlCallQueue) -> None:
    for n in range(20):
        await queue.accept(call(n), MOST_OPEN)
    taken = await asyncio.gather(*(claimed(queue, f"w{n}", most=3) for n in range(10)))
    ids = [id for ids in taken for id in ids]
    assert len(ids) == len(set(ids))
    while more := await claimed(queue, "last"):
        ids += more
    assert sorted(ids) == sorted(f"c_{n}" for n in range(20))


async def test_the_oldest_are_claimed_first(queue: SqlCallQueue) -> None:
    for n in (3, 1, 2):
        await queue.accept(call(n), MOST_OPEN)
    assert await claimed(queue, "w1", most=2) == ["c_1", "c_2"]


async def test_a_call_is_taken_over_when_its_lease_ends_and_not_before(queue: SqlCallQueue) -> None:
    await queue.accept(call(1), MOST_OPEN)
    [mine] = await queue.claim("w1", NOW, NOW + LEASE, 10, past=NOW)
    assert await claimed(queue, "w2", NOW + LEASE - timedelta(seconds=1)) == []
    await queue.beat("w1", NOW + 2 * LEASE, {"c_1": 0.4})
    assert await claimed(queue, "w2", NOW + LEASE) == []
    [theirs] = await queue.claim("w2", NOW + 2 * LEASE, NOW + 3 * LEASE, 10, past=NOW + 2 * LEASE)
    assert (theirs.attempts, theirs.progress) == (2, 0.4)
    # The first owner comes back: the call isn't his any more.
    assert await queue.held("w1") == set()
    assert not await queue.end(mine, "w1", "done", {"late": True}, None, NOW)
    assert await queue.end(theirs, "w2", "done", {"late": False}, None, NOW)
    ended = await queue.get("acme", "key_1", "c_1", NOW)
    assert ended is not None
    assert ended.result == {"late": False}


async def test_what_is_released_can_be_claimed_at_once(queue: SqlCallQueue) -> None:
    await queue.accept(call(1), MOST_OPEN)
    await claimed(queue, "w1")
    await queue.release("w1", NOW)
    assert await claimed(queue, "w2") == ["c_1"]


async def test_a_cancelled_call_is_nobodys_and_ends_as_nothing_else(queue: SqlCallQueue) -> None:
    await queue.accept(call(1), MOST_OPEN)
    [mine] = await queue.claim("w1", NOW, NOW + LEASE, 10, past=NOW)
    assert not await queue.cancel("beta", "c_1", NOW)
    assert await queue.cancel("acme", "c_1", NOW)
    assert not await queue.cancel("acme", "c_1", NOW)
    assert await queue.held("w1") == set()
    assert not await queue.end(mine, "w1", "done", {}, None, NOW)
    assert await claimed(queue, "w2", NOW + 2 * LEASE) == []
    found = await queue.find("acme", "c_1")
    assert found is not None
    assert (found.state, found.error_code, found.arguments) == ("cancelled", "cancelled", {})


@pytest.mark.parametrize(("workspace", "caller"), [("acme", "key_2"), ("beta", "key_1")])
async def test_another_caller_finds_nothing(queue: SqlCallQueue, workspace: str, caller: str) -> None:
    await queue.accept(call(1), MOST_OPEN)
    assert await queue.get(workspace, caller, "c_1", NOW) is None


async def test_expired_calls_are_forgotten_and_running_ones_are_not(queue: SqlCallQueue) -> None:
    for n in (1, 2):
        await queue.accept(call(n), MOST_OPEN)
    await claimed(queue, "w1", most=1)
    assert await queue.get("acme", "key_1", "c_2", NOW + KEPT_FOR) is None
    assert await claimed(queue, "w2", NOW + KEPT_FOR) == []
    await queue.forget_expired(NOW + KEPT_FOR)
    assert [c.id for c in await queue.newest("acme", (), 10)] == ["c_1"]


async def test_the_newest_come_first_and_can_be_narrowed_to_states(queue: SqlCallQueue) -> None:
    for n in (1, 2, 3):
        await queue.accept(call(n), MOST_OPEN)
    await claimed(queue, "w1", most=1)
    assert [c.id for c in await queue.newest("ACME", (), 2)] == ["c_3", "c_2"]
    assert [c.id for c in await queue.newest("acme", ("running",), 10)] == ["c_1"]
    assert await queue.newest("beta", (), 10) == []


async def test_a_change_of_keys_keeps_what_was_accepted_and_what_has_ended(
    queue: SqlCallQueue, database: Database, ring: Keyring, tmp_path: Path
) -> None:
    await queue.accept(call(1), MOST_OPEN)
    [first] = await queue.claim("w1", NOW, NOW + LEASE, 10, past=NOW)
    await queue.end(first, "w1", "done", {"content": []}, None, NOW)
    await queue.accept(call(2), MOST_OPEN)
    other = kept_in(tmp_path / "other")
    after = SqlCallQueue(database, other)
    assert await claimed(after, "w2") == []  # sealed with another key: left to who has it
    await reseal(database, [ring], other)
    assert await claimed(queue, "w1") == []
    [second] = await after.claim("w2", NOW, NOW + LEASE, 10, past=NOW)
    assert second.arguments == ARGUMENTS
    ended = await after.get("acme", "key_1", "c_1", NOW)
    assert ended is not None
    assert ended.result == {"content": []}


async def test_every_change_is_told_to_other_processes(database_url: str, ring: Keyring) -> None:
    async with open_database(database_url) as one, open_database(database_url) as other:
        queue, changes = SqlCallQueue(one, ring), SqlCallQueue(other, ring).changes()
        seen = [await anext(changes)]
        await queue.accept(call(1), MOST_OPEN)
        seen.append(await anext(changes))
        await queue.cancel("acme", "c_1", NOW)
        seen.append(await anext(changes))
    assert seen == [0, 1, 2]
