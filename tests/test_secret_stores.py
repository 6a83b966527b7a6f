"""Where secrets are kept: the encrypted store in the registry's database, its key file, and environment variables."""

import asyncio
import base64
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from server import keyring
from server.keyring import Keyring
from server.secret_stores.environment import VERSION, EnvironmentSecretStore, path_of, variable_of
from server.secret_stores.local import LocalSecretStore
from server.store.database import Database, open_database
from server.store.tables import secret_values
from tools.errors import Forbidden, SecretNotFound, SecretStoreUnavailable
from tools.secrets import SecretStore

pytestmark = pytest.mark.anyio
pytest_plugins = ("tests.postgres",)

KEYS = Keyring(key=bytes(range(32)), source="secret.key")
CANARY = "canary-8c1f-ÄÖ-" + "x" * 40


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        yield database


@pytest.fixture
def store(database: Database) -> SecretStore:
    return LocalSecretStore(database, KEYS)


# -- the local store


async def test_a_value_is_read_back_by_path_and_by_version(store: SecretStore) -> None:
    first = await store.write("/gw/a/key", CANARY)
    second = await store.write("/gw/a/key", "newer")
    assert (await store.read("/gw/a/key")).value == "newer"
    assert (await store.read("/gw/a/key")).version == second
    assert (await store.read("/gw/a/key", first)).value == CANARY


async def test_versions_are_in_the_order_of_writing_and_never_repeat(store: SecretStore) -> None:
    versions = [await store.write("/gw/a/key", "same") for _ in range(20)]
    assert versions == sorted(set(versions))


async def test_the_newest_is_the_last_written_also_when_the_clock_stepped_back(
    store: SecretStore, database: Database
) -> None:
    old = await store.write("/gw/a/key", "old")
    future = (
        "e" * 16 + old[16:]
    )  # written by a clock far ahead, but not in its last nanosecond, which nothing comes after
    async with database.write() as connection:
        await connection.execute(update(secret_values).values(version=future))
    await store.write("/gw/a/key", "new")
    assert (await store.read("/gw/a/key")).value == "new"


@pytest.mark.parametrize(("path", "version"), [("/gw/a/none", None), ("/gw/a", None), ("/gw/a/key", "other")])
async def test_what_isn_t_stored_is_not_found(store: SecretStore, path: str, version: str | None) -> None:
    await store.write("/gw/a/key", "x")
    with pytest.raises(SecretNotFound):
        await store.read(path, version)


async def test_removing_takes_exactly_the_versions_named(store: SecretStore) -> None:
    first, second, third = [await store.write("/gw/a/key", n) for n in "123"]
    other = await store.write("/gw/a/key2", "other")
    assert list(await store.versions("/gw/a/key")) == [first, second, third]
    await store.remove("/gw/a/key", {second})
    with pytest.raises(SecretNotFound):
        await store.read("/gw/a/key", second)
    assert (await store.read("/gw/a/key", first)).value == "1"
    await store.remove("/gw/a/key", {first, third})
    await store.remove("/gw/a/key", {first, third})
    assert await store.versions("/gw/a/key") == {}
    with pytest.raises(SecretNotFound):
        await store.read("/gw/a/key")
    assert (await store.read("/gw/a/key2", other)).value == "other"


async def test_paths_are_those_under_whole_segments(store: SecretStore) -> None:
    for path in ("/gw/ac", "/gw/ac/b", "/gw/ac/a", "/gw/acme/x", "/gw/a_/x", "/gw/Ac/x", "/gw/ac-/x", "/gw/ac.d/x"):
        await store.write(path, "v")
    await store.write("/gw/ac/a", "again")
    assert await store.paths("/gw/ac") == ["/gw/ac", "/gw/ac/a", "/gw/ac/b"]
    assert await store.paths("/gw/ac/") == ["/gw/ac", "/gw/ac/a", "/gw/ac/b"]
    assert await store.paths("/gw/%") == []
    assert len(await store.paths("/")) == 8


