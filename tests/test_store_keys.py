"""API keys in the registry, on SQLite and on PostgreSQL alike."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from server.store.database import open_database
from server.store.keys import SqlKeyStore
from tools.errors import NotFound
from tools.registry import ApiKey, KeyStore

pytestmark = pytest.mark.anyio
pytest_plugins = ("tests.postgres",)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[KeyStore]:
    async with open_database(database_url) as database:
        yield SqlKeyStore(database)


def key(number: int, workspace: str = "Acme") -> ApiKey:
    return ApiKey(
        id=f"k{number}",
        workspace=workspace,
        name=f"key {number}",
        role="member",
        permissions=frozenset({"Integration.view", "Integration.execute"}),
        hash=bytes([number]) * 32,
        created_at=NOON + timedelta(seconds=number),
        expires_at=NOON + timedelta(days=number),
    )


async def test_a_key_comes_back_whole(store: KeyStore) -> None:
    narrow = replace(
        key(1), integrations=frozenset({"i1", "i2"}), tools=frozenset[str](), expires_at=None, last_used_at=NOON
    )
    await store.insert_key(narrow)
    assert await store.key_by_hash(narrow.hash) == narrow
    assert await store.get_key("ACME", "k1") == narrow


async def test_an_expired_key_is_found_and_an_unknown_one_is_not(store: KeyStore) -> None:
    expired = replace(key(1), expires_at=NOON - timedelta(days=900))
    await store.insert_key(expired)
    assert await store.key_by_hash(expired.hash) == expired
    assert await store.key_by_hash(bytes(32)) is None


async def test_keys_are_listed_newest_first_with_their_count(store: KeyStore) -> None:
    for number in (2, 1, 3):
        await store.insert_key(key(number))
    await store.insert_key(key(4, "other"))
    page, total = await store.keys("acme", limit=2, offset=0)
    assert ([k.id for k in page], total) == (["k3", "k2"], 3)
    page, total = await store.keys("acme", limit=2, offset=2)
    assert ([k.id for k in page], total) == (["k1"], 3)


async def test_rotation_ends_the_old_key_as_the_new_one_begins(store: KeyStore) -> None:
    await store.insert_key(key(1))
    await store.replace_key("k1", key(2))
    assert await store.key_by_hash(key(1).hash) is None
    assert await store.key_by_hash(key(2).hash) == key(2)


async def test_another_workspace_s_key_can_t_be_seen_rotated_or_deleted(store: KeyStore) -> None:
    await store.insert_key(key(1))
    with pytest.raises(NotFound):
        await store.get_key("other", "k1")
    with pytest.raises(NotFound):
        await store.replace_key("k1", key(2, "other"))
    with pytest.raises(NotFound):
        await store.delete_key("other", "k1")
    assert await store.key_by_hash(key(1).hash) == key(1)
    assert await store.key_by_hash(key(2).hash) is None


async def test_a_deleted_key_is_gone(store: KeyStore) -> None:
    await store.insert_key(key(1))
    await store.delete_key("acme", "k1")
    with pytest.raises(NotFound):
        await store.delete_key("acme", "k1")


async def test_use_is_kept_and_never_goes_back(store: KeyStore) -> None:
    await store.insert_key(key(1))
    await store.insert_key(key(2))
    await store.touch_keys({"k1": NOON, "k2": NOON, "gone": NOON})
    await store.touch_keys({"k1": NOON + timedelta(hours=1), "k2": NOON - timedelta(hours=1)})
    await store.touch_keys({})
    used = {k.id: k.last_used_at for k in (await store.keys("acme", 10, 0))[0]}
    assert used == {"k1": NOON + timedelta(hours=1), "k2": NOON}


async def test_the_version_of_keys_moves_with_each_write_and_not_with_use(store: KeyStore) -> None:
    seen = [await store.keys_version()]
    await store.insert_key(key(1))
    seen.append(await store.keys_version())
    await store.replace_key("k1", key(2))
    seen.append(await store.keys_version())
    await store.touch_keys({"k2": NOON})
    assert await store.keys_version() == seen[-1]
    await store.delete_key("acme", "k2")
    seen.append(await store.keys_version())
    assert seen == sorted(set(seen))
