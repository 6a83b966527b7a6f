"""The figures of several worker processes as one: each keeps its own in a file, and whoever is asked adds the files up.

A worker holds a slot for as long as it lives. One that is started in place of another goes on with that one's counters, so they
never fall. The files are written once a second where something has changed: other workers' figures are at most that old.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

import anyio
import orjson

from server.metrics import Metrics, Sample
from server.metrics_text import added_up, is_counter

_EVERY_S = 1.0


class Slot:
    """One worker's place in `folder`, which is private to the server that started them all."""

    def __init__(self, folder: Path, metrics: Metrics) -> None:
        self._folder, self._metrics = folder, metrics
        self._lock, self._file = _claimed(folder)
        # Of the worker before: what it had counted, not what it was doing.
        self._before = [s for s in _read(self._file) if is_counter(s[0])]
        self._written = b""

    async def run(self) -> None:
        """Keeps the file up to date, until cancelled."""
        while True:
            self.write()
            await anyio.sleep(_EVERY_S)

    def write(self) -> list[Sample]:
        """This worker's figures, now; also into its file."""
        own = added_up([self._before, self._metrics.samples()])
        data = orjson.dumps(own)
        if data != self._written:
            new = self._file.with_suffix(".new")
            new.write_bytes(data)
            new.replace(self._file)
            self._written = data
        return own

    def all_workers(self) -> list[Sample]:
        """The sum, this worker's as they are now."""
        own = self.write()
        others = [_read(file) for file in self._folder.glob("*.json") if file != self._file]
        return added_up([own, *others])

    def close(self) -> None:
        self.write()
        os.close(self._lock)


def _claimed(folder: Path) -> tuple[int, Path]:
    """The first place that nobody holds: (its lock, its file). The lock ends with the process, however that ends."""
    number = 0
    while True:
        lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock, folder / f"{number}.json"
        os.close(lock)
        number += 1


def _read(file: Path) -> list[Sample]:
    try:
        return [(name, labels, value) for name, labels, value in orjson.loads(file.read_bytes())]
    except FileNotFoundError:
        return []
