"""doctor: each planted fault is found and told with what to do."""

import json
import resource
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from server import checkup, surroundings
from server.checkup import check_up
from server.clocks import beside_database, database_clock
from server.egress_checkup import environment_proxy
from server.finding import Check, Finding
from server.host_files import HOST_FILES, Target
from server.host_merge import write_entry
from server.settings import Settings
from server.surroundings import disk, file_descriptors, registry_files
from tests.processes import SCRIPT, run
from tests.world import gateway

pytestmark = pytest.mark.anyio
pytest_plugins = ("tests.postgres",)
HOSTS = {host.name: host for host in HOST_FILES}


async def findings(tmp_path: Path, **settings: Any) -> dict[str, Finding]:
    read = Settings(home=tmp_path / "gw", log_level="error", **settings)
    return {f.about or f.id: f async for f in check_up(read, tmp_path, tmp_path)}


async def test_a_fresh_registry_has_nothing_wrong_and_says_what_comes_next(tmp_path: Path) -> None:
    found = await findings(tmp_path)
    assert {f.verdict for f in found.values()} == {"ok", "note"}
    assert "keys create" in found["keys"].do
    assert "apply -f" in found["integrations"].do


async def test_a_home_and_a_key_file_that_others_can_read_are_wrong(tmp_path: Path) -> None:
    await findings(tmp_path)
    (tmp_path / "gw").chmod(0o755)
    found = await findings(tmp_path)
    assert (found["home_folder"].verdict, found["home_folder"].do) == ("wrong", f"chmod 700 {tmp_path / 'gw'}")


async def test_a_registry_that_cannot_be_opened_is_told_and_the_hosts_are_looked_at_all_the_same(
    tmp_path: Path,
) -> None:
    write_entry(HOSTS["cursor"], Target("integrations-mcp"), tmp_path / ".cursor" / "mcp.json")
    found = await findings(tmp_path, database_url=f"sqlite:///{tmp_path}")
    assert found["registry"].verdict == "wrong"
    assert "absolute path" in found["Cursor"].said


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target("/no/such/integrations-mcp"), "isn't there"),
        (Target("/bin/false"), "doesn't serve"),
        (Target("x", "http://127.0.0.1:9/mcp"), "can't be reached"),
    ],
)
async def test_what_a_host_was_told_is_tried(tmp_path: Path, target: Target, said: str) -> None:
    write_entry(HOSTS["cursor"], target, tmp_path / ".cursor" / "mcp.json")
    found = await findings(tmp_path)
    assert found["Cursor"].verdict == "wrong"
    assert said in found["Cursor"].said
    assert found["Cursor"].do == "integrations-mcp connect cursor --write"


async def test_a_host_that_starts_us_and_gets_the_tools_is_fine(tmp_path: Path) -> None:
    target = Target(str(SCRIPT), environment={"INTEGRATIONS_MCP_HOME": str(tmp_path / "gw")})
    write_entry(HOSTS["cursor"], target, tmp_path / ".cursor" / "mcp.json")
    assert (await findings(tmp_path))["Cursor"].verdict == "ok"


