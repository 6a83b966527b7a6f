"""Results that were cut are kept until they expire: many at once in few transactions, each for its own caller."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from server.keyring import Keyring
from server.store.database import Database, open_database
from server.store.results import SqlResultStore
from tools.errors import StorageUnavailable
from tools.results import KeptResult

pytestmark = pytest.mark.anyio
pytest_plugins = ("tests.postgres",)

NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
RING = Keyring(key=bytes(range(32)), source="secret.key")


class Counted:
    """A database whose writes are counted, and can be out."""

    def __init__(self, database: Database) -> None:
        self._database, self.writes, self.out = database, 0, False
        self.insert, self.read = database.insert, database.read

    @asynccontextmanager
    async def write(self, *, watched: bool = True) -> AsyncGenerator[AsyncConnection]:
        assert not watched  # nobody follows kept results
        self.writes += 1
        async with self._database.write(watched=watched) as connection:
            yield connection
            if self.out:
                raise StorageUnavailable("the disk is full")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Any]:
    async with open_database(database_url) as opened:
        yield Counted(opened)


def result(n: int, text: str = "") -> KeptResult:
    return KeptResult(f"r_{n}", "shop_list", [n], text or f"text {n}", 100, NOW + timedelta(minutes=15))


async def test_results_of_many_calls_at_once_are_kept_in_few_transactions(database: Any) -> None:
    store = SqlResultStore(database, RING)
    await asyncio.gather(*(store.keep("acme", f"key {n % 3}", result(n)) for n in range(150)))
    assert database.writes <= 4
    for n in range(150):
        assert await store.kept("acme", f"key {n % 3}", f"r_{n}", NOW) == result(n)
    assert await store.kept("acme", "key 1", "r_0", NOW) is None


async def test_a_call_that_runs_again_keeps_its_newest_result(database: Any) -> None:
    store = SqlResultStore(database, RING)
    await store.keep("acme", "key 0", result(1))
    await store.keep("acme", "key 0", result(1, "again"))
    assert await store.kept("acme", "key 0", "r_1", NOW) == result(1, "again")


async def test_a_store_that_is_out_is_told_to_each_call_and_the_next_are_kept(database: Any) -> None:
    store = SqlResultStore(database, RING)
    database.out = True
    ended = await asyncio.gather(*(store.keep("acme", "key 0", result(n)) for n in range(3)), return_exceptions=True)
    assert [type(e) for e in ended] == [StorageUnavailable] * 3
    assert await store.kept("acme", "key 0", "r_0", NOW) is None
    database.out = False
    await store.keep("acme", "key 0", result(4))
    assert await store.kept("acme", "key 0", "r_4", NOW) == result(4)


async def test_a_call_that_was_given_up_does_not_keep_the_others_from_theirs(database: Any) -> None:
    store = SqlResultStore(database, RING)
    leaving, staying = [asyncio.ensure_future(store.keep("acme", "key 0", result(n))) for n in range(2)]
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    assert await store.kept("acme", "key 0", "r_1", NOW) == result(1)


async def test_an_integer_beyond_64_bits_is_kept_as_it_is(database: Any) -> None:
    store = SqlResultStore(database, RING)
    long = KeptResult(
        "r_long", "shop_list", [{"id": 12345678901234567890123}], "text", 100, NOW + timedelta(minutes=15)
    )
    await store.keep("acme", "key 1", long)
    assert await store.kept("acme", "key 1", "r_long", NOW) == long
