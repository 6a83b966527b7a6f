"""Clients that can't live beside mcp 2, in environments of their own: the MCP client of the year before (mcp 1.30), agent frameworks."""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes import cannot

CLIENT = Path(__file__).parent / "clients" / "mcp130.py"
REQUIREMENTS = CLIENT.with_suffix(".txt")
FRAMEWORKS = CLIENT.with_name("frameworks")
TOOLS = Path(__file__).parent.parent / ".tools"


@dataclass(frozen=True)
class OldClient:
    """`python` is the interpreter of the environment that has mcp 1.30."""

    python: Path

    def run(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs tests/clients/mcp130.py to its end; `timeout` in seconds. The exit code is for the caller to judge."""
        return subprocess.run(
            [self.python, CLIENT, *arguments], capture_output=True, text=True, timeout=timeout, check=False
        )


def old_client() -> OldClient:
    """The client, installed where it isn't yet; skips the test in one line where that can't be done."""
    return OldClient(environment_of("mcp130", REQUIREMENTS))


def frameworks() -> Path:
    """The interpreter of the environment that has the agent frameworks of tests/clients/frameworks."""
    return environment_of("frameworks", FRAMEWORKS / "requirements.txt")


def judged(schemas: Mapping[str, Any]) -> dict[str, list[str]]:
    """What the converters of the providers' SDKs say against schemas, by name; {} if nothing."""
    done = subprocess.run(
        [frameworks(), FRAMEWORKS / "judge_schemas.py"],
        input=json.dumps(schemas),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


def environment_of(name: str, requirements: Path) -> Path:
    """The interpreter of an environment with these pinned packages; skips the test in one line where there can be none."""
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:16]
    root = TOOLS / name / digest
    if not root.exists():
        _install(name, requirements, root)
    return root / "bin" / "python"


def _install(name: str, requirements: Path, root: Path) -> None:
    """In a folder beside it and then renamed: two runs at once can't see half of one."""
    root.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=root.parent, prefix="building-"))
    python = building / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", building],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            shutil.rmtree(building)
            why = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), "no venv or pip")
            cannot(f"{name} can't be installed: {why}")
    try:
        building.rename(root)
    except OSError:
        shutil.rmtree(building)  # another run was first
