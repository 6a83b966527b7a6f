"""A file that is the whole registry of a workspace: loaded at the start, watched, loaded again when it changes.

Its integrations are `builtin`. A new version with a fault is logged with file and line, and the one before goes on.
"""

from dataclasses import replace
from pathlib import Path

import anyio

from server.config_file import SUFFIXES, ConfigError, read_entries
from server.config_plan import Door, Planner
from server.settings import Settings
from server.telemetry import Log
from tools.callers import local_caller
from tools.errors import GatewayError, NameTaken, NotFound, VersionMismatch
from tools.registry import Registry
from tools.secrets import SecretStore

_LOOK_S = 1.0
_ATTEMPTS = 20
log = Log("integrations_mcp")

Stamp = tuple[tuple[str, int, int, int], ...]


def config_watch(settings: Settings, door: Door, registry: Registry, secrets: SecretStore) -> "ConfigWatch | None":
    """The watch over the setting `config`, if there is one; `door` writes as the operator's file (builtin)."""
    if settings.config is None:
        return None
    caller = replace(local_caller(settings.workspace), id="config-file")
    limit = settings.tool_name_max
    return ConfigWatch(settings.config, Planner(door, registry, secrets, caller, tool_name_max=limit, builtin=True))


class ConfigWatch:
    """`planner` writes as the operator's file (builtin)."""

    def __init__(self, path: Path, planner: Planner, *, look_s: float = _LOOK_S) -> None:
        self._path, self._planner, self._look_s = path, planner, look_s
        self._seen: Stamp | None = None

    async def load(self) -> None:
        """Makes the registry what the file says. Raises ConfigError, with file and line, and then nothing was changed."""
        self._seen = self._stamp()
        entries = read_entries(self._path, None)
        for attempt in range(_ATTEMPTS):
            plan = await self._planner.plan(entries, prune=True)
            try:
                await self._planner.carry_out(plan)
                return
            except (NameTaken, VersionMismatch, NotFound):
                # Another worker process loads the same file at the same moment.
                if attempt == _ATTEMPTS - 1:
                    raise
                await anyio.sleep(self._look_s / 10)

    async def follow(self) -> None:
        """Never ends. Looks at the file again and again; also one that is replaced by renaming, or gone for a while."""
        while True:
            await anyio.sleep(self._look_s)
            stamp = self._stamp()
            if stamp == self._seen:
                continue
            try:
                await self.load()
            except ConfigError as e:
                faults = [str(fault) for fault in e.faults]
                log.error("the config file has faults; the version before goes on", faults=faults)
            except GatewayError as e:
                log.warning("the config file is loaded later", reason=e.message)
                self._seen = None
            else:
                log.info("the config file was loaded again", file=str(self._path))

    def _stamp(self) -> Stamp | None:
        """What changes when a file does; None while it isn't there."""
        try:
            files = sorted(self._path.iterdir()) if self._path.is_dir() else [self._path]
            stats = [(file.name, file.stat()) for file in files if file.suffix in SUFFIXES or file == self._path]
        except OSError:
            return None
        return tuple((name, s.st_mtime_ns, s.st_size, s.st_ino) for name, s in stats)
