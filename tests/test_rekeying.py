"""A new key for everything at rest, and moving to another store: whole or not at all, and finished after any crash (rules A4, A9)."""

import os
import secrets
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from server import keyring
from server.keyring import KEY_FILE, OLD_KEY_FILE, given, kept_in, old_kept_in
from server.secret_stores.local import LocalSecretStore
from server.secret_stores.moving import Moving
from server.secret_stores.rekeying import rekey_file, reseal
from server.store.database import Database, open_database
from server.store.tables import secret_values
from tests.test_signing_keys import smart
from tests.world import World, gateway
from tools.errors import SecretNotFound, SecretStoreUnavailable
from tools.registry import SecretRecord
from tools.secrets import Secret

pytestmark = pytest.mark.anyio
pytest_plugins = ("tests.postgres",)
PATH = "/gw/acme/shared/key"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as opened:
        yield opened


def store(database: Database, home: Path) -> LocalSecretStore:
    """As a process that starts now has it."""
    return LocalSecretStore(database, kept_in(home), old_kept_in(home))


async def values(database: Database, home: Path) -> list[str]:
    opened = store(database, home)
    return [(await opened.read(PATH, version)).value for version in await opened.versions(PATH)]


async def key_ids(database: Database) -> set[str]:
    async with database.read() as connection:
        return set((await connection.execute(select(secret_values.c.key_id))).scalars())


async def test_everything_is_sealed_with_the_new_key_and_the_old_one_is_gone(
    database: Database, tmp_path: Path
) -> None:
    old = kept_in(tmp_path)
    await store(database, tmp_path).write(PATH, "one")
    await store(database, tmp_path).write(PATH, "two")
    assert await rekey_file(database, tmp_path) == 2
    new = kept_in(tmp_path)
    assert new.key != old.key
    assert await key_ids(database) == {new.key_id}
    assert await values(database, tmp_path) == ["one", "two"]
    assert sorted(n for n in os.listdir(tmp_path) if n.startswith((KEY_FILE, "."))) == [KEY_FILE]
    if os.name == "posix":
        assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("moment", ["old kept", "new in place", "sealed"])
async def test_cut_off_anywhere_everything_is_read_and_the_next_run_finishes(
    database: Database, tmp_path: Path, moment: str
) -> None:
    """The states that a crash leaves, made as the steps make them."""
    first = kept_in(tmp_path)
    await store(database, tmp_path).write(PATH, "one")
    os.link(tmp_path / KEY_FILE, tmp_path / OLD_KEY_FILE)
    if moment != "old kept":
        keyring.replace(tmp_path, secrets.token_bytes(32), OLD_KEY_FILE)
    if moment == "sealed":
        await reseal(database, [first], kept_in(tmp_path))
    assert await values(database, tmp_path) == ["one"]
    await store(database, tmp_path).write(PATH, "two")
    await rekey_file(database, tmp_path)
    assert await values(database, tmp_path) == ["one", "two"]
    assert await key_ids(database) == {kept_in(tmp_path).key_id}
    assert kept_in(tmp_path).key != first.key
    assert old_kept_in(tmp_path) is None


async def test_a_process_with_the_old_key_says_what_to_do_and_seals_nothing(database: Database, tmp_path: Path) -> None:
    running = store(database, tmp_path)
    await running.write(PATH, "one")
    await rekey_file(database, tmp_path)
    with pytest.raises(SecretStoreUnavailable, match="restart this process"):
        await running.read(PATH)
    with pytest.raises(SecretStoreUnavailable, match="restart this process"):
        await running.write(PATH, "lost")
    assert await values(database, tmp_path) == ["one"]


async def test_a_value_under_a_third_key_stops_it_and_nothing_is_changed(database: Database, tmp_path: Path) -> None:
    await store(database, tmp_path).write(PATH, "one")
    before = await key_ids(database)
    stranger = given("A" * 43)
    with pytest.raises(SecretStoreUnavailable, match="nothing was changed"):
        await reseal(database, [stranger], given("B" * 42 + "A"))
    assert await key_ids(database) == before


async def test_a_key_of_the_environment_is_changed_too(database: Database) -> None:
    old, new = given("A" * 43), given("B" * 42 + "A")
    await LocalSecretStore(database, old).write(PATH, "one")
    assert await reseal(database, [old], new) == 1
    assert (await LocalSecretStore(database, new).read(PATH)).value == "one"
    with pytest.raises(SecretStoreUnavailable):
        await LocalSecretStore(database, old).read(PATH)


# -- moving


