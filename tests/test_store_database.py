"""The database under the registry: opening, migrating, faults in words, cancellation, and news of other writers."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from server.store import migrations
from server.store.database import Database, open_database
from server.store.keys import SqlKeyStore
from server.store.registry import SqlRegistry
from server.store.schema import HEAD
from server.store.tables import metadata
from tools.errors import StorageUnavailable
from tools.models import Integration
from tools.registry import ApiKey, ListQuery

if TYPE_CHECKING:
    from tests.postgres import Postgres

pytestmark = pytest.mark.anyio
pytest_plugins = ("tests.postgres",)

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def integration(workspace: str = "acme") -> Integration:
    id = str(uuid4())
    return Integration(id=id, workspace_id=workspace, name=f"n{id}", display_name="N", created_at=NOW, updated_at=NOW)


def key() -> ApiKey:
    return ApiKey("k", "acme", "key", "agent", frozenset(), b"h", NOW, None)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        yield database


# -- opening


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_the_file_and_its_folder_are_for_their_owner_only(sqlite_url: str) -> None:
    async with open_database(sqlite_url) as database:
        await SqlRegistry(database).ensure_workspace("acme")
        folder = Path(sqlite_url.removeprefix("sqlite:///")).parent
        assert mode(folder) == 0o700
        files = {path.name: mode(path) for path in folder.iterdir()}
    assert files["registry.db"] == 0o600
    assert set(files.values()) == {0o600}  # the log beside it, too


async def test_what_was_written_is_there_after_a_restart(database_url: str) -> None:
    written = integration()
    async with open_database(database_url) as database:
        await SqlRegistry(database).insert(written, {})
    async with open_database(database_url) as database:
        assert await SqlRegistry(database).get("acme", written.id) == written


async def test_many_replicas_can_start_on_an_empty_database_at_once(database_url: str) -> None:
    async def start() -> int:
        async with open_database(database_url) as database:
            await SqlRegistry(database).insert(integration(), {})
            return 1

    assert sum(await asyncio.gather(*(start() for _ in range(6)))) == 6
    async with open_database(database_url) as database:
        assert (await SqlRegistry(database).page("acme", ListQuery())).total == 6


async def test_one_process_can_open_several_new_registries_at_once(
    tmp_path: Path, database_url: str, request: pytest.FixtureRequest
) -> None:
    """Their migrations run in turns in one thread: each keeps to its own connection."""
    urls = [f"sqlite:///{tmp_path}/{n}/registry.db" for n in range(4)]
    if database_url.startswith("postgresql"):
        urls += [request.getfixturevalue("postgres").fresh_url() for _ in range(4)]

    async def start(url: str) -> list[str]:
        async with open_database(url) as database:
            await SqlRegistry(database).ensure_workspace(name_of(url))
            return await SqlRegistry(database).workspaces()

    def name_of(url: str) -> str:
        return f"w{urls.index(url)}"

    assert await asyncio.gather(*(start(url) for url in urls)) == [[name_of(url)] for url in urls]


def test_many_processes_can_start_on_an_empty_registry_at_once(database_url: str) -> None:
    code = (
        "import anyio, sys\n"
        "from server.store.database import open_database\n"
        "from server.store.registry import SqlRegistry\n"
        "async def main():\n"
        "    async with open_database(sys.argv[1]) as database:\n"
        "        await SqlRegistry(database).ensure_workspace(sys.argv[2])\n"
        "anyio.run(main)\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, database_url, f"w{n}"]) for n in range(4)]
    assert [process.wait(60) for process in started] == [0, 0, 0, 0]

    async def found() -> list[str]:
        async with open_database(database_url) as database:
            return await SqlRegistry(database).workspaces()

    assert anyio.run(found) == ["w0", "w1", "w2", "w3"]


async def test_a_database_of_a_newer_version_is_refused(database_url: str) -> None:
    async with open_database(database_url) as database, database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(
        StorageUnavailable, match=f"newer version of integrations-mcp .schema 9999, this one knows {HEAD}"
    ):
        async with open_database(database_url):
            pass


async def test_the_migrations_make_the_tables_that_the_queries_use(database: Database) -> None:
    async with database.read() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts={"compare_type": True}), metadata)
        )
    assert differences == []


def test_the_newest_migration_is_the_one_the_code_expects() -> None:
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_heads() == [HEAD]


def test_opening_an_up_to_date_registry_imports_no_alembic_and_no_asyncpg(tmp_path: Path) -> None:
    program = (
        "import anyio, sys\n"
        "from server.store.database import open_database\n"
        "async def main():\n"
        "    async with open_database(sys.argv[1]): pass\n"
        "anyio.run(main)\n"
        "print(sorted({'alembic', 'asyncpg'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program, f"sqlite:///{tmp_path}/r.db"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "['alembic']\n"
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("url", ["", "registry.db", "mysql://h/db", "sqlite://", "sqlite:///", "postgresql://"])
async def test_a_url_of_neither_kind_is_refused_with_both(url: str) -> None:
    with pytest.raises(StorageUnavailable, match="sqlite:///path/to/file or postgresql://"):
        async with open_database(url):
            pass


@pytest.mark.postgres
@pytest.mark.parametrize("scheme", ["postgres", "postgresql+asyncpg"])
async def test_other_spellings_of_a_postgresql_url_are_read(postgres: "Postgres", scheme: str) -> None:
    async with open_database(postgres.fresh_url().replace("postgresql", scheme, 1)) as database:
        assert await database.counter("registry") == 0


# -- faults in words


async def refusal(url: str) -> str:
    with pytest.raises(StorageUnavailable) as caught:
        async with open_database(url, busy_s=0.05) as database:
            await SqlRegistry(database).insert(integration(), {})
    return caught.value.message


async def test_a_locked_file_is_told(sqlite_url: str) -> None:
    async with open_database(sqlite_url):
        pass
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        said = await refusal(sqlite_url)
        other.execute("ROLLBACK")
    finally:
        other.close()
    assert said.startswith("The registry (registry.db) is locked by another process")
    async with open_database(sqlite_url) as database:
        assert (await SqlRegistry(database).page("acme", ListQuery())).total == 0


async def test_the_registry_works_again_when_the_lock_is_gone(sqlite_url: str) -> None:
    async with open_database(sqlite_url, busy_s=0.05) as database:
        registry = SqlRegistry(database)
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(3):
                with pytest.raises(StorageUnavailable, match="locked"):
                    await registry.insert(integration(), {})
            assert await registry.version("acme") == 0  # reading goes on
        finally:
            other.close()
        await registry.insert(integration(), {})


async def test_a_full_disk_is_told_and_nothing_is_half_written(sqlite_url: str) -> None:
    async with open_database(sqlite_url) as database:
        registry = SqlRegistry(database)
        async with database.write() as connection:
            pages = (await connection.execute(text("PRAGMA page_count"))).scalar_one()
            await connection.execute(text(f"PRAGMA max_page_count={pages}"))
        big = integration().model_copy(update={"base_url": "x" * 50_000})
        with pytest.raises(StorageUnavailable, match="disk is full"):
            await registry.insert(big, {"/gw/a/b": NOW})
        assert await registry.version("acme") == 0
        assert await registry.due_sweeps(NOW) == []


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "r.db").write_bytes(b"not a database at all" * 100)
    assert "isn't an SQLite database" in await refusal(f"sqlite:///{tmp_path}/r.db")


async def test_a_file_of_another_program_is_told_and_left_as_it_is(sqlite_url: str) -> None:
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    path.parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE moz_places (id INTEGER)")
        other.commit()
        assert "holds tables of something else (moz_places): name another one" in await refusal(sqlite_url)
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("moz_places",)]


@pytest.mark.parametrize("schema", ["0003", "1f2e3d4c5b6a"])
async def test_a_schema_that_was_never_released_is_told(database_url: str, schema: str) -> None:
    async with open_database(database_url) as database, database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = :it"), {"it": schema})
    with pytest.raises(StorageUnavailable, match=f"of a version before the first release .schema {schema}"):
        async with open_database(database_url):
            pass


async def test_tables_that_are_not_there_are_told_in_words(sqlite_url: str) -> None:
    async with open_database(sqlite_url) as database, database.write() as connection:
        await connection.execute(text("DROP TABLE integrations"))
    assert "holds other tables than this version reads" in await refusal(sqlite_url)


def test_where_sqlite_keeps_no_log_it_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without shared memory, as SQLite's own dotfile locking plays it: it answers that nothing changed."""
    connect = sqlite3.connect

    def without_shared_memory(path: Path, **options: Any) -> sqlite3.Connection:
        return connect(f"file:{path}?vfs=unix-dotfile", uri=True, **options)

    monkeypatch.setattr("server.store.sqlite.sqlite3.connect", without_shared_memory)

    async def opening() -> None:
        with anyio.fail_after(30):
            async with open_database(f"sqlite:///{tmp_path}/r.db"):
                pass

    with pytest.raises(StorageUnavailable, match=r"write-ahead log \(a network share\?\); move it"):
        anyio.run(opening)


