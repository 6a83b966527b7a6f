"""Asks the servers whose tools nobody could read yet (they were down when their integration was written), where a caller needs them.

Each is asked once at a time, however many wait for it, and after a failure only when a growing pause is over: what is down isn't
hammered, and callers are told at once.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tools.callers import Caller
from tools.catalog import Catalog, Catalogs
from tools.errors import (
    CallError,
    GatewayError,
    Internal,
    NotFound,
    RegistryUnavailable,
    StorageUnavailable,
    UpstreamTimeout,
)
from tools.models import Integration

_PAUSE_S = (1.0, 60.0)
_CALL_WAIT_S, _LIST_WAIT_S = 10.0, 2.0
_MOST = 10_000
_LETTERS_COMPARED = 16
"""Of an integration's name: a tool's name begins with it, but a long one may be cut."""


class NotListed(Exception):
    """`integration` may have the tool; that can't be said, because it could never be asked: `error`."""

    def __init__(self, integration: Integration, error: CallError) -> None:
        super().__init__(error.message)
        self.integration, self.error = integration, error


@dataclass(slots=True)
class _Asked:
    version: int
    task: asyncio.Task[None] | None = None
    error: CallError | None = None
    failures: int = 0
    next_try: float = 0.0


class FirstListings:
    """`read` reads and keeps one integration's tools and raises as the listings of its kind do. `count` is told each call that
    asks (the operator's rates count it, and may refuse it); `fault` is told faults of ours."""

    def __init__(
        self,
        catalogs: Catalogs,
        read: Callable[[Integration], Awaitable[object]],
        count: Callable[[Caller, Integration], object],
        fault: Callable[[str, BaseException], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalogs, self._read, self._count, self._fault, self._clock = catalogs, read, count, fault, clock
        self._asked: dict[str, _Asked] = {}

    async def listed(self, caller: Caller) -> Catalog:
        """The catalog for a list. A server that was never asked is waited for a moment; one that failed is asked beside the list."""
        catalog = self._catalogs.peek(caller.workspace) or await self._catalogs.get(caller.workspace)
        if not (unread := _unread_of(catalog, caller)):
            return catalog
        new = [i for i in unread if not self._begun(i).failures]
        if new:
            with suppress(NotListed):  # health tells
                await self._wait(new, _LIST_WAIT_S)
        return await self._catalogs.get(caller.workspace)

    async def catalog_with(self, caller: Caller, name: str, catalog: Catalog) -> Catalog:
        """A catalog in which a tool that isn't in this one can be looked for: servers that it may be of were asked.

        Raises NotListed where one of them couldn't be asked and none has it, TooManyCalls, RegistryUnavailable.
        """
        unread = _unread_of(catalog, caller, name)
        for integration in unread:
            self._count(caller, integration)
        failed: NotListed | None = None
        try:
            await self._wait(unread, _CALL_WAIT_S)
        except NotListed as e:
            failed = e
        found = await self._catalogs.get(caller.workspace) if unread else catalog
        if failed is not None and name not in found.tools:
            raise failed
        return found

    async def _wait(self, unread: Sequence[Integration], within_s: float) -> None:
        """Returns when all were read, or raises NotListed for one that can't be, or wasn't within the time."""
        rows = [(i, self._begun(i)) for i in unread]
        running = [row.task for _, row in rows if row.task is not None]
        if running:
            await asyncio.wait(running, timeout=within_s)
        for integration, row in rows:
            if row.task is not None and not row.task.done():
                late = UpstreamTimeout(f"no list of its tools within {within_s:g} s", sent="no", retryable=True)
                raise NotListed(integration, late)
            if row.error is not None:
                raise NotListed(integration, row.error)

    def _begun(self, integration: Integration) -> _Asked:
        row = self._asked.get(integration.id)
        if row is None or row.version != integration.version:
            if len(self._asked) >= _MOST:
                self._asked = {id: r for id, r in self._asked.items() if r.task is not None and not r.task.done()}
            row = self._asked[integration.id] = _Asked(integration.version)
        if (row.task is None or row.task.done()) and self._clock() >= row.next_try:
            row.task = asyncio.ensure_future(self._ask(integration, row))
        return row

    async def _ask(self, integration: Integration, row: _Asked) -> None:
        try:
            await self._read(integration)
        except NotFound:
            row.error = None  # it was deleted meanwhile
        except StorageUnavailable as e:
            row.error = RegistryUnavailable(e.message)
        except CallError as e:
            row.error = e
        except TimeoutError:
            row.error = UpstreamTimeout("no list of its tools in time", sent="no", retryable=True)
        except GatewayError as e:
            row.error = Internal(e.message)
        except Exception as e:  # noqa: BLE001 - the one place where a fault of ours becomes an answer
            self._fault(f"the tools of {integration.id}", e)
            row.error = Internal("its tools can't be read")
        else:
            row.error = None
        if row.error is None:
            row.failures, row.next_try = 0, self._clock() + _PAUSE_S[0]  # what was read now shows with the next catalog
            return
        base, cap = _PAUSE_S
        row.next_try = self._clock() + min(cap, base * 2**row.failures) * (0.5 + random.random() / 2)  # noqa: S311 - jitter
        row.failures = min(row.failures + 1, 10)

    async def aclose(self) -> None:
        running = [row.task for row in self._asked.values() if row.task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _unread_of(catalog: Catalog, caller: Caller, name: str | None = None) -> list[Integration]:
    """Of the integrations that this caller can call, those without a list; with `name`, those that a tool of that name may be of."""
    if not catalog.unread or not caller.may("Integration.execute"):
        return []
    seen = [i for i in catalog.unread if caller.integrations is None or i.id in caller.integrations]
    if name is None:
        return seen
    if caller.tools is not None and name not in caller.tools:
        return []
    return [i for i in seen if name.lower().startswith(i.name.lower()[:_LETTERS_COMPARED])]
