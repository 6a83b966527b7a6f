"""doctor: each planted fault is found and told with what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from server.checkup import Finding, check_up
from server.host_files import HOST_FILES, Target
from server.host_merge import write_entry
from server.settings import Settings
from tests.processes import SCRIPT, run

pytestmark = pytest.mark.anyio
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
