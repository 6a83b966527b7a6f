"""MCP servers written in JavaScript, installed once per lock file beside the other tools of the tests."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "node"
TOOLS = Path(__file__).parent.parent.parent / ".tools"
FILES = ("package.json", "package-lock.json", ".npmrc")


@dataclass(frozen=True)
class NodeServers:
    """`node` is the interpreter; `script(name)` the program of a server."""

    node: str
    root: Path

    @property
    def bind127(self) -> str:
        return str(SOURCES / "bind127.cjs")

    def script(self, name: str) -> str:
        return str(self.root / f"node_modules/@modelcontextprotocol/server-{name}/dist/index.js")

    def own(self, name: str) -> str:
        """A server of tests/mcp_upstreams/node, placed where its imports are found."""
        return str(self.root / name)


def node_servers() -> NodeServers:
    """The servers, installed where they aren't yet; skips the test in one line where that can't be done."""
    node, root = installed("upstreams", SOURCES)
    for source in SOURCES.glob("*.mjs"):
        target = root / source.name
        if not target.exists() or target.read_bytes() != source.read_bytes():
            fresh = target.with_suffix(f".{os.getpid()}.new")
            shutil.copy2(source, fresh)
            fresh.replace(target)
    return NodeServers(node, root)


def installed(name: str, sources: Path) -> tuple[str, Path]:
    """(node, the folder with the packages of the lock file in `sources`); skips the test in one line where there can be none."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm is not installed")
    digest = hashlib.sha256(b"\0".join((sources / file).read_bytes() for file in FILES)).hexdigest()[:16]
    root = TOOLS / name / digest
    if not root.exists():
        _install(npm, sources, root)
    return node, root


def _install(npm: str, sources: Path, root: Path) -> None:
    """In a folder beside it and then renamed: two runs at once can't see half of one."""
    root.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=root.parent, prefix="building-"))
    for file in FILES:
        shutil.copy2(sources / file, building)
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts"], cwd=building, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode != 0:
        shutil.rmtree(building)
        why = next((line for line in done.stderr.splitlines() if line.startswith("npm error")), "npm ci failed")
        pytest.skip(f"the packages of {sources.name} can't be installed: {why}")
    try:
        building.rename(root)
    except OSError:
        shutil.rmtree(building)  # another run was first
