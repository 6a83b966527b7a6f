"""The child of test_kill.py: writes integrations with inline secrets for ever and says what was acknowledged.

Each line on stdout is one JSON object {"do", "name", "value"}: "begin" before a write, "done" after it was acknowledged. The
writes go through the management operations, as everybody's do.
"""

import random
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import orjson

from server.app import open_app
from server.settings import Settings
from tools.address_guard import NetworkPolicy
from tools.callers import local_caller
from tools.checks import CheckRules
from tools.parsing import parse_create, parse_update
from tools.registry import Registry
from tools.secrets import SecretStore
from tools.writing import Writer

WORKSPACE = "acme"


def sweeper(registry: Registry, secrets: SecretStore) -> Writer:
    """A writer whose clock is a day ahead: everything that waits for its time is due."""
    later: Callable[[], datetime] = lambda: datetime.now(UTC) + timedelta(days=1)  # noqa: E731
    return Writer(registry, secrets, CheckRules(NetworkPolicy()), now=later)


def auth(value: str) -> dict[str, object]:
    return {"type": "bearer_token", "bearer_token_value": {"value": value}}


def say(do: str, name: str, value: str | None) -> None:
    sys.stdout.buffer.write(orjson.dumps({"do": do, "name": name, "value": value}) + b"\n")
    sys.stdout.buffer.flush()


async def main(home: Path, seed: int) -> None:
    chance = random.Random(seed)
    owner = local_caller(WORKSPACE)
    async with open_app(Settings(home=home, workspace=WORKSPACE, log_level="error"), network=NetworkPolicy()) as app:
        known = [integration.name for integration in (await app.registry.load(WORKSPACE))[1]]
        late = sweeper(app.registry, app.secrets)
        while True:
            value = chance.randbytes(8).hex()
            verb = chance.choice(["create", "change", "change", "delete", "sweep"]) if known else "create"
            name = f"n{chance.randbytes(8).hex()}" if verb == "create" else chance.choice(known)
            if verb == "sweep":
                await late.sweep()  # of older values, while this process runs on
                continue
            say("begin", name, None if verb == "delete" else value)
            match verb:
                case "create":
                    body = {"name": name, "display_name": "N", "base_url": "https://api.example", "auth": auth(value)}
                    await app.admin.create(owner, parse_create(body))
                    known.append(name)
                case "change":
                    await app.admin.update(owner, name, parse_update({"auth": auth(value)}, name))
                case _:
                    await app.admin.delete(owner, name)
                    known.remove(name)
            say("done", name, None if verb == "delete" else value)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
