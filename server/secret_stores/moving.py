"""Moves every secret that the registry knows from one store to another: `secrets move`.

Copied and read back first; then each integration takes the versions of the new store; the copies in the old store go last. Cut off
anywhere, it is finished by running it again: a version that only the new store has was switched already.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.store.registry import SqlRegistry
from tools.errors import SecretNotFound, SecretStoreUnavailable, VersionMismatch
from tools.models import Integration
from tools.secrets import Secret, SecretStore

_LOOKED_AT = 5
"""How many of the newest versions are compared with a value before it is written once more."""
_ATTEMPTS = 10


@dataclass(slots=True)
class Moved:
    """`missing` are paths that integrations name and nobody has stored."""

    integrations: int = 0
    paths: set[str] = field(default_factory=set[str])
    missing: set[str] = field(default_factory=set[str])


class Moving:
    """`source` is what the servers use until now; both on the same registry."""

    def __init__(self, registry: SqlRegistry, source: SecretStore, target: SecretStore) -> None:
        self._registry, self._source, self._target = registry, source, target
        self._moved = Moved()

    async def run(self) -> Moved:
        """Raises SecretStoreUnavailable, StorageUnavailable; run it again then."""
        ours = {record.path for record in await self._registry.secret_records(None)}
        for path in sorted(ours):
            await self._copy(path, None)
        for workspace in await self._registry.workspaces():
            _, integrations = await self._registry.load(workspace)
            for integration in integrations:
                ours |= {path for path, binding in integration.bindings.items() if binding.owned}
                await self._switch(integration)
        for path in sorted(ours & self._moved.paths):
            await self._source.remove(path, list(await self._source.versions(path)))
        return self._moved

    async def _switch(self, integration: Integration) -> None:
        for _ in range(_ATTEMPTS):
            copied = await self._copy_all(integration)
            changed = with_versions(integration, copied)
            if changed == integration:
                return
            try:
                await self._registry.replace(changed, integration.version, {})
            except VersionMismatch:
                integration = await self._registry.get(integration.workspace_id, integration.id)
                continue
            self._moved.integrations += 1
            return
        raise SecretStoreUnavailable(f"{integration.name} is being changed too often: stop the servers first.")

    async def _copy_all(self, integration: Integration) -> dict[tuple[str, str | None], str | None]:
        wanted = {(path, binding.version) for path, binding in integration.bindings.items()}
        wanted |= {(key.path, key.version) for key in integration.published_keys if key.version is not None}
        # In the order of writing, so that the newest stays the newest.
        ordered = sorted(wanted, key=lambda w: (w[0], len(w[1] or ""), w[1] or ""))
        return {(path, version): await self._copy(path, version) for path, version in ordered}

    async def _copy(self, path: str, version: str | None) -> str | None:
        """The version in the new store that has this value; `version` itself where it is switched already."""
        try:
            secret = await self._source.read(path, version)
        except SecretNotFound:
            if await self._read(path, version) is None:
                self._moved.missing.add(path)
            return version
        self._moved.paths.add(path)
        found = await self._find(path, secret.value, newest=version is None)
        if found is None:
            found = await self._target.write(path, secret.value)
            back = await self._target.read(path, found)
            if back.value != secret.value:
                raise SecretStoreUnavailable(f"The new store gave another value back for {path}; nothing was removed.")
        return found if version is not None else None

    async def _find(self, path: str, value: str, *, newest: bool) -> str | None:
        versions = list(await self._target.versions(path))[-(1 if newest else _LOOKED_AT) :]
        for version in reversed(versions):
            kept = await self._read(path, version)
            if kept is not None and kept.value == value:
                return version
        return None

    async def _read(self, path: str, version: str | None) -> Secret | None:
        try:
            return await self._target.read(path, version)
        except SecretNotFound:
            return None


def with_versions(integration: Integration, copied: Mapping[tuple[str, str | None], str | None]) -> Integration:
    """The integration as it reads from the new store."""
    bindings = {
        path: binding.model_copy(update={"version": copied[path, binding.version]})
        for path, binding in integration.bindings.items()
    }
    keys = tuple(
        key if key.version is None else key.model_copy(update={"version": copied[key.path, key.version]})
        for key in integration.published_keys
    )
    return integration.model_copy(update={"bindings": bindings, "published_keys": keys})
