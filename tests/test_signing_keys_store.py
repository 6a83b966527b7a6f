"""What the registry keeps of signing keys and pins, on SQLite and on PostgreSQL alike (rules A4, C6, D2)."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from server.store.database import Database, open_database
from server.store.pins import SqlPins
from server.store.registry import SqlRegistry
from tools.models import Binding, Integration, PublishedKey
from tools.signing_keys import NEXT_FOR, RETIRING_FOR

pytestmark = pytest.mark.anyio
pytest_plugins = ("tests.postgres",)
MORNING = datetime(2026, 3, 1, 8, tzinfo=UTC)
PATH = "/gw/acme/integrations/1/private_key"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        yield database


def key(kid: str, state: Any, version: str | None, **more: Any) -> PublishedKey:
    return PublishedKey(kid=kid, jwk={"kid": kid}, state=state, path=PATH, version=version, since=MORNING, **more)


def integration(number: int, *keys: PublishedKey) -> Integration:
    return Integration(
        id=str(UUID(int=number)),
        workspace_id="acme",
        name=f"system-{number}",
        display_name="S",
        created_at=MORNING,
        updated_at=MORNING,
        bindings={PATH: Binding(version="v1", owned=True)},
        published_keys=keys,
    )


async def test_a_next_key_s_version_is_referred_to_beside_the_one_in_use(database: Database) -> None:
    registry = SqlRegistry(database)
    await registry.insert(integration(1, key("a", "active", "v1"), key("n", "next", "v2")), {})
    assert await registry.secret_versions(PATH) == {"v1", "v2"}
    assert await registry.secret_users(PATH) == {str(UUID(int=1))}
    await registry.replace(integration(1, key("a", "active", "v1")), 1, {})
    assert await registry.secret_versions(PATH) == {"v1"}


async def test_the_keys_come_back_as_they_were_written(database: Database) -> None:
    registry = SqlRegistry(database)
    written = integration(1, key("a", "active", "v1"), key("n", "next", "v2", hold=True), key("r", "retiring", None))
    await registry.insert(written, {})
    assert (await registry.get("acme", written.id)).published_keys == written.published_keys


async def test_rows_are_due_when_a_key_s_state_changes_by_itself(database: Database) -> None:
    registry = SqlRegistry(database)
    await registry.insert(integration(1, key("a", "active", "v1"), key("n", "next", "v2", hold=True)), {})
    await registry.insert(integration(2, key("a", "active", "v1"), key("r", "retiring", None)), {})
    await registry.insert(integration(3, key("a", "active", "v1"), key("n", "next", "v2")), {})
    second, third = ("acme", str(UUID(int=2))), ("acme", str(UUID(int=3)))
    assert await registry.keys_due(MORNING + NEXT_FOR - timedelta(seconds=1)) == []
    assert await registry.keys_due(MORNING + NEXT_FOR) == [third]
    assert await registry.keys_due(MORNING + RETIRING_FOR) == [third, second]
    await registry.replace(integration(3, key("a", "active", "v1")), 1, {})
    assert await registry.keys_due(MORNING + RETIRING_FOR) == [second]


async def test_the_first_pin_stays_for_every_process_until_it_is_confirmed_otherwise(database: Database) -> None:
    registry = SqlRegistry(database)
    await registry.insert(integration(1), {})
    one, another, id = SqlPins(database), SqlPins(database), str(UUID(int=1))
    assert await one.pin("acme", id, "https://a", "https://a/token") == "https://a/token"
    assert await another.pin("acme", id, "https://a", "https://a/other") == "https://a/token"
    assert await another.pin("acme", id, "https://b", "https://b/token") == "https://b/token"
    await one.confirm("acme", id, "https://a", "https://a/other")
    assert await another.pin("acme", id, "https://a", "https://a/other") == "https://a/other"
    await registry.delete("acme", id, None, {})
    await registry.insert(integration(1), {})
    assert await SqlPins(database).pin("acme", id, "https://a", "https://a/new") == "https://a/new"
