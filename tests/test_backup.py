"""Backup and restore: what is restored elsewhere answers as the first did, and a restore is whole or nothing (rules A4)."""

import gzip
import hashlib
import json
import os
import re
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import select, text

from server import keyring
from server.backup import REPLACED_KEY_FILE, backup, restore
from server.backup_file import BackupError
from server.keyring import KEY_FILE, kept_in
from server.secret_stores.environment import variable_of
from server.settings import Settings
from server.store import schema
from server.store.copying import COPIED
from server.store.database import open_database
from server.store.tables import metadata, workspaces
from tests.processes import SCRIPT, environment
from tests.test_background import DONE, JSON, begins_nothing, ended, handle, settings, write
from tests.upstreams import Hostile, answer
from tests.world import World, gateway

pytestmark = pytest.mark.anyio
pytest_plugins = ("tests.postgres",)
PASSPHRASE = "correct horse battery"


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


def opened_by(home: Path, url: str | None = None, **more: Any) -> Settings:
    return Settings(home=home, workspace="acme", log_level="error", database_url=url or "", **more)


def copy_key(home: Path, other: Path) -> None:
    keyring.put(other, kept_in(home).key)


def never() -> str:
    raise AssertionError("nobody is asked for a passphrase")


async def fill(world: World, upstream: Hostile, count: int = 3) -> None:
    """Integrations with an inline secret and with tools that send it."""
    for n in range(count):
        await world.create(
            {
                "name": f"s{n}",
                "display_name": f"S{n}",
                "base_url": upstream.url,
                "auth": {"type": "bearer_token", "bearer_token_value": {"value": f"secret-{n}"}},
                "endpoints": [{"name": "look", "description": f"Looks {n}.", "method": "GET", "path": f"/look/{n}"}],
            }
        )


async def seen(world: World, names: list[str]) -> tuple[Any, dict[str, str]]:
    """The tools as they are listed, and what the calls answer: the upstream echoes the credential that came."""
    listed, _ = await world.app.toolbox.page(world.owner, None)
    said = {name: await world.call(f"{name}_look") for name in names}
    return listed, {name: re.sub(r'"connection":\d+', "", text) for name, text in said.items()}


async def rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    async with open_database(url) as database, database.read() as connection:
        return {
            table.name: sorted(tuple(row) for row in await connection.execute(select(table)))
            for table in COPIED
            if table.name not in ("counters", "calls", "audit", "background_calls", "workspaces")
        }


async def test_a_backup_taken_while_edits_and_calls_run_answers_elsewhere_as_the_first_did(
    tmp_path: Path, upstream: Hostile, database_url: str, request: pytest.FixtureRequest
) -> None:
    """From either database to the other."""
    first, second, file = tmp_path / "home", tmp_path / "other", tmp_path / "b.backup"
    to_other = f"sqlite:///{second}/registry.db"
    if database_url.startswith("sqlite"):
        with suppress(pytest.skip.Exception):
            to_other = request.getfixturevalue("postgres").fresh_url()
    async with gateway(first, database_url=database_url) as world:
        await fill(world, upstream)
        before = await seen(world, ["s0", "s1", "s2"])
        stop = anyio.Event()

        async def load(n: int) -> None:
            while not stop.is_set():
                for value in ("x", "y"):
                    await world.app.admin.update(
                        world.owner,
                        f"busy{n}",
                        _update({"auth": {"type": "bearer_token", "bearer_token_value": {"value": value}}}, f"busy{n}"),
                    )
                await world.call("s0_look")

        for n in range(2):
            await world.create({"name": f"busy{n}", "display_name": "B", "base_url": upstream.url})
        async with anyio.create_task_group() as tasks:
            for n in range(2):
                tasks.start_soon(load, n)
            await upstream.until(lambda: len(upstream.received) > 5)
            report = await backup(opened_by(first, database_url), file, PASSPHRASE)
            count = len(upstream.received)
            await upstream.until(lambda: len(upstream.received) > count + 2)
            stop.set()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert report.rows["integrations"] == 5
        clear = gzip.decompress(file.read_bytes())
        assert not any(f"secret-{n}".encode() in clear for n in range(3))
        assert kept_in(first).key not in clear
    told = await restore(opened_by(second, to_other), file, lambda: PASSPHRASE, replace=False)
    assert told.key
    assert kept_in(second).key == kept_in(first).key
    async with gateway(second, database_url=to_other) as world:
        listed, answers = await seen(world, ["s0", "s1", "s2"])
        assert answers == before[1]
        assert [r.header("authorization") for r in upstream.received[-3:]] == [f"Bearer secret-{n}" for n in range(3)]
        assert listed == before[0]
        # Each integration is the one of a single moment: the secret that it names is there and opens.
        _, found = await world.app.registry.load("acme")
        for integration in found:
            for path, binding in integration.bindings.items():
                await world.app.secrets.read(path, binding.version)
        await world.create({"name": "new", "display_name": "N", "base_url": upstream.url})
        await world.app.history.flush()


