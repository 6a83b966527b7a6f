"""doctor: each planted fault is found and told with what to do."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server import surroundings
from server.checkup import check_up
from server.finding import Finding
from server.host_files import HOST_FILES, Target
from server.host_merge import write_entry
from server.settings import Settings
from server.surroundings import clock_beside, database_clock, disk, way_out
from tests.processes import SCRIPT, run
from tests.world import gateway

pytestmark = pytest.mark.anyio
pytest_plugins = ("tests.postgres",)
HOSTS = {host.name: host for host in HOST_FILES}


async def findings(tmp_path: Path, **settings: Any) -> dict[str, Finding]:
    read = Settings(home=tmp_path / "gw", log_level="error", **settings)
    return {f.what: f async for f in check_up(read, tmp_path, tmp_path)}


async def test_a_fresh_registry_has_nothing_wrong_and_says_what_comes_next(tmp_path: Path) -> None:
    found = await findings(tmp_path)
    assert {f.verdict for f in found.values()} == {"ok", "note"}
    assert "keys create" in found["keys"].do
    assert "apply -f" in found["integrations"].do


async def test_a_home_and_a_key_file_that_others_can_read_are_wrong(tmp_path: Path) -> None:
    await findings(tmp_path)
    (tmp_path / "gw").chmod(0o755)
    found = await findings(tmp_path)
    assert (found["home folder"].verdict, found["home folder"].do) == ("wrong", f"chmod 700 {tmp_path / 'gw'}")


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
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, True)


# -- what the gateway stands on


async def test_a_registry_file_that_others_can_read_is_wrong(tmp_path: Path) -> None:
    await findings(tmp_path)
    (tmp_path / "gw" / "registry.db").chmod(0o644)
    found = await findings(tmp_path)
    assert (found["registry file"].verdict, found["registry file"].do) == (
        "wrong",
        f"chmod 600 {tmp_path / 'gw' / 'registry.db'}",
    )


def test_a_registry_on_a_network_share_is_wrong_and_one_on_a_disk_is_not(tmp_path: Path) -> None:
    mounts, url = tmp_path / "mounts", f"sqlite:///{tmp_path}/registry.db"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/export {tmp_path} nfs4 rw 0 0\n")
    assert [f.verdict for f in disk(url, tmp_path, mounts=mounts)] == ["wrong", "ok"]
    mounts.write_text(f"server:/export / nfs4 rw 0 0\n/dev/sda1 {tmp_path} ext4 rw 0 0\n")
    assert [f.verdict for f in disk(url, tmp_path, mounts=mounts)] == ["ok"]


def test_a_disk_with_little_room_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "_LITTLE", 2**60)
    [found] = disk("postgresql://x", tmp_path)
    assert (found.what, found.verdict) == ("disk", "wrong")


@pytest.mark.postgres
async def test_the_clock_is_held_beside_the_databases(postgres: Any) -> None:
    [found] = [f async for f in database_clock(postgres.fresh_url())]
    assert found.verdict == "ok"
    now = datetime.now(UTC)
    apart = clock_beside("the database's", now - timedelta(minutes=3), now)
    assert (apart.verdict, "180 s apart" in apart.said) == ("wrong", True)


async def test_a_secret_that_cannot_be_read_and_a_host_without_an_address_are_wrong(tmp_path: Path) -> None:
    async with gateway(tmp_path / "gw") as world:
        for name, host in (("first", "127.0.0.1"), ("second", "no-such-host.invalid")):
            auth = {"type": "bearer_token", "bearer_token_value": {"value": f"secret-of-{name}"}}
            await world.create({"name": name, "display_name": "N", "base_url": f"https://{host}", "auth": auth})
    (tmp_path / "gw" / "secret.key").unlink()  # the next start makes another one
    found = await findings(tmp_path, workspace="acme")
    assert found["secret store"].verdict == "wrong"
    assert "2 of 2 secrets can't be read: first" in found["secret store"].said
    assert found["DNS"].verdict == "wrong"
    assert "1 of 2 hosts: no-such-host.invalid has no address" in found["DNS"].said
    assert "secret-of" not in repr(found)


def test_a_proxy_of_the_environment_is_told_to_be_unused() -> None:
    [found] = way_out({"https_proxy": "http://user:password@proxy.example:3128", "PATH": "/bin"})
    assert (found.verdict, "https_proxy" in found.said, "password" in repr(found)) == ("note", True, False)
    assert list(way_out({"PATH": "/bin"})) == []
