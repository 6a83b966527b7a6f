"""Clients that public generators make of the contract do create, list with paging, get, change and put, test and delete."""

import asyncio
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.processes import cannot
from tests.rest import rest_world

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
SOURCES = Path(__file__).parent / "generated_clients"
CONTRACT = Path(__file__).parent / "contract" / "openapi.json"
TOOLS = Path(__file__).parent.parent / ".tools" / "generated_clients"


def run(cwd: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def installed(what: str, pins: Path, *commands: list[str | Path]) -> Path:
    """A folder of .tools with what `commands` install, run in it: made once per content of `pins`."""
    root = TOOLS / f"{what}-{hashlib.sha256(pins.read_bytes()).hexdigest()[:16]}"
    if not root.exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=TOOLS, prefix="building-"))
        for source in SOURCES.iterdir():
            shutil.copy2(source, building)
        for command in commands:
            done = run(building, *command)
            if done.returncode != 0:
                shutil.rmtree(building)
                why = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
                cannot(f"{what} can't be installed: {why}")
        building.rename(root)
    return root


async def test_a_client_made_by_openapi_python_client_walks_through_every_operation(tmp_path: Path) -> None:
    pins = SOURCES / "requirements.txt"
    tools = installed(
        "openapi-python-client",
        pins,
        [sys.executable, "-m", "venv", "venv"],
        ["venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"],
    )
    python = tools / "venv" / "bin" / "python"
    made = run(
        tmp_path, python, "-m", "openapi_python_client", "generate", "--path", CONTRACT, "--meta", "none",
        "--output-path", tmp_path / "gw_client",
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    shutil.copy2(SOURCES / "walk.py", tmp_path)
    (tmp_path / "home").mkdir()
    async with rest_world(tmp_path / "home") as rest:
        key = await rest.world.key()
        done = await asyncio.to_thread(run, tmp_path, python, "walk.py", rest.url, key, rest.upstream)
    assert (done.returncode, done.stdout.strip()) == (0, "walked"), done.stderr


async def test_a_client_typed_by_openapi_typescript_passes_tsc_and_walks_through_every_operation(
    tmp_path: Path,
) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        cannot("npm or node is not installed")
    tools = installed("openapi-typescript", SOURCES / "package-lock.json", [npm, "ci", "--ignore-scripts"])
    modules = tools / "node_modules"
    (tmp_path / "node_modules").symlink_to(modules)
    for name in ("package.json", "walk.ts"):
        shutil.copy2(SOURCES / name, tmp_path)
    for words in (
        [node, modules / "openapi-typescript" / "bin" / "cli.js", CONTRACT, "-o", "contract.ts"],
        [node, modules / "typescript" / "bin" / "tsc", "--strict", "--target", "es2022", "--module", "nodenext",
         "--lib", "es2023,dom,dom.iterable", "walk.ts"],
    ):  # fmt: skip
        made = await asyncio.to_thread(run, tmp_path, *words)
        assert made.returncode == 0, made.stdout + made.stderr
    (tmp_path / "home").mkdir()
    async with rest_world(tmp_path / "home") as rest:
        key = await rest.world.key()
        done = await asyncio.to_thread(run, tmp_path, node, "walk.js", rest.url, key, rest.upstream)
    assert (done.returncode, done.stdout.strip()) == (0, "walked"), done.stderr