def _update(body: dict[str, Any], name: str) -> Any:
    from tools.parsing import parse_update

    return parse_update(body, name)


async def test_a_background_call_that_had_not_ended_is_never_sent_by_the_restored_registry(
    tmp_path: Path, upstream: Hostile
) -> None:
    file, second = tmp_path / "b", tmp_path / "second"
    upstream.script("/export", answer(200, DONE, JSON))
    async with gateway(tmp_path / "first", **settings()) as world:
        await begins_nothing(world)
        id = handle(await world.call(await write(world, upstream, annotations={"idempotentHint": True})))
        await backup(opened_by(tmp_path / "first"), file, None)
    copy_key(tmp_path / "first", second)
    told = await restore(opened_by(second), file, never, replace=False)
    assert (told.ended_calls, told.key) == (1, True)
    async with gateway(second, **settings()) as world:
        assert "MAY have been carried out" in (await ended(world, id)).text
        assert upstream.received == []
        assert "rows" in (await ended(world, handle(await world.call("clinic_export")))).text


async def test_a_registry_that_is_used_stays_as_it_is_unless_it_may_be_replaced(
    tmp_path: Path, upstream: Hostile, database_url: str
) -> None:
    file, home = tmp_path / "b", tmp_path / "used"
    async with gateway(tmp_path / "first") as world:
        await fill(world, upstream, 1)
    await backup(opened_by(tmp_path / "first"), file, PASSPHRASE)
    used = opened_by(home, database_url)
    async with gateway(home, database_url=database_url) as world:
        await fill(world, upstream, 2)
    before = await rows(used.registry_url)
    with pytest.raises(BackupError, match=r"another key .* nothing was changed"):
        await restore(used, file, never, replace=False)
    (home / "mine").write_bytes((home / KEY_FILE).read_bytes())
    (home / KEY_FILE).unlink()
    with pytest.raises(BackupError, match="isn't empty; nothing was changed"):
        await restore(used, file, lambda: PASSPHRASE, replace=False)
    assert await rows(used.registry_url) == before
    assert not (home / KEY_FILE).exists()
    (home / "mine").chmod(0o600)
    (home / "mine").replace(home / KEY_FILE)
    told = await restore(used, file, lambda: PASSPHRASE, replace=True)
    assert told.old_key
    assert (home / REPLACED_KEY_FILE).exists()
    assert await rows(used.registry_url) == await rows(opened_by(tmp_path / "first").registry_url)


async def test_servers_that_watch_a_replaced_registry_load_it(tmp_path: Path, upstream: Hostile) -> None:
    file, home = tmp_path / "b", tmp_path / "home"
    async with gateway(home) as world:
        await fill(world, upstream, 1)
        await backup(opened_by(home), file, None)
        changed = await world.app.registry.get("acme", "s0")
        await world.app.admin.update(world.owner, "s0", _update({"endpoints": []}, "s0"))
        assert changed.endpoints
        changes = world.app.registry.changes()
        async for _ in changes:
            break
        await restore(opened_by(home), file, never, replace=True)
        with anyio.fail_after(10):
            async for workspace in changes:
                assert workspace == "acme"
                break
        assert "GET" in await world.call("s0_look")


