"""History written behind: recording is an append to a bounded queue; a task writes it to the registry in batches.

A call never waits for its row and never fails by it. While the registry is out the queue fills, then further rows are dropped and
counted; the count is logged when the registry is back.
"""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

import anyio

from server.store.history import SqlHistory
from server.telemetry import Log
from tools.errors import StorageUnavailable
from tools.history import AuditQuery, AuditRecord, CallQuery, CallRecord

_EVERY_S = 0.5
_BATCH = 500
_FORGET_EVERY_S = 3600.0
log = Log("integrations_mcp")


@dataclass(frozen=True, slots=True)
class HistoryRules:
    """How long rows are kept; 0 days of calls records none. `queue` bounds what waits to be written, of each kind."""

    calls_days: int = 30
    audit_days: int = 365
    queue: int = 20_000


class WrittenBehind:
    """`tools.history.History`. Run `run` in the background and `close` at the end."""

    def __init__(
        self, store: SqlHistory, rules: HistoryRules, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store, self._rules, self._now = store, rules, now
        self._calls: deque[CallRecord] = deque()
        self._changes: deque[AuditRecord] = deque()
        self._writing = anyio.Lock()
        self._forgotten_at = float("-inf")
        self.dropped = self.ever_dropped = 0

    @property
    def waiting(self) -> int:
        return len(self._calls) + len(self._changes)

    def call(self, record: CallRecord) -> None:
        if self._rules.calls_days == 0:
            return
        if len(self._calls) < self._rules.queue:
            self._calls.append(record)
        else:
            self._drop()

    def change(self, record: AuditRecord) -> None:
        if len(self._changes) < self._rules.queue:
            self._changes.append(record)
        else:
            self._drop()

    def _drop(self) -> None:
        self.dropped += 1
        self.ever_dropped += 1

    async def calls(self, workspace: str, query: CallQuery) -> list[CallRecord]:
        await self._try_flush()
        return await self._store.calls(workspace, query)

    async def changes(self, workspace: str, query: AuditQuery) -> list[AuditRecord]:
        await self._try_flush()
        return await self._store.changes(workspace, query)

    async def _try_flush(self) -> None:
        """For readers: what can't be written (the disk is full) is told by `run`, and what is written can be read all the same."""
        with suppress(StorageUnavailable):
            await self.flush()

    async def flush(self) -> None:
        """Writes what is waiting now. Raises StorageUnavailable; then it still waits."""
        async with self._writing:
            left = len(self._calls), len(self._changes)
            while left != (0, 0):
                made = list(islice(self._calls, min(_BATCH, left[0])))
                changed = list(islice(self._changes, min(_BATCH, left[1])))
                await self._store.append(made, changed)
                for _ in made:
                    self._calls.popleft()
                for _ in changed:
                    self._changes.popleft()
                left = left[0] - len(made), left[1] - len(changed)

    async def run(self) -> None:
        """Writes every half second what has come, and forgets once an hour what is too old."""
        while True:
            try:
                await self.flush()
                await self._forget()
                self._tell_dropped()
            except StorageUnavailable as e:
                log.warning("history waits for the registry", reason=e.message, waiting=len(self._calls))
                await anyio.sleep(5)
            await anyio.sleep(_EVERY_S)

    async def close(self) -> None:
        """The last rows."""
        try:
            await self.flush()
        except StorageUnavailable as e:
            log.warning("history was not written", reason=e.message, calls=len(self._calls))

    async def _forget(self) -> None:
        if time.monotonic() - self._forgotten_at < _FORGET_EVERY_S:
            return
        now = self._now()
        await self._store.forget(
            now - timedelta(days=self._rules.calls_days), now - timedelta(days=self._rules.audit_days)
        )
        self._forgotten_at = time.monotonic()

    def _tell_dropped(self) -> None:
        if self.dropped:
            log.warning("history rows were dropped: the queue was full", rows=self.dropped)
            self.dropped = 0