def test_the_command_ends_with_1_when_something_is_wrong(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert run(tmp_path, "doctor").returncode == 1
    tmp_path.chmod(0o700)
    done = run(tmp_path, "doctor", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"]) == (0, True)
    assert {row["id"] for row in told["findings"]} <= set(get_args(Check))


# -- what the gateway stands on


async def test_a_registry_file_that_others_can_read_is_wrong(tmp_path: Path) -> None:
    await findings(tmp_path)
    (tmp_path / "gw" / "registry.db").chmod(0o644)
    found = await findings(tmp_path)
    assert (found["registry_file"].verdict, found["registry_file"].do) == (
        "wrong",
        f"chmod 600 {tmp_path / 'gw' / 'registry.db'}",
    )


def test_a_registry_on_a_network_share_is_wrong_and_one_on_a_disk_is_not(tmp_path: Path) -> None:
    mounts, url = tmp_path / "mounts", f"sqlite:///{tmp_path}/registry.db"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/export {tmp_path} nfs4 rw 0 0\n")
    assert [f.verdict for f in registry_files(url, mounts=mounts)] == ["wrong"]
    mounts.write_text(f"server:/export / nfs4 rw 0 0\n/dev/sda1 {tmp_path} ext4 rw 0 0\n")
    assert list(registry_files(url, mounts=mounts)) == []


def test_a_disk_with_little_room_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "_LITTLE", 2**60)
    [found] = disk("postgresql://x", tmp_path)
    assert (found.id, found.verdict) == ("disk", "wrong")


@pytest.mark.postgres
async def test_the_clock_is_held_beside_the_databases(postgres: Any) -> None:
    [found] = [f async for f in database_clock(postgres.fresh_url())]
    assert found.verdict == "ok"
    now = datetime.now(UTC)
    apart = beside_database(now - timedelta(minutes=3), now)
    assert (apart.verdict, "180 s apart" in apart.said) == ("wrong", True)


async def test_a_secret_that_cannot_be_read_and_a_host_without_an_address_are_wrong(tmp_path: Path) -> None:
    async with gateway(tmp_path / "gw") as world:
        for name, host in (("first", "127.0.0.1"), ("second", "no-such-host.invalid")):
            auth = {"type": "bearer_token", "bearer_token_value": {"value": f"secret-of-{name}"}}
            await world.create({"name": name, "display_name": "N", "base_url": f"https://{host}", "auth": auth})
    (tmp_path / "gw" / "secret.key").unlink()  # the next start makes another one
    found = await findings(tmp_path, workspace="acme")
    assert found["secrets"].verdict == "wrong"
    assert "2 of 2 can't be read: first" in found["secrets"].said
    assert "can't be stored: There are secrets that were encrypted with another key" in found["secret_store"].said
    assert found["dns"].verdict == "wrong"
    assert "1 of 2 hosts: no-such-host.invalid has no address" in found["dns"].said
    assert "secret-of" not in repr(found)


def test_a_proxy_of_the_environment_is_told_to_be_unused() -> None:
    [found] = environment_proxy({"https_proxy": "http://user:password@proxy.example:3128", "PATH": "/bin"})
    assert (found.verdict, "https_proxy" in found.said, "password" in repr(found)) == ("note", True, False)
    assert list(environment_proxy({"PATH": "/bin"})) == []


@pytest.mark.parametrize("read_on", [True, False])
async def test_a_write_ahead_log_that_a_reader_holds_up_is_wrong_and_a_large_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_on: bool
) -> None:
    await findings(tmp_path)
    monkeypatch.setattr(surroundings, "_LARGE_WAL", 2**20)
    path = tmp_path / "gw" / "registry.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as reader, closing(sqlite3.connect(path)) as writer:
        assert [f.verdict for f in registry_files(f"sqlite:///{path}")] == ["ok"]
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM workspaces").fetchone()
        writer.execute("CREATE TABLE filler AS SELECT randomblob(2000000) AS data")
        writer.commit()
        if not read_on:
            reader.execute("COMMIT")
        [found] = registry_files(f"sqlite:///{path}")
    assert found.id == "registry_wal"
    assert (found.verdict, "can't be written back" in found.said) == (("wrong", True) if read_on else ("note", False))


def test_the_home_folder_and_the_registry_are_looked_at_for_room_once_where_they_share_a_disk(tmp_path: Path) -> None:
    assert [f.about for f in disk(f"sqlite:///{tmp_path}/db/registry.db", tmp_path)] == [str(tmp_path)]
    assert {f.about for f in disk("sqlite:////dev/shm/gw/registry.db", tmp_path)} == {"/dev/shm", str(tmp_path)}


def test_fewer_descriptors_than_connections_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    [few] = file_descriptors(limit)
    [enough] = file_descriptors(limit - 200)
    assert (few.verdict, f"ulimit -n {limit + 200}" in few.do, enough.verdict) == ("note", True, "ok")


async def test_keys_that_end_soon_and_old_signing_keys_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(tmp_path / "gw") as world:
        await world.key(days=30, name="later")
        ends = await world.key(days=10, name="nightly job")
        auth = {
            "type": "oauth2_jwt_bearer",
            "token_url": "https://no-such-host.invalid/token",
            "assertion_issuer": "gw",
            "assertion_subject": "gw",
            "private_key_value": {"value": "generate"},
        }
        await world.create(
            {"name": "sys", "display_name": "S", "base_url": "https://no-such-host.invalid", "auth": auth}
        )
    read = Settings(home=tmp_path / "gw", workspace="acme", log_level="error")
    found = {f.id: f async for f in check_up(read, tmp_path, tmp_path)}
    assert "2 of 2 keys are valid; 1 end within 14 days: nightly job on" in found["keys"].said
    assert found["keys"].do.startswith("integrations-mcp keys rotate key_")
    assert ends not in repr(found)
    assert found["signing_key"].verdict == "ok"
    monkeypatch.setattr(checkup, "_OLD_DAYS", -1)
    found = {f.id: f async for f in check_up(read, tmp_path, tmp_path)}
    assert (found["signing_key"].verdict, found["signing_key"].do) == ("note", "integrations-mcp auth rotate-key sys")


async def test_the_test_secret_of_doctor_is_gone_afterwards(tmp_path: Path) -> None:
    found = await findings(tmp_path)
    assert (found["secret_store"].verdict, "stored, read and removed" in found["secret_store"].said) == ("ok", True)
    async with gateway(tmp_path / "gw") as world:
        assert await world.app.secrets.paths("/gw") == []


def test_every_check_is_in_the_docs_under_the_name_that_programs_go_by() -> None:
    page = Path("docs/doctor.md").read_text("utf-8")
    named = [row.split("`")[1] for row in page.splitlines() if row.startswith("| `")]
    assert named == list(get_args(Check))
