"""Reads secrets for credentials: cached, one read at a time per secret, and past the cache at most once a minute (rules A5).

A value pinned to a version never changes and is kept while its catalog version lives; an unpinned one (a secret that is
only named) is read again after `ttl_s`. When the store is out or slow, what is cached goes on: one call waits for it, and for
some seconds after that none does.
"""

import asyncio
import contextvars
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tools.errors import CallError, CredentialUnavailable, SecretNotFound, StorageUnavailable
from tools.patience import PATIENCE_S
from tools.secrets import ReadableSecrets, Secret

_MAX_ENTRIES = 10_000
_REST_S = 5.0
"""After the store failed nobody who has a value waits for it."""
_Key = tuple[str, str | None]


class GivenSecrets:
    """Values that came with a request and are stored nowhere yet, by the path that they would have, before those of `store`."""

    def __init__(self, given: Mapping[str, str], store: ReadableSecrets) -> None:
        self._given, self._store = given, store

    async def read(self, path: str, version: str | None = None) -> Secret:
        value = self._given.get(path)
        return Secret(value, "given") if value is not None else await self._store.read(path, version)


@dataclass(slots=True)
class _Entry:
    secret: Secret
    read_at: float
    reread_at: float | None = None
    rests_until: float = 0.0


class SecretReader:
    """`clock` is monotonic seconds. `patience_s` is how long the store is waited for with a value at hand, `wait_s` without."""

    def __init__(
        self,
        store: ReadableSecrets,
        *,
        ttl_s: float = 60,
        patience_s: float = PATIENCE_S,
        wait_s: float = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._ttl, self._patience_s, self._wait_s = ttl_s, patience_s, wait_s
        self._clock = clock
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._reading: dict[_Key, asyncio.Task[Secret | Exception]] = {}
        self._tasks: set[asyncio.Task[Secret | Exception]] = set()

    async def read(self, path: str, version: str | None = None) -> Secret:
        """The secret, from the cache where it is fresh. Raises CredentialUnavailable with what to do."""
        key = (path, version)
        entry = self._entries.get(key)
        if entry is not None and (
            version is not None or self._clock() < max(entry.read_at + self._ttl, entry.rests_until)
        ):
            return entry.secret
        return await self._read_through(key, entry)

    def forget(self, path: str) -> None:
        """The value at `path` was replaced or removed by this process: the newest is read again."""
        self._entries.pop((path, None), None)
        self._reading.pop((path, None), None)

    async def reread(self, path: str, used: str) -> Secret | None:
        """After a 401 with version `used` of an unpinned secret: the newer one, if there is one. At most once a minute."""
        key = (path, None)
        entry = self._entries.get(key)
        if entry is not None and entry.secret.version != used:
            return entry.secret  # somebody else's 401 has brought it already
        now = self._clock()
        if (
            entry is not None
            and entry.reread_at is not None
            and now - entry.reread_at < 60
            and key not in self._reading
        ):
            return None
        if entry is not None:
            entry.reread_at = now
        secret = await self._read_through(key, entry)
        if (kept := self._entries.get(key)) is not None:
            kept.reread_at = now
        return secret if secret.version != used else None

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read_through(self, key: _Key, stale: _Entry | None) -> Secret:
        """What the store has. The read belongs to its key, not to who waits first: the others, and later ones, get it too."""
        reading = self._reading.get(key)
        if reading is None:
            context = contextvars.Context()  # nobody's call, so it isn't logged or traced as the first one's
            reading = asyncio.get_running_loop().create_task(self._asked(key), context=context)
            self._reading[key] = reading
            self._tasks.add(reading)
            reading.add_done_callback(self._tasks.discard)
        await asyncio.wait({reading}, timeout=self._wait_s if stale is None else self._patience_s)
        found = reading.result() if reading.done() else StorageUnavailable("it doesn't answer")
        match found:
            case Secret():
                return found
            case SecretNotFound():
                raise CredentialUnavailable(
                    f"no secret is stored under {key[0]}",
                    advice=f"a person must store it: integrations-mcp secrets set {key[0]}",
                )
            case StorageUnavailable():
                if stale is not None:
                    stale.rests_until = self._clock() + _REST_S
                    return stale.secret
                raise CredentialUnavailable(
                    f"the secret store can't be reached ({found.message})", retry_after_s=_REST_S
                )
            case _:
                raise found

    async def _asked(self, key: _Key) -> Secret | Exception:
        """Errors are returned, not raised: when everybody who waited has gone nobody would fetch the exception."""
        task = asyncio.current_task()
        try:
            secret = await self._store.read(*key)
        except (SecretNotFound, StorageUnavailable, CallError) as e:
            return e
        else:
            if self._reading.get(key) is task:  # not forgotten meanwhile
                self._entries[key] = _Entry(secret, self._clock())
                if len(self._entries) > _MAX_ENTRIES:
                    self._entries.popitem(last=False)
            return secret
        finally:
            if self._reading.get(key) is task:
                del self._reading[key]
