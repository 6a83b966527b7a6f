"""Approvals in the registry, on SQLite and on PostgreSQL alike."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from server.keyring import Keyring, given
from server.store.approvals import SqlApprovals
from server.store.database import Database, open_database
from tools.approvals import MOST_WAITING, Approval
from tools.errors import TooManyCalls

pytestmark = pytest.mark.anyio
pytest_plugins = ("tests.postgres",)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=16)


def ring(letter: str) -> Keyring:
    return given(letter * 43 + "=")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        yield database


@pytest.fixture
def store(database: Database) -> SqlApprovals:
    return SqlApprovals(database, ring("A"))


def approval(number: int, bound: str = "") -> Approval:
    return Approval(
        id=f"a_{number}",
        workspace="acme",
        bound=bound or f"b{number}",
        caller="k1",
        caller_kind="key",
        tool="shop_add",
        integration_id="i1",
        integration="shop",
        integration_version=3,
        method="POST",
        url="https://shop.example/items",
        headers=("X-Tenant: north",),
        body='{"note":"größer"}',
        state="waiting",
        created_at=NOON + timedelta(seconds=number),
        expires_at=NOON + timedelta(minutes=15),
    )


async def test_what_is_asked_for_comes_back_whole_newest_first_in_its_own_workspace(store: SqlApprovals) -> None:
    for number in (1, 3, 2):
        assert await store.ask(approval(number), NOON) == approval(number)
    assert await store.open("ACME", NOON) == [approval(3), approval(2), approval(1)]
    assert await store.get("acme", "a_2", NOON) == approval(2)
    assert await store.get("other", "a_2", NOON) is None
    assert await store.open("other", NOON) == []


async def test_the_same_call_asked_for_at_once_waits_once(store: SqlApprovals) -> None:
    found = await asyncio.gather(*(store.ask(approval(n, "same"), NOON) for n in range(8)))
    assert len({a.id for a in found}) == 1
    assert len(await store.open("acme", NOON)) == 1


async def test_of_many_takers_one_gets_it(store: SqlApprovals) -> None:
    await store.ask(approval(1), NOON)
    assert await store.decide("acme", "a_1", "approved", NOON)
    assert sum(await asyncio.gather(*(store.take(approval(1), NOON) for _ in range(8)))) == 1


async def test_a_decision_is_made_once_in_its_workspace_and_in_time(store: SqlApprovals) -> None:
    await store.ask(approval(1), NOON)
    assert not await store.decide("other", "a_1", "approved", NOON)
    assert not await store.decide("acme", "a_1", "approved", LATER)
    assert await store.decide("acme", "a_1", "denied", NOON)
    assert not await store.decide("acme", "a_1", "approved", NOON)
    assert not await store.take(approval(1), NOON)


async def test_what_expired_is_asked_for_anew_and_can_be_swept(store: SqlApprovals) -> None:
    await store.ask(approval(1, "same"), NOON)
    anew = replace(approval(2, "same"), created_at=LATER, expires_at=LATER + timedelta(minutes=15))
    assert await store.ask(anew, LATER) == anew
    await store.forget_expired(LATER)
    assert [a.id for a in await store.open("acme", LATER)] == ["a_2"]


async def test_with_another_key_what_was_sealed_is_gone_and_is_asked_for_anew(
    database: Database, store: SqlApprovals
) -> None:
    await store.ask(approval(1, "same"), NOON)
    other = SqlApprovals(database, ring("B"))
    assert await other.open("acme", NOON) == []
    assert await other.ask(approval(2, "same"), NOON) == approval(2, "same")


async def test_one_caller_has_a_bound_and_others_have_their_own(store: SqlApprovals) -> None:
    for number in range(MOST_WAITING):
        await store.ask(approval(number), NOON)
    with pytest.raises(TooManyCalls):
        await store.ask(approval(1000), NOON)
    assert await store.ask(approval(5), NOON) == approval(5)
    other = replace(approval(1000), caller="k2")
    assert await store.ask(other, NOON) == other