async def test_concurrent_writes_of_one_path_all_stay(store: SecretStore) -> None:
    versions = await asyncio.gather(*(store.write("/gw/a/key", str(n)) for n in range(10)))
    values = [(await store.read("/gw/a/key", version)).value for version in versions]
    assert values == [str(n) for n in range(10)]


async def test_the_wrong_key_is_told_with_the_name_of_its_file(database: Database, store: SecretStore) -> None:
    await store.write("/gw/a/key", CANARY)
    stranger = LocalSecretStore(database, Keyring(key=bytes(32), source="secret.key"))
    with pytest.raises(SecretStoreUnavailable, match=r"encrypted with another key than secret\.key"):
        await stranger.read("/gw/a/key")


async def test_a_value_moved_to_another_path_or_version_doesn_t_open(database: Database, store: SecretStore) -> None:
    await store.write("/gw/a/key", CANARY)
    version = await store.write("/gw/b/key", "mine")
    async with database.write() as connection:
        stolen = (
            await connection.execute(select(secret_values.c.sealed).where(secret_values.c.path == "/gw/a/key"))
        ).scalar_one()
        await connection.execute(update(secret_values).where(secret_values.c.version == version).values(sealed=stolen))
    with pytest.raises(SecretStoreUnavailable, match="damaged"):
        await store.read("/gw/b/key")


async def test_no_file_of_the_registry_holds_a_value_in_clear(sqlite_url: str) -> None:
    folder = Path(sqlite_url.removeprefix("sqlite:///")).parent
    needles = [CANARY.encode(), base64.b64encode(CANARY.encode())[:-4], CANARY.encode().hex().encode(), b"canary"]

    def leaks() -> list[str]:
        return [f.name for f in folder.iterdir() for needle in needles if needle in f.read_bytes()]

    async with open_database(sqlite_url) as database:
        store = LocalSecretStore(database, keyring.kept_in(folder))
        version = await store.write("/gw/a/key", CANARY)
        assert CANARY not in repr(await store.read("/gw/a/key"))
        assert {f.name for f in folder.iterdir()} >= {"registry.db", "registry.db-wal", "secret.key"}
        assert leaks() == []
        await store.remove("/gw/a/key", {version})
        assert leaks() == []
    assert leaks() == []


# -- the key file


def test_the_key_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    first = keyring.kept_in(home)
    assert keyring.kept_in(home) == first
    assert stat.S_IMODE((home / "secret.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert [path.name for path in home.iterdir()] == ["secret.key"]
    assert keyring.kept_in(tmp_path / "other").key != first.key


def test_processes_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from server import keyring\n"
        "sys.stdin.readline(); print(keyring.kept_in(pathlib.Path(sys.argv[1])).key_id)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "home")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = {process.communicate()[0] for process in started}
    assert len(said) == 1
    assert re.fullmatch(r"[0-9a-f]{16}\n", said.pop())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o620])
def test_a_key_file_that_others_can_read_or_write_is_refused_with_the_way_out(tmp_path: Path, mode: int) -> None:
    keyring.kept_in(tmp_path)
    (tmp_path / "secret.key").chmod(mode)
    with pytest.raises(SecretStoreUnavailable, match=f"chmod 600 {tmp_path}/secret.key"):
        keyring.kept_in(tmp_path)


@pytest.mark.parametrize("content", [b"", b"short", b"\x00" * 32, base64.b64encode(b"x" * 31), b"=" * 44])
def test_a_damaged_key_file_is_told_and_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret.key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(SecretStoreUnavailable, match="damaged"):
        keyring.kept_in(tmp_path)
    assert file.read_bytes() == content


def test_a_home_that_can_t_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SecretStoreUnavailable, match="can't be used"):
        keyring.kept_in(tmp_path / "file" / "home")


def test_a_given_key_is_read_in_both_alphabets_with_or_without_padding() -> None:
    key = bytes(range(224, 256))
    standard, urlsafe = base64.b64encode(key).decode(), base64.urlsafe_b64encode(key).decode()
    assert standard != urlsafe
    assert {keyring.given(t).key for t in (standard, urlsafe, standard.rstrip("="), f" {urlsafe}\n")} == {key}


