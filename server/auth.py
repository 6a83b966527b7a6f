"""Who is calling: API keys as Bearer tokens. A key is shown once and kept as its SHA-256; guessing is limited by address.

A key that was seen goes on for at most `offline_s` while the registry is out (semantics: "Callers and permissions").
"""

import hashlib
import ipaddress
import secrets
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tools.callers import ROLE_PERMISSIONS, Caller, Permission, Role
from tools.errors import Forbidden, RateLimited, StorageUnavailable, Unauthenticated
from tools.patience import Patience
from tools.registry import ApiKey, KeyStore

KEY_PREFIX = "imcp_"
_MAX_CACHED, _MAX_FAILED = 100_000, 10_000
_GO_ON_S = 5.0
_PREFIX = len(KEY_PREFIX) + 6
"""Characters of a key that are counted as one key being guessed: 36 bits of 256."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made: the only moment at which `api_key` is known."""

    api_key: str
    row: ApiKey


@dataclass(slots=True)
class _Seen:
    row: ApiKey
    caller: Caller
    checked_at: float
    go_on_until: float = float("-inf")
    """The registry didn't answer just now: it isn't asked again before."""


def hash_key(api_key: str) -> bytes:
    """Keys are 256 random bits: one SHA-256 is enough, and nothing can be learned from how long a lookup takes."""
    return hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).digest()


def caller_of(key: ApiKey) -> Caller:
    return Caller(
        id=key.id,
        workspace=key.workspace,
        kind="key",
        role=key.role,
        permissions=key.permissions,
        integrations=key.integrations,
        tools=key.tools,
    )


class GuessLimit:
    """Failed keys by who tries: a burst of `burst`, then one every `refill_s`; of 10,000, the oldest are forgotten."""

    def __init__(self, *, burst: int = 20, refill_s: float = 3.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._refill, self._clock = burst, refill_s, clock
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, address: str, prefix: str = "") -> None:
        """Raises RateLimited when this address, or the beginning of this key, has failed too often."""
        for name in _who(address, prefix):
            level, wait = self._level(name)
            if level >= self._burst:
                what = "that begin like this one" if name.startswith("key ") else "from this address"
                raise RateLimited(f"too many wrong API keys or tokens {what}", wait)

    def failed(self, address: str, prefix: str = "") -> None:
        for name in _who(address, prefix):
            level, _ = self._level(name)
            self._failures[name] = (level + 1, self._clock())
            self._failures.move_to_end(name)
            if len(self._failures) > _MAX_FAILED:
                self._failures.popitem(last=False)

    def _level(self, name: str) -> tuple[float, float]:
        level, at = self._failures.get(name, (0.0, 0.0))
        level = max(0.0, level - (self._clock() - at) / self._refill)
        return level, max(1.0, (level - self._burst + 1) * self._refill)


