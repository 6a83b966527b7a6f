"""The command line: JSON and nothing else with --json, exit codes 0, 1, 2, help that teaches, one sentence where it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # a process for each command
CANARY = "cli-canary-71c2a9"


def run(home: Path, *args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("INTEGRATIONS_MCP_")}
    env = {**kept, "INTEGRATIONS_MCP_HOME": str(home), "COLUMNS": "200", **env}
    return subprocess.run(
        [sys.executable, "-m", "server", *args],
        input=stdin,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def shown(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def integration(name: str = "sys", **fields: Any) -> dict[str, Any]:
    endpoint = {"name": "do", "description": "Does it.", "method": "GET", "path": "/x"}
    return {"name": name, "display_name": "S", "base_url": "https://api.example", "endpoints": [endpoint], **fields}


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["serve"],
        ["stdio"],
        ["keys"],
        ["keys", "create"],
        ["keys", "rotate"],
        ["secrets", "set"],
        ["call"],
        ["tools"],
        ["load"],
        ["version"],
    ],
    ids=" ".join,
)
def test_every_command_teaches_itself(tmp_path: Path, command: list[str]) -> None:
    done = run(tmp_path, *command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert list(tmp_path.iterdir()) == [], "help touches nothing"


def test_a_key_lives_its_life(tmp_path: Path) -> None:
    made = shown(run(tmp_path, "keys", "create", "--workspace", "acme", "--role", "owner", "--json"))
    assert made["api_key"].startswith("imcp_")
    assert made["expires_at"] is None
    rotated = shown(run(tmp_path, "keys", "rotate", made["key_id"], "--workspace", "acme", "--json"))
    assert rotated["key_id"] != made["key_id"]
    listed = run(tmp_path, "keys", "list", "--workspace", "acme", "--json")
    assert [k["key_id"] for k in shown(listed)] == [rotated["key_id"]]
    assert rotated["api_key"] not in listed.stdout
    assert run(tmp_path, "keys", "revoke", rotated["key_id"], "--workspace", "acme").returncode == 0
    gone = run(tmp_path, "keys", "revoke", rotated["key_id"], "--workspace", "acme")
    assert gone.returncode == 1
    assert len(gone.stderr.strip().splitlines()) == 1


def test_a_secret_is_set_listed_and_removed_and_never_shown(tmp_path: Path) -> None:
    path = "/gw/default/shared/key"
    done = run(tmp_path, "secrets", "set", path, "--origin", "https://api.example", stdin=CANARY + "\n")
    assert done.returncode == 0, done.stderr
    listed = run(tmp_path, "secrets", "list", "--json")
    assert [(s["path"], s["origins"]) for s in shown(listed)] == [(path, ["https://api.example:443"])]
    assert CANARY not in done.stdout + done.stderr + listed.stdout + listed.stderr
    assert run(tmp_path, "secrets", "rm", path).returncode == 0
    assert run(tmp_path, "secrets", "rm", path).returncode == 1


def test_files_are_loaded_whole_or_not_at_all(tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "all.json"
    file.write_text(json.dumps([integration("good"), integration("bad", base_url="nonsense")]))
    failed = run(home, "load", str(file), "--json")
    assert failed.returncode == 1
    assert "base_url" in failed.stderr + json.dumps(json.loads(failed.stdout or "null"))
    assert run(home, "call", "good_do").returncode == 1, "not even the good one was written"
    file.write_text(json.dumps([integration("good"), integration("better")]))
    shown(run(home, "load", str(file), "--json"))
    names = [t["name"] for t in shown(run(home, "tools", "--json"))["tools"]]
    assert {"good_do", "better_do"} <= set(names)
    assert run(home, "load", str(file), "--json").returncode == 0  # once more changes nothing


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["call", "nothing_here", "--json"], 1),
        (["call", "x", "--args", "[1]"], 2),
        (["call", "x", "--args", "{"], 2),
        (["keys", "create", "--role", "king"], 2),
        (["keys", "create", "--days", "0"], 2),
        (["load", "no-such-file.yaml"], 1),
        (["secrets", "set", "/aws/x/y"], 1),
        (["secrets", "set", "/gw/default/shared/k"], 1),
        (["no-such-command"], 2),
        (["tools", "--nonsense"], 2),
        (["tools", "--database", "mysql://x/y"], 1),
        (["tools", "--workspace", "a/b"], 2),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_what_fails_says_why_in_words_and_by_its_exit_code(tmp_path: Path, args: list[str], code: int) -> None:
    done = run(tmp_path, *args, stdin="value")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if "--json" in args and done.stdout:
        assert json.loads(done.stdout)["ok"] is False
    else:
        assert done.stderr.strip()


def test_an_unknown_setting_is_wrong_usage_and_named(tmp_path: Path) -> None:
    done = run(tmp_path, "tools", INTEGRATIONS_MCP_PROT="1")
    assert done.returncode == 2
    assert "did you mean INTEGRATIONS_MCP_PORT?" in done.stderr


def test_the_version_is_json_where_json_is_asked_for(tmp_path: Path) -> None:
    assert set(shown(run(tmp_path, "version", "--json"))) == {"version"}