@pytest.mark.parametrize("text", ["", "x", "not base64 at all!", base64.b64encode(b"k" * 16).decode(), "é" * 43])
def test_a_given_key_of_the_wrong_form_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(SecretStoreUnavailable, match="openssl rand -base64 32") as caught:
        keyring.given(text)
    assert not text or len(text) < 5 or text not in caught.value.message


def test_a_key_isn_t_shown_and_each_purpose_has_its_own() -> None:
    assert str(KEYS.key) not in repr(KEYS)
    assert len({KEYS.key, KEYS.derive("secrets"), KEYS.derive("results"), KEYS.derive("key-id")}) == 4
    assert KEYS.key_id == Keyring(key=KEYS.key, source="elsewhere").key_id


# -- environment variables

segment = st.text(st.sampled_from("abAB09_.-"), min_size=1, max_size=6).filter(lambda s: s not in (".", ".."))
a_path = st.lists(segment, min_size=2, max_size=5).map(lambda parts: "/x" + "/".join(["", *parts]))


@given(path=a_path, other=a_path)
@settings(max_examples=300, deadline=None)
def test_every_path_has_a_variable_of_its_own(path: str, other: str) -> None:
    assert path_of(variable_of(path)) == path
    assert (variable_of(path) == variable_of(other)) == (path == other)
    assert re.fullmatch(r"INTEGRATIONS_SECRET_[A-Za-z0-9_]+", variable_of(path))


@given(name=st.text(st.sampled_from("ab_5FDEf2x"), max_size=12))
@settings(max_examples=300, deadline=None)
def test_a_variable_is_read_only_under_the_one_name_of_its_path(name: str) -> None:
    variable = f"INTEGRATIONS_SECRET_{name}"
    path = path_of(variable)
    assert path is None or variable_of(path) == variable


@pytest.mark.parametrize(
    ("path", "variable"),
    [
        ("/clinic/api-key", "INTEGRATIONS_SECRET_clinic__api_2Dkey"),
        ("/clinic/live/token", "INTEGRATIONS_SECRET_clinic__live__token"),
        ("/a_b/c.d", "INTEGRATIONS_SECRET_a_5Fb__c_2Ed"),
    ],
)
def test_the_documented_mapping_holds(path: str, variable: str) -> None:
    assert variable_of(path) == variable


async def test_only_variables_with_the_prefix_are_read() -> None:
    store = EnvironmentSecretStore(
        {
            "INTEGRATIONS_SECRET_clinic__key": CANARY,
            "INTEGRATIONS_SECRET_clinic__empty": "",
            "INTEGRATIONS_SECRET_clinic__a_61": "a second spelling",
            "INTEGRATIONS_SECRET_aws__key": "not a path",
            "INTEGRATIONS_SECRET_": "no path",
            "INTEGRATIONS_MCP_SECRET_KEY": "not this one",
            "HOME": "/root",
        }
    )
    assert await store.paths("/") == ["/clinic/key"]
    assert await store.paths("/clin") == []
    secret = await store.read("/clinic/key")
    assert (secret.value, secret.version) == (CANARY, VERSION)
    assert (await store.read("/clinic/key", VERSION)).value == CANARY
    assert CANARY not in repr(store)
    for path, version in (("/clinic/empty", None), ("/clinic/key", "v7"), ("/HOME/x", None)):
        with pytest.raises(SecretNotFound):
            await store.read(path, version)


async def test_environment_secrets_can_t_be_written_or_removed() -> None:
    variables = {"INTEGRATIONS_SECRET_clinic__key": CANARY}
    store = EnvironmentSecretStore(variables)
    with pytest.raises(Forbidden, match="INTEGRATIONS_SECRET_clinic__new and restart"):
        await store.write("/clinic/new", "x")
    with pytest.raises(Forbidden, match="INTEGRATIONS_SECRET_clinic__key and restart"):
        await store.remove("/clinic/key", {VERSION})
    await store.remove("/clinic/unknown", {VERSION})
    await store.remove("/clinic/key", {"another"})
    assert list(await store.versions("/clinic/key")) == [VERSION]
    assert (await store.read("/clinic/key")).value == CANARY
