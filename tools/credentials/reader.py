"""Reads secrets for credentials: cached, one read at a time per secret, and past the cache at most once a minute (rules A5).

A value pinned to a version never changes and is kept while its catalog version lives; an unpinned one (a secret that is
only named) is read again after `ttl_s`. When the store is out, what is cached goes on.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tools.errors import CredentialUnavailable, SecretNotFound, SecretStoreUnavailable
from tools.secrets import ReadableSecrets, Secret

_MAX_ENTRIES = 10_000


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


class SecretReader:
    """`clock` is monotonic seconds."""

    def __init__(
        self, store: ReadableSecrets, *, ttl_s: float = 60, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._ttl = ttl_s
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str | None], _Entry] = OrderedDict()
        self._locks: dict[tuple[str, str | None], asyncio.Lock] = {}

    async def read(self, path: str, version: str | None = None) -> Secret:
        """The secret, from the cache where it is fresh. Raises CredentialUnavailable with what to do."""
        key = (path, version)
        entry = self._entries.get(key)
        if entry is not None and (version is not None or self._clock() - entry.read_at < self._ttl):
            return entry.secret
        return await self._read_through(key, entry)

    def forget(self, path: str) -> None:
        """The value at `path` was replaced or removed by this process: the newest is read again."""
        self._entries.pop((path, None), None)

    async def reread(self, path: str, used: str) -> Secret | None:
        """After a 401 with version `used` of an unpinned secret: the newer one, if there is one. At most once a minute."""
        key = (path, None)
        entry = self._entries.get(key)
        if entry is not None and entry.secret.version != used:
            return entry.secret  # somebody else's 401 has brought it already
        now = self._clock()
        if entry is not None and entry.reread_at is not None and now - entry.reread_at < 60 and key not in self._locks:
            return None
        if entry is not None:
            entry.reread_at = now
        secret = await self._read_through(key, entry)
        if (kept := self._entries.get(key)) is not None:
            kept.reread_at = now
        return secret if secret.version != used else None

    async def _read_through(self, key: tuple[str, str | None], stale: _Entry | None) -> Secret:
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                current = self._entries.get(key)
                if current is not stale and current is not None:
                    return current.secret  # somebody else read it while we waited
                try:
                    secret = await self._store.read(*key)
                except SecretNotFound:
                    raise CredentialUnavailable(
                        f"no secret is stored under {key[0]}",
                        advice=f"a person must store it: integrations-mcp secrets set {key[0]}",
                    ) from None
                except SecretStoreUnavailable as e:
                    if stale is not None:
                        return stale.secret
                    raise CredentialUnavailable(
                        f"the secret store can't be reached ({e.message})", advice="try again in a minute"
                    ) from None
                self._entries[key] = _Entry(secret, self._clock())
                if len(self._entries) > _MAX_ENTRIES:
                    self._entries.popitem(last=False)
                return secret
        finally:
            if not lock.locked():
                self._locks.pop(key, None)
