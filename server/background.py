"""Runs background calls: every process claims what waits, keeps its leases, and stops what was cancelled (`tools.background`).

A lease that isn't renewed ends, and another process takes the call over: clocks of replicas may differ by less than a lease.
When the clock steps, leases mean nothing until their owners have renewed them by the new time, so a process takes over nothing for
one lease after a step. A lease that reaches further ahead then is of a process that died before the step.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import anyio

from server.auth import caller_of
from server.store.background import SqlCallQueue
from server.telemetry import Log
from server.wire import call_result
from tools.background import BackgroundCall, News, cut_off, may_begin
from tools.call import CallContext
from tools.callers import Caller
from tools.catalog import Catalogs
from tools.endings import refused
from tools.errors import CallError, Internal, NotAllowed, NotFound, StorageUnavailable
from tools.gateway import Gateway
from tools.history import CallRecord, call_record
from tools.outcome import Outcome
from tools.registry import KeyStore

LEASE = timedelta(seconds=30)
MOST = 32
"""Calls that one process runs at once."""
_STEP_S = 5.0
"""A clock that moved by more than this beside the monotonic one was set."""
_RETRY_S = 2.0
_T = TypeVar("_T")
log = Log("integrations_mcp")


class Worker:
    """`run` it in the background; `drain` before the end. `record` takes the history of what never came to the gateway.

    `now` is UTC, `clock` monotonic seconds.
    """

    def __init__(
        self,
        queue: SqlCallQueue,
        gateway: Gateway,
        catalogs: Catalogs,
        keys: KeyStore,
        news: News,
        record: Callable[[CallRecord], None],
        *,
        lease: timedelta = LEASE,
        most: int = MOST,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue, self._gateway, self._catalogs, self._keys = queue, gateway, catalogs, keys
        self._news, self._record, self._lease, self._most, self._now = news, record, lease, most, now
        self._owner = uuid.uuid4().hex
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, float] = {}
        self._looking = anyio.Lock()
        self._draining = False
        self._clock, self._apart = clock, now().timestamp() - clock()
        self._began, self._stepped = clock(), float("-inf")

    async def run(self) -> None:
        """Until cancelled; then what still runs is left to others at once."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._follow)
                tasks.start_soon(self._keep)
        finally:
            with anyio.move_on_after(5, shield=True):
                await self.abandon()

    async def look(self) -> None:
        """Stops what isn't ours any more, and begins what waits. Raises StorageUnavailable."""
        async with self._looking:
            if self._tasks:
                held = await self._queue.held(self._owner)
                for id, task in self._tasks.items():
                    if id not in held:
                        task.cancel()
            free = 0 if self._draining else self._most - len(self._tasks)
            if free > 0:
                now = self._now()
                past, beyond = self._over(now)
                # Not what runs here: it is ours, however late the clock says it is.
                for call in await self._queue.claim(
                    self._owner, now, now + self._lease, free, past=past, beyond=beyond, but=self._tasks.keys()
                ):
                    self._begin(call)

    def _over(self, now: datetime) -> tuple[datetime | None, datetime | None]:
        """Leases that ended by the first moment or reach beyond the second are over; None: none such is, for now."""
        clock, lease = self._clock(), self._lease.total_seconds()
        apart = now.timestamp() - clock
        if abs(apart - self._apart) > _STEP_S:
            self._stepped = clock
        self._apart = apart
        past = now if clock - self._stepped >= lease else None
        # Right after a start a step isn't known, and owners that live may not have renewed yet.
        return past, now + 2 * self._lease if clock - max(self._began, self._stepped) >= lease else None

    async def beat(self) -> None:
        """Renews the leases. Raises StorageUnavailable."""
        if self._tasks:
            progress, self._progress = self._progress, {}
            await self._queue.beat(self._owner, self._now() + self._lease, progress)

    async def drain(self, grace_s: float) -> None:
        """Begins nothing more and lets what runs end, for a while."""
        self._draining = True
        with anyio.move_on_after(grace_s):
            async with self._looking:
                pass  # a look under way may have claimed calls: cut off now, they would end unsent as "perhaps carried out"
            if self._tasks:
                await asyncio.wait(self._tasks.values())

    async def abandon(self) -> None:
        """Cuts off what still runs and leaves it to others at once."""
        left = tuple(self._tasks.values())
        if not left:
            return
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._try(self._release)

    # ------------------------------------------------------------------ in the background

    async def _follow(self) -> None:
        async for _ in self._queue.changes():
            await self._try(self._tell)
            await self._try(self.look)

    async def _keep(self) -> None:
        while True:
            await anyio.sleep(self._lease.total_seconds() / 3)
            await self._try(self.beat)
            await self._try(self._tell)
            await self._try(self.look)  # leases that ended are told by nobody

    async def _tell(self) -> None:
        if waited := self._news.expected():
            self._news.tell(waited - await self._queue.still_open(waited))

    async def _try(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except StorageUnavailable as e:
            log.warning("background calls wait for the registry", reason=e.message)

    async def _release(self) -> None:
        await self._queue.release(self._owner, self._now())

    # ------------------------------------------------------------------ one call

    def _begin(self, call: BackgroundCall) -> None:
        task = self._tasks[call.id] = asyncio.ensure_future(self._run(call))
        task.add_done_callback(lambda _: self._tasks.pop(call.id, None))

    async def _run(self, call: BackgroundCall) -> None:
        try:
            outcome = await self._outcome(call)
        except Exception as e:
            log.error("a background call failed by a fault of the gateway", call_id=call.id, exc_info=e)
            outcome = self._refused(call, Internal(f"call {call.id}"))
        code = outcome.error.full_code if outcome.error is not None else None
        state, result = "failed" if outcome.is_error else "done", call_result(outcome)
        while True:
            try:
                await self._queue.end(call, self._owner, state, result, code, self._now())
                return
            except StorageUnavailable as e:
                log.warning("the answer of a background call waits for the registry", call_id=call.id, reason=e.message)
                await anyio.sleep(_RETRY_S)

    async def _outcome(self, call: BackgroundCall) -> Outcome:
        """Runs it with the permissions that its caller has now (rules H4)."""
        try:
            caller = await self._patiently(lambda: self._caller(call))
            catalog = await self._patiently(lambda: self._catalogs.get(caller.workspace))
            tool = catalog.find(caller, call.tool)
            if tool.integration.id != call.integration:
                raise NotAllowed(f"{call.tool} is another system's tool by now")
        except CallError as e:
            return self._refused(call, e)
        if not may_begin(call, tool):
            outcome = cut_off(call, tool, catalog.check_for(tool, caller))
            self._record(call_record(caller, outcome, call.integration, self._now(), None))
            return outcome

        async def progress(done: float, message: str, total: float | None = None) -> None:
            if total:
                self._progress[call.id] = max(0.0, min(1.0, done / total))

        context = CallContext(call.hops, call.idempotency_key, progress, kept_as=call.id, request_id=call.request_id)
        return await self._gateway.run(caller, catalog, tool, call.arguments, context, call.id)

    async def _caller(self, call: BackgroundCall) -> Caller:
        """Raises NotAllowed where the key is gone or the token's time is over. A local user's rights are those of his own start."""
        if call.caller.kind != "key":
            if call.caller.ends is not None and call.caller.ends <= self._now():
                raise NotAllowed("the access token that made this call expired before it ran")
            return call.caller
        try:
            row = await self._keys.get_key(call.caller.workspace, call.caller.id)
        except NotFound:
            raise NotAllowed("the API key that made this call was revoked before it ran") from None
        if row.expires_at is not None and row.expires_at <= self._now():
            raise NotAllowed("the API key that made this call expired before it ran")
        return caller_of(row)

    async def _patiently(self, read: Callable[[], Awaitable[_T]]) -> _T:
        """Nothing was sent yet, so an outage of the registry is waited for."""
        while True:
            try:
                return await read()
            except StorageUnavailable as e:
                log.warning("a background call waits for the registry", reason=e.message)
                await anyio.sleep(_RETRY_S)

    def _refused(self, call: BackgroundCall, error: CallError) -> Outcome:
        outcome = refused(call.id, call.tool, error, call.request_id)
        self._record(call_record(call.caller, outcome, call.integration, self._now(), None))
        return outcome