def network_of(address: str) -> str:
    """Of IPv6 the /64: whoever has one address there has all of them."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return address


def _who(address: str, prefix: str) -> list[str]:
    return [network_of(address), *([f"key {prefix}"] if prefix else [])]


class Keys:
    """Makes and checks API keys. `clock` is monotonic seconds, `now` UTC."""

    def __init__(
        self,
        store: KeyStore,
        *,
        trust_s: float = 30.0,
        offline_s: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        limit: GuessLimit | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._store = store
        self._patience = patience or Patience()
        self._trust, self._offline = trust_s, offline_s
        self._clock, self._now = clock, now
        self._limit = limit or GuessLimit(clock=clock)
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()
        self._used: dict[str, datetime] = {}

    def peek(self, api_key: str) -> Caller | None:
        """The caller if the key is known and fresh: no await, for the path of a call."""
        seen = self._seen.get(hash_key(api_key))
        if seen is None or self._clock() - seen.checked_at >= self._trust:
            return None
        return self._admit(seen)

    async def caller(self, api_key: str, address: str) -> Caller:
        """Who holds the key. Raises Unauthenticated, RateLimited, StorageUnavailable."""
        digest = hash_key(api_key)
        seen = self._seen.get(digest)
        if seen is not None and self._clock() - seen.checked_at < self._trust and (caller := self._admit(seen)):
            return caller
        known = seen if seen is not None and self._clock() - seen.checked_at < self._offline else None
        if known is not None and self._clock() < known.go_on_until and (caller := self._admit(known)):
            return caller
        try:
            looking = self._store.key_by_hash(digest)
            row = await (looking if known is None else self._patience.wait(looking))
        except StorageUnavailable:
            if known is not None and (caller := self._admit(known)):
                known.go_on_until = self._clock() + _GO_ON_S
                return caller
            raise
        if row is not None:
            seen = _Seen(row, caller_of(row), self._clock())
            if (caller := self._admit(seen)) is not None:
                self._keep(digest, seen)
                return caller
        self._seen.pop(digest, None)
        # After the lookup: behind a proxy all callers have one address, and one who guesses must not lock out the others.
        self._limit.check(address, api_key[:_PREFIX])
        self._limit.failed(address, api_key[:_PREFIX])
        raise Unauthenticated(
            "no valid API key: send Authorization: Bearer KEY with one from `integrations-mcp keys create`"
        )

    def forget(self) -> None:
        """Some key was written somewhere: every known key is looked up again before it is believed."""
        for seen in self._seen.values():
            seen.checked_at = min(seen.checked_at, self._clock() - self._trust)
            seen.go_on_until = float("-inf")

    def remember(self, rows: Iterable[ApiKey]) -> None:
        """Keys just read from the registry: known from now on, also if it is away when they are used first."""
        for row in rows:
            self._keep(row.hash, _Seen(row, caller_of(row), self._clock()))

    def _keep(self, digest: bytes, seen: _Seen) -> None:
        self._seen[digest] = seen
        self._seen.move_to_end(digest)
        if len(self._seen) > _MAX_CACHED:
            self._seen.popitem(last=False)

    def _admit(self, seen: _Seen) -> Caller | None:
        now = self._now()
        if seen.row.expires_at is not None and seen.row.expires_at <= now:
            return None
        self._used[seen.row.id] = now
        return seen.caller

    async def write_used(self) -> None:
        """Writes last_used_at of the keys used since the last time, in one batch."""
        used, self._used = self._used, {}
        if used:
            await self._store.touch_keys(used)

    async def create(
        self,
        workspace: str,
        *,
        role: Role = "member",
        name: str = "",
        permissions: Sequence[Permission] | None = None,
        integrations: Sequence[str] | None = None,
        tools: Sequence[str] | None = None,
        days: int | None = None,
        by: Caller | None = None,
    ) -> NewKey:
        """A new key; `days` None never expires (the operator's CLI only). Nobody gives more than his own (rules H4)."""
        now = self._now()
        wanted = frozenset(permissions) if permissions is not None else ROLE_PERMISSIONS[role]
        row = ApiKey(
            id="key_" + uuid.uuid4().hex[:20],
            workspace=workspace,
            name=name,
            role=role,
            permissions=wanted,
            hash=b"",
            created_at=now,
            expires_at=None if days is None else now + timedelta(days=days),
            integrations=None if integrations is None else frozenset(integrations),
            tools=None if tools is None else frozenset(tools),
        )
        if by is not None:
            await self._check_not_more(row, by)
        return await self._insert(row)

    async def rotate(self, workspace: str, key_id: str, by: Caller | None = None) -> NewKey:
        """A new key with the old one's rights; the old one ends in the same transaction. A key that rotates itself keeps its end."""
        old = await self._store.get_key(workspace, key_id)
        now = self._now()
        ends = now + (old.expires_at - old.created_at) if old.expires_at else None
        if by is not None and by.id == old.id:
            ends = old.expires_at
        row = ApiKey(
            id="key_" + uuid.uuid4().hex[:20],
            workspace=old.workspace,
            name=old.name,
            role=old.role,
            permissions=old.permissions,
            hash=b"",
            created_at=now,
            expires_at=ends,
            integrations=old.integrations,
            tools=old.tools,
        )
        if by is not None:
            await self._check_not_more(row, by)
        return await self._insert(row, old_id=old.id)

    async def _check_not_more(self, row: ApiKey, by: Caller) -> None:
        if not row.permissions <= by.permissions or (row.role in ("owner", "admin") and not by.is_admin):
            raise Forbidden("a key can't be given more permissions than your own")
        for name, wanted, own in (
            ("integrations", row.integrations, by.integrations),
            ("tools", row.tools, by.tools),
        ):
            if own is not None and (wanted is None or not wanted <= own):
                raise Forbidden(f"a key can't be given more {name} than your own")
        ends = (await self._store.get_key(by.workspace, by.id)).expires_at if by.kind == "key" else by.ends
        if ends is not None and (row.expires_at is None or row.expires_at > ends):
            own = "key" if by.kind == "key" else "access token"
            raise Forbidden(f"a key can't outlive your own {own}, which ends {ends:%Y-%m-%d %H:%M} UTC")

    async def _insert(self, row: ApiKey, old_id: str | None = None) -> NewKey:
        from dataclasses import replace

        api_key = KEY_PREFIX + secrets.token_urlsafe(32)
        row = replace(row, hash=hash_key(api_key))
        if old_id is None:
            await self._store.insert_key(row)
        else:
            await self._store.replace_key(old_id, row)
        self.forget()
        return NewKey(api_key, row)

    async def revoke(self, workspace: str, key_id: str) -> None:
        """Ends a key at once here, and within a second in other processes. Raises NotFound."""
        await self._store.delete_key(workspace, key_id)
        self.forget()