def damaged(file: Path, how: str) -> None:
    data = file.read_bytes()
    lines = gzip.decompress(data).splitlines(keepends=True)
    match how:
        case "cut":
            file.write_bytes(data[: len(data) // 2])
        case "changed":
            file.write_bytes(gzip.compress(b"".join(lines).replace(b"Looks 0.", b"Looks 9.")))
        case "without its end":
            file.write_bytes(gzip.compress(b"".join(lines[:-1])))
        case "other":
            file.write_bytes(b"PK\x03\x04 something else")
        case "other json":
            file.write_bytes(gzip.compress(b'{"a": 1}\n'))
        case _:
            head = {**json.loads(lines[0]), "integrations-mcp backup": 2, "version": "9.1"}
            file.write_bytes(gzip.compress(json.dumps(head).encode() + b"\n"))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", "is damaged"),
        ("changed", "is damaged"),
        ("without its end", "is damaged"),
        ("other", "isn't a backup"),
        ("other json", "isn't a backup"),
        ("newer", "newer version of integrations-mcp .9.1.: restore it with that version"),
    ],
)
async def test_a_file_that_is_not_whole_or_newer_is_refused_before_anything_is_touched(
    tmp_path: Path, upstream: Hostile, how: str, said: str
) -> None:
    file, home = tmp_path / "b", tmp_path / "home"
    async with gateway(tmp_path / "first") as world:
        await fill(world, upstream, 1)
    await backup(opened_by(tmp_path / "first"), file, None)
    damaged(file, how)
    with pytest.raises(BackupError, match=said):
        await restore(opened_by(home), file, never, replace=True)
    assert not home.exists()


async def test_what_fails_in_the_middle_of_a_restore_changes_nothing(
    tmp_path: Path, upstream: Hostile, database_url: str
) -> None:
    """Rows that the database refuses, and a schema that isn't known here: both are found after the tables were emptied."""
    file, home = tmp_path / "b", tmp_path / "home"
    used = opened_by(home, database_url)
    async with gateway(home, database_url=database_url) as world:
        await fill(world, upstream, 2)
    before = await rows(used.registry_url)
    await backup(used, file, None)
    whole = file.read_bytes()
    for planted, said in (("twice", "doesn't fit its schema .IntegrityError."), ("schema", "newer version .*9999")):
        lines = gzip.decompress(whole).splitlines(keepends=True)[:-1]
        if planted == "twice":
            at = next(n for n, line in enumerate(lines) if line.startswith(b'{"table": "secret_values"'))
            lines.insert(at + 1, lines[at + 1])
        else:
            lines[0] = json.dumps({**json.loads(lines[0]), "schema": "9999"}).encode() + b"\n"
        end = {"end": hashlib.sha256(b"".join(lines)).hexdigest()}
        file.write_bytes(gzip.compress(b"".join(lines) + json.dumps(end).encode() + b"\n"))
        with pytest.raises(BackupError, match=said):
            await restore(used, file, never, replace=True)
        assert await rows(used.registry_url) == before


async def test_the_passphrase_is_asked_for_only_where_the_key_is_not_and_a_wrong_one_changes_nothing(
    tmp_path: Path, upstream: Hostile
) -> None:
    file, home = tmp_path / "b", tmp_path / "home"
    async with gateway(tmp_path / "first") as world:
        await fill(world, upstream, 1)
    with pytest.raises(BackupError, match="too short"):
        await backup(opened_by(tmp_path / "first"), file, "short")
    assert os.listdir(tmp_path) == ["first"]  # nor a draft of it
    await backup(opened_by(tmp_path / "first"), file, PASSPHRASE)
    with pytest.raises(BackupError, match="is there already"):
        await backup(opened_by(tmp_path / "first"), file, None)
    with pytest.raises(BackupError, match="isn't the passphrase"):
        await restore(opened_by(home), file, lambda: PASSPHRASE + ".", replace=False)
    assert not home.exists()
    other = opened_by(home, secret_key="A" * 43 + "=")
    with pytest.raises(BackupError, match="another one than INTEGRATIONS_MCP_SECRET_KEY"):
        await restore(other, file, never, replace=True)
    assert not home.exists()
    copy_key(tmp_path / "first", home)
    assert (await restore(opened_by(home), file, never, replace=False)).key


async def test_without_its_key_a_backup_is_restored_and_says_that_the_key_is_missing(
    tmp_path: Path, upstream: Hostile
) -> None:
    file, home = tmp_path / "b", tmp_path / "home"
    async with gateway(tmp_path / "first") as world:
        await fill(world, upstream, 1)
    await backup(opened_by(tmp_path / "first"), file, None)
    told = await restore(opened_by(home), file, never, replace=False)
    assert (told.key, told.key_ids) == (False, (kept_in(tmp_path / "first").key_id,))
    assert not (home / KEY_FILE).exists()


