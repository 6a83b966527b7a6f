"""kill -9 between next, active, retiring and gone: no verifier meets a key that he can't know, no private key is left, no state lost
(rules A4, D2, I8)."""

import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from server.store.tables import secret_values
from tests.crash.writer import sweeper
from tests.test_jwks_rotation import STEP, Verifier, admin_of, signature
from tests.test_signing_keys import Clock, smart
from tests.world import World, gateway
from tools.signing_keys import LAST_SIGNATURE, MAX_AGE, NEXT_FOR, RETIRING_FOR

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Rotation:
    """One integration through its rotation."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.clock = Clock()
        self._verifiers = [Verifier(STEP * n) for n in range(int(MAX_AGE / STEP))]
        self._begun: list[tuple[datetime, str]] = []
        self.refused = 0

    async def live(self, world: World, time: timedelta) -> None:
        """Calls go on for that long. Shown at each moment: what a call signs that begins now, or began as long ago as a call can."""
        keys, ends = admin_of(world, self.clock), self.clock.now + time
        while self.clock.now < ends:
            now = self.clock.now
            self._begun = [(at, made) for at, made in self._begun if now - at <= LAST_SIGNATURE]
            self._begun.append((now, await signature(world)))
            for assertion in {self._begun[0][1], self._begun[-1][1]}:
                for verifier in self._verifiers:
                    self.refused += not await verifier.accepts(keys, world, assertion, now)
            self.clock.now += STEP

    def kill(self, step: str, *moment: str) -> None:
        """A process that takes this step is killed at that moment of it."""
        arguments = [str(self._home), self.clock.now.isoformat(), step, *moment]
        root = Path(__file__).parents[2]
        child = subprocess.run(
            [sys.executable, "-m", "tests.crash.rotator", *arguments],
            cwd=root,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert child.returncode == -signal.SIGKILL, child.stderr.decode()[-2000:]

    async def states(self) -> list[str]:
        """After a restart: calls go on, the sweep is done, and what the store holds is what the registry refers to."""
        async with gateway(self._home) as world:
            await self.live(world, STEP)
            await sweeper(world.app.registry, world.app.secrets).sweep()
            row = await world.app.registry.get("acme", "ehr")
            used = {(path, binding.version) for path, binding in row.bindings.items()}
            used |= {(key.path, key.version) for key in row.published_keys if key.state != "retiring"}
            async with world.app.registry._database.read() as connection:
                kept = await connection.execute(select(secret_values.c.path, secret_values.c.version))
                assert {tuple(stored) for stored in kept} == used
            await self.live(world, STEP)
            assert self.refused == 0
            return [key.state for key in sorted(row.published_keys, key=lambda key: key.since)]


async def test_a_rotation_goes_on_after_kill_9_at_every_moment_of_it(tmp_path: Path) -> None:
    rotation = Rotation(tmp_path)
    async with gateway(tmp_path) as world:
        await world.create(smart("generate:ES384"))
        await rotation.live(world, MAX_AGE)

    rotation.kill("generate", "secrets", "write", "after")  # the private key is stored, no row knows of it
    assert await rotation.states() == ["active"]
    rotation.kill("generate", "registry", "replace", "after")
    assert await rotation.states() == ["active", "next"]

    async with gateway(tmp_path) as world:
        await rotation.live(world, NEXT_FOR)
    rotation.kill("advance", "registry", "replace", "before")
    assert await rotation.states() == ["active", "next"]
    rotation.kill("advance", "registry", "replace", "after")
    rotation.kill("sweep", "secrets", "remove", "after")  # of the old private key
    assert set(await rotation.states()) == {"active", "retiring"}

    async with gateway(tmp_path) as world:
        await rotation.live(world, RETIRING_FOR)
    rotation.kill("advance", "registry", "replace", "after")
    assert await rotation.states() == ["active"]
