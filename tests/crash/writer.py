"""The child of test_kill.py: writes integrations and their secrets for ever and says what was acknowledged.

Each line on stdout is one JSON object {"do", "id", "value"}: "begin" before a write, "done" after it was acknowledged.
`Provisioned` is the seam: it does a write in the order of rules A4, and is all that knows that order.
"""

import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import anyio
import orjson

from server.secret_stores import keyring
from server.secret_stores.local import LocalSecretStore
from server.store.database import open_database
from server.store.registry import SqlRegistry
from tools.models import Binding, Integration
from tools.registry import Registry
from tools.secrets import SecretStore

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
GUARD = timedelta(minutes=10)
GRACE = timedelta(minutes=1)


class Provisioned:
    """Writes of an integration with one secret; all due moments are counted from EPOCH."""

    def __init__(self, registry: Registry, secrets: SecretStore) -> None:
        self._registry = registry
        self._secrets = secrets

    async def create(self, id: str, value: str) -> None:
        path = path_of(id)
        version = await self._provision(path, value)
        await self._registry.insert(_integration(id, version), {path: None})

    async def change(self, id: str, value: str) -> None:
        path = path_of(id)
        row = await self._registry.get("acme", id)
        version = await self._provision(path, value)
        await self._registry.replace(_integration(id, version), row.version, {path: EPOCH + GRACE})

    async def delete(self, id: str) -> None:
        await self._registry.delete("acme", id, None, {path_of(id): EPOCH + GRACE})

    async def _provision(self, path: str, value: str) -> str:
        await self._registry.schedule_sweep([path], EPOCH + GUARD)
        return await self._secrets.write(path, value)

    async def sweep(self, now: datetime) -> None:
        for path in await self._registry.due_sweeps(now):
            stored = await self._secrets.versions(path)
            await self._secrets.remove(path, set(stored) - await self._registry.secret_versions(path))
            await self._registry.sweep_done(path, now)


def path_of(id: str) -> str:
    return f"/gw/acme/integrations/{id}/token"


def _integration(id: str, version: str) -> Integration:
    return Integration(
        id=id,
        workspace_id="acme",
        name=f"n{id}",
        display_name="N",
        created_at=EPOCH,
        updated_at=EPOCH,
        bindings={path_of(id): Binding(version=version, owned=True)},
    )


def say(do: str, id: str, value: str | None) -> None:
    sys.stdout.buffer.write(orjson.dumps({"do": do, "id": id, "value": value}) + b"\n")
    sys.stdout.buffer.flush()


async def main(home: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with open_database(f"sqlite:///{home}/registry.db") as database:
        registry = SqlRegistry(database)
        provisioned = Provisioned(registry, LocalSecretStore(database, keyring.kept_in(home)))
        known = [integration.id for integration in (await registry.load("acme"))[1]]
        while True:
            value = chance.randbytes(8).hex()
            verb = chance.choice(["create", "change", "change", "delete", "sweep"]) if known else "create"
            id = str(UUID(bytes=chance.randbytes(16))) if verb == "create" else chance.choice(known or [""])
            if verb == "sweep":
                await provisioned.sweep(EPOCH + GRACE)  # of older values, while this process runs on
                continue
            say("begin", id, None if verb == "delete" else value)
            match verb:
                case "create":
                    await provisioned.create(id, value)
                    known.append(id)
                case "change":
                    await provisioned.change(id, value)
                case _:
                    await provisioned.delete(id)
                    known.remove(id)
            say("done", id, None if verb == "delete" else value)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