async def test_a_folder_in_the_place_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "r.db").mkdir()
    said = await refusal(f"sqlite:///{tmp_path}/r.db")
    assert "(r.db) can't be opened" in said
    assert str(tmp_path) not in said


async def test_a_folder_that_can_t_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = await refusal(f"sqlite:///{tmp_path}/file/r.db")
    assert "(r.db) can't be opened" in said
    assert str(tmp_path) not in said


def test_a_file_that_can_t_be_written_is_told(tmp_path: Path) -> None:
    code = (
        "import anyio, sys\n"
        "from server.store.database import open_database\n"
        "from server.store.registry import SqlRegistry\n"
        "async def main():\n"
        "    async with open_database(sys.argv[1], busy_s=0.05) as database:\n"
        "        await SqlRegistry(database).ensure_workspace(sys.argv[2])\n"
        "try: anyio.run(main)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    home = tmp_path / "home"
    command = [sys.executable, "-c", code, f"sqlite:///{home}/registry.db"]
    assert subprocess.run([*command, "one"], capture_output=True, text=True, check=True).stdout == ""
    (home / "registry.db").chmod(0o400)
    home.chmod(0o500)
    if os.geteuid() == 0:  # root without the right to ignore permissions
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    said = subprocess.run([*command, "two"], capture_output=True, text=True, check=True).stdout
    home.chmod(0o700)
    assert said.startswith("StorageUnavailable The registry (registry.db) ")
    assert "must be allowed to write" in said
    assert str(tmp_path) not in said


@pytest.mark.postgres
async def test_a_server_that_isn_t_there_is_told_without_the_password() -> None:
    said = await refusal("postgresql://gw:hunter2hunter2@127.0.0.1:1/db")
    assert said == "The registry (PostgreSQL) can't be reached: the connection was refused."


@pytest.mark.postgres
async def test_a_missing_database_is_told(postgres: "Postgres") -> None:
    said = await refusal(postgres.url.replace("/postgres", "/nothing"))
    assert "has no database of the name" in said


async def test_no_error_shows_sql_values_or_their_origin(database: Database) -> None:
    with pytest.raises(StorageUnavailable) as caught:
        async with database.read() as connection:
            await connection.execute(text("SELECT * FROM nowhere WHERE x = :x"), {"x": "canary"})
    error = caught.value
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert "nowhere" not in error.message
    assert "canary" not in error.message


@pytest.mark.postgres
async def test_nothing_shows_the_password(postgres: "Postgres") -> None:
    url = postgres.fresh_url().replace("gw@", "gw:hunter2hunter2@")
    async with open_database(url) as database:
        backend = database._backend
        assert "hunter2" not in f"{database!r} {backend!r} {backend.writes.url!r} {backend.writes.pool!r}"


# -- cancellation


async def test_a_cancelled_write_is_whole_or_not_at_all_and_frees_its_connection(database: Database) -> None:
    """Cancelled at every step of the event loop that a write takes, one after the other."""
    registry = SqlRegistry(database)
    await registry.ensure_workspace("acme")
    total, steps, ended = 0, 0, False
    while not ended:
        task = asyncio.ensure_future(registry.insert(integration(), {"/gw/a/b": NOW}))
        for _ in range(steps):
            await asyncio.sleep(0)
        ended = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        page = await registry.page("acme", ListQuery())
        assert page.total - total in ((1,) if ended else (0, 1))
        assert (await registry.load("acme"))[0] == 1 + page.total
        total, steps = page.total, steps + 1 + steps // 8
    for engine in (database._backend.reads, database._backend.writes):
        assert engine.pool.checkedout() == 0


async def test_cancelled_readers_leave_their_connections(database: Database) -> None:
    registry = SqlRegistry(database)
    await registry.insert(integration(), {})
    for steps in range(40):
        tasks = [asyncio.ensure_future(registry.load("acme")) for _ in range(6)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    with anyio.fail_after(10):
        assert len((await registry.load("acme"))[1]) == 1


# -- news


async def test_a_watcher_hears_of_each_workspace_first_and_then_of_writes(database_url: str) -> None:
    async with open_database(database_url) as mine, open_database(database_url) as other:
        await SqlRegistry(mine).insert(integration("Before"), {})
        changes = SqlRegistry(mine).changes()
        with anyio.fail_after(20):
            assert await anext(changes) == "Before"
            await SqlRegistry(mine).insert(integration("mine"), {})
            assert await anext(changes) == "mine"
            await SqlRegistry(other).insert(integration("Others"), {})
            assert await anext(changes) == "Others"
            await SqlRegistry(other).insert(integration("one"), {})
            await SqlRegistry(other).insert(integration("two"), {})
            await SqlRegistry(other).insert(integration("one"), {})
            heard = [await anext(changes)]
            while "two" not in heard or heard[-1] != "one":
                heard.append(await anext(changes))


async def test_a_watcher_says_when_everything_written_until_then_was_told(database_url: str) -> None:
    looked = anyio.Event()
    heard: list[str] = []
    async with open_database(database_url) as mine, open_database(database_url) as other:
        for name in ("one", "two"):
            await SqlRegistry(other).insert(integration(name), {})

        def look() -> None:
            assert heard == ["one", "two"]
            looked.set()

        async def watch() -> None:
            async for workspace in SqlRegistry(mine).changes(look):
                heard.append(workspace)

        watching = asyncio.ensure_future(watch())
        with anyio.fail_after(20):
            await looked.wait()
            looked = anyio.Event()
            await looked.wait()  # and again, though nothing moved
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_watcher_of_keys_hears_of_every_write_of_theirs(database_url: str) -> None:
    async with open_database(database_url) as mine, open_database(database_url) as other:
        changes = SqlKeyStore(mine).key_changes()
        with anyio.fail_after(20):
            before = await anext(changes)
            await SqlKeyStore(other).insert_key(key())
            assert await anext(changes) > before
            assert await SqlKeyStore(mine).keys_version() == await SqlKeyStore(other).keys_version()


@pytest.mark.postgres
async def test_a_watcher_outlives_a_restart_of_the_server_and_misses_nothing(own_postgres: "Postgres") -> None:
    url = own_postgres.fresh_url()
    async with open_database(url) as mine, open_database(url) as other:
        registry = SqlRegistry(mine)
        await registry.insert(integration("before"), {})
        changes = registry.changes()
        with anyio.fail_after(60):
            assert await anext(changes) == "before"
            waiting = asyncio.ensure_future(anext(changes))
            own_postgres.stop()
            with pytest.raises(StorageUnavailable):
                await registry.version("before")
            assert not waiting.done()
            own_postgres.start()
            await SqlRegistry(other).insert(integration("after"), {})
            assert await waiting == "after"
