"""kill -9 in the middle of writes: the registry opens, every acknowledged write is there, no secret is orphaned (rules A4)."""

import json
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from server import keyring
from server.secret_stores.local import LocalSecretStore
from server.store.database import open_database
from server.store.registry import SqlRegistry
from server.store.tables import secret_values
from tests.crash.writer import WORKSPACE, sweeper

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

State = dict[str, str | None]  # integration -> its secret's value; None: deleted


def killed_after(home: Path, seed: int, lines: int, spin: int) -> list[dict[str, str | None]]:
    """Runs the writer, kills it `spin` turns of a busy loop after its line `lines`; returns every line it wrote."""
    command = [sys.executable, "-m", "tests.crash.writer", str(home), str(seed)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        said = [child.stdout.readline() for _ in range(lines)]
        for _ in range(spin):
            pass
        child.kill()
        said += child.stdout.readlines()
        errors = child.stderr.read()
    assert errors == b"", errors.decode()
    return [json.loads(line) for line in said if line.endswith(b"\n")]


def told(state: State, lines: list[dict[str, str | None]]) -> tuple[State, dict[str, set[str | None]]]:
    """What must be there now; for the write in flight at the kill (at most one), the ends that it may have had."""
    state, open_ends = dict(state), {}
    for line in lines:
        name, value = str(line["name"]), line["value"]
        if line["do"] == "begin":
            open_ends = {name: {state.get(name), value}}
        else:
            state[name], open_ends = value, {}
    return state, open_ends


@pytest.mark.parametrize("run", range(5))
async def test_nothing_acknowledged_is_lost_and_no_secret_is_orphaned(tmp_path: Path, run: int) -> None:
    chance = random.Random(run)
    state: State = {}
    for moment in range(10):
        lines = killed_after(
            tmp_path, seed=run * 100 + moment, lines=chance.randint(1, 24), spin=chance.randint(0, 200_000)
        )
        state, open_ends = told(state, lines)
        async with open_database(f"sqlite:///{tmp_path}/registry.db") as database:
            registry, secrets = SqlRegistry(database), LocalSecretStore(database, keyring.kept_in(tmp_path))
            await sweeper(registry, secrets).sweep()
            _, rows = await registry.load(WORKSPACE)
            bound = {row.name: next(iter(row.bindings.items())) for row in rows}
            found = {name: (await secrets.read(path, b.version)).value for name, (path, b) in bound.items()}
            for name, ends in open_ends.items():
                assert found.get(name) in ends
                state[name] = found.get(name)
            assert found == {name: value for name, value in state.items() if value is not None}
            async with database.read() as connection:
                kept = await connection.execute(select(secret_values.c.path, secret_values.c.version))
                assert {tuple(row) for row in kept} == {(path, b.version) for path, b in bound.values()}
            assert await registry.due_sweeps(datetime.now(UTC) + timedelta(days=2)) == []