class Elsewhere:
    """A store with numbers as versions, as AWS has them; `fails_after` that many writes it is out."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.kept: dict[str, list[str]] = {}
        self.left = fails_after

    async def read(self, path: str, version: str | None = None) -> Secret:
        values = self.kept.get(path, [])
        number = len(values) if version is None else int(version) if version.isdigit() and len(version) < 5 else 0
        if not 0 < number <= len(values):
            raise SecretNotFound(path)
        return Secret(values[number - 1], str(number))

    async def write(self, path: str, value: str) -> str:
        if self.left is not None:
            if not self.left:
                raise SecretStoreUnavailable("out")
            self.left -= 1
        self.kept.setdefault(path, []).append(value)
        return str(len(self.kept[path]))

    async def versions(self, path: str) -> dict[str, datetime]:
        return {str(n + 1): datetime(2026, 1, 1, tzinfo=UTC) for n in range(len(self.kept.get(path, [])))}

    async def remove(self, path: str, versions: Collection[str]) -> None:
        if set(await self.versions(path)) <= set(versions):
            self.kept.pop(path, None)

    async def paths(self, prefix: str) -> list[str]:
        raise AssertionError("the store isn't listed")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with gateway(tmp_path) as made:
        yield made


async def filled(world: World) -> dict[str, Any]:
    """Every kind of secret: shared, provisioned, a next key, only named, and named but not stored."""
    app, now = world.app, datetime.now(UTC)
    await app.secrets.write(PATH, "shared-value")
    await app.registry.put_secret_record(SecretRecord(PATH, "acme", (), now, now))
    await app.secrets.write("/team/x/token", "only-named")
    made = await world.create(smart())
    await app.auth_admin.generate_key(world.owner, "ehr")
    for name, path in (("named", "/team/x/token"), ("missing", "/team/x/none"), ("shared", PATH)):
        auth = {"type": "bearer_token", "token_ssm_param_path": path}
        await world.create({"name": name, "display_name": "N", "base_url": "https://x.example.com", "auth": auth})
    return {"key": f"/gw/acme/integrations/{made.id}/private_key"}


async def read_all(world: World, secrets: Any) -> list[str]:
    """What every pinned reference of the registry reads from a store."""
    found: list[str] = []
    for integration in (await world.app.registry.load("acme"))[1]:
        for path, binding in integration.bindings.items():
            if path != "/team/x/none":
                found.append((await secrets.read(path, binding.version)).value)
        found += [(await secrets.read(k.path, k.version)).value for k in integration.published_keys]
    return found


async def test_every_secret_is_in_the_other_store_under_the_versions_that_the_rows_name(world: World) -> None:
    expected = await filled(world)
    before = await read_all(world, world.app.secrets)
    target = Elsewhere()
    moved = await Moving(world.app.registry, world.app.secrets, target).run()
    assert await read_all(world, target) == before
    assert len(target.kept[expected["key"]]) == 2
    assert moved.missing == {"/team/x/none"}
    assert moved.paths == {PATH, "/team/x/token", expected["key"]}


async def test_what_we_stored_is_gone_from_the_old_store_and_what_was_only_named_stays(world: World) -> None:
    """Rules A9."""
    await filled(world)
    await Moving(world.app.registry, world.app.secrets, Elsewhere()).run()
    assert await world.app.secrets.paths("/") == ["/team/x/token"]


@pytest.mark.parametrize("writes", range(5))
async def test_a_move_that_was_cut_off_is_finished_by_the_next(world: World, writes: int) -> None:
    await filled(world)
    before = await read_all(world, world.app.secrets)
    target = Elsewhere(fails_after=writes)
    if writes < 4:
        with pytest.raises(SecretStoreUnavailable):
            await Moving(world.app.registry, world.app.secrets, target).run()
    target.left = None
    await Moving(world.app.registry, world.app.secrets, target).run()
    assert await read_all(world, target) == before
    assert sum(len(kept) for kept in target.kept.values()) == 4


async def test_a_move_there_and_back_again_changes_nothing_that_is_read(world: World) -> None:
    await filled(world)
    before = await read_all(world, world.app.secrets)
    target = Elsewhere()
    await Moving(world.app.registry, world.app.secrets, target).run()
    await Moving(world.app.registry, target, world.app.secrets).run()
    assert await read_all(world, world.app.secrets) == before
    assert set(target.kept) == {"/team/x/token"}


async def test_a_store_that_gives_another_value_back_stops_the_move(world: World) -> None:
    await filled(world)

    class Wrong(Elsewhere):
        async def read(self, path: str, version: str | None = None) -> Secret:
            return Secret("something else", (await super().read(path, version)).version)

    before = await read_all(world, world.app.secrets)
    with pytest.raises(SecretStoreUnavailable, match="nothing was removed"):
        await Moving(world.app.registry, world.app.secrets, Wrong()).run()
    assert await read_all(world, world.app.secrets) == before


def test_the_old_key_file_is_checked_like_the_key_file(tmp_path: Path) -> None:
    keyring.kept_in(tmp_path)
    assert old_kept_in(tmp_path) is None
    (tmp_path / OLD_KEY_FILE).write_text("damaged")
    (tmp_path / OLD_KEY_FILE).chmod(0o600)
    with pytest.raises(SecretStoreUnavailable, match="damaged"):
        old_kept_in(tmp_path)