async def test_a_backup_of_an_older_schema_is_brought_up_to_date(tmp_path: Path, database_url: str) -> None:
    """The tables of its time, its rows, then the steps since: as an upgrade in place would have done it."""
    file = tmp_path / "b"
    async with open_database(database_url) as database, database.write() as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.execute(text("DROP TABLE alembic_version"))
        await connection.run_sync(schema.migrate, None, "0002")
        await connection.execute(workspaces.insert().values(key="acme", id="ACME", version=3, changed=1))
    lines: list[Any] = [
        {
            "integrations-mcp backup": 1,
            "made_at": "2026-01-01T00:00:00+00:00",
            "version": "0.0.9",
            "schema": "0002",
            "store": "local",
            "key_ids": [],
            "key": None,
        },
        {"table": "counters", "columns": [["name", "plain"], ["value", "plain"]]},
        ["registry", 7],
        ["keys", 2],
        {"table": "workspaces", "columns": [[c, "plain"] for c in ("key", "id", "version", "changed")]},
        ["acme", "ACME", 3, 7],
    ]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    end = {"end": hashlib.sha256(data).hexdigest()}
    file.write_bytes(gzip.compress(data + json.dumps(end).encode() + b"\n"))
    await restore(opened_by(tmp_path / "home", database_url), file, never, replace=False)
    async with open_database(database_url) as database, database.read() as connection:
        assert await schema.is_current(connection)
        found = (await connection.execute(select(workspaces))).one()
        assert (found.id, found.version) == ("ACME", 3)
        assert (await connection.execute(text("SELECT value FROM counters WHERE name = 'calls'"))).scalar() == 1
        assert (await connection.execute(text("SELECT value FROM counters WHERE name = 'registry'"))).scalar() == 8


def test_every_table_is_copied_or_named_as_one_that_is_not() -> None:
    """Who adds a table decides whether it belongs into a backup."""
    assert {table.name for table in metadata.sorted_tables} - {table.name for table in COPIED} == {
        "approvals",
        "kept_results",
    }


def test_the_commands_say_what_was_done_and_what_is_left_to_do(tmp_path: Path) -> None:
    async def make() -> None:
        async with Hostile() as upstream, gateway(tmp_path / "first") as world:
            await fill(world, upstream, 1)

    anyio.run(make)

    def command(*arguments: str, given: str = "") -> tuple[int, str, str]:
        env = environment(tmp_path, {"INTEGRATIONS_MCP_SECRET_STORE": "local"})
        done = subprocess.run([SCRIPT, *arguments], env=env, input=given, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    code, _, said = command("backup", str(tmp_path / "b"), "--home", str(tmp_path / "first"))
    assert (code, "the key isn't in it" in said, "1 integration(s), 1 secret value(s)" in said) == (0, True, True)
    with_key, home = str(tmp_path / "c"), str(tmp_path / "other")
    assert command("backup", with_key, "--with-key", "--home", str(tmp_path / "first"), given=PASSPHRASE + "\n")[0] == 0
    code, out, said = command("restore", with_key, "--home", home, "--json", given=PASSPHRASE)
    assert (code, json.loads(out)["key"], said) == (0, True, "")
    assert kept_in(Path(home)).key == kept_in(tmp_path / "first").key
    code, _, said = command("restore", str(tmp_path / "b"), "--home", home)
    assert (code, "isn't empty; nothing was changed" in said) == (1, True)


async def test_of_another_secret_store_only_the_references_are_kept(
    tmp_path: Path, upstream: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "b"
    path = "/integrations-mcp/acme/shared/token"
    allow = [{"path": path, "origins": [upstream.url]}]
    monkeypatch.setenv(variable_of(path), "in-the-store")
    body = {"type": "bearer_token", "token_ssm_param_path": path}
    async with gateway(tmp_path / "first", secret_store="environment", secret_paths_allow=allow) as world:
        await world.create({"name": "sys", "display_name": "S", "base_url": upstream.url, "auth": body})
    report = await backup(opened_by(tmp_path / "first", secret_store="environment"), file, None)
    assert report.store == "environment"
    clear = gzip.decompress(file.read_bytes())
    assert path.encode() in clear
    assert b"in-the-store" not in clear
