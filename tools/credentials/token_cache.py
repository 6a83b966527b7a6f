"""Minted tokens: one mint at a time per key, refreshed ahead, failures remembered (rules B4-B7). In memory, one per process.

The mint belongs to its entry, not to the first waiter: a cancelled caller leaves it running. An entry that was dropped is no
longer in the table, so what its mint still stores there reaches only those who waited for it.
"""

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from tools.credentials.smart_discovery import Pins, SmartDiscovery
from tools.credentials.timing import Timing
from tools.errors import CallError, CredentialRejected, Internal

MAX_LIFE_S = 24 * 3600.0
_FIRST_HOLD_S, _LAST_HOLD_S = 30.0, 300.0
_REFRESH_PAUSE_S = 5.0
_QUIET_AFTER_401_S = 60.0
_MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class Token:
    """A minted token. `life_s` counts from just before the request was sent; 0 or less: for those who wait for it only (B5).

    `masks` are the spellings of every secret of its mint; `explain` is the way to it, without any of them. `may_go_to` judges an
    origin ("https://host:443"); None: where its secrets may go.
    """

    value: str = field(repr=False)
    life_s: float
    masks: tuple[str, ...] = field(default=(), repr=False)
    explain: dict[str, object] = field(default_factory=dict[str, object], repr=False)
    more: tuple[tuple[str, str], ...] = ()
    may_go_to: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True)
class TokenKey:
    """Never shared between workspaces or integrations: two with equal config mint twice (rules B4)."""

    workspace: str
    integration_id: str
    config: str
    secret_versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A token and whether it was there already."""

    token: Token
    hit: bool


Mint = Callable[[], Awaitable[Token]]


@dataclass(slots=True)
class _Entry:
    token: Token | None = None
    refresh_at: float = 0.0
    dead_at: float = 0.0
    mint: asyncio.Task[Token | CallError] | None = None
    failure: CallError | None = None
    failures: int = 0
    hold_until: float = 0.0
    last_drop_at: float | None = None


class TokenCache:
    """What minting knows in this process. `aclose` ends the mints that still run.

    `methods` remembers the client authentication that worked (rules B1), `discovery` the SMART configurations (rules C6).
    """

    def __init__(
        self, timing: Timing | None = None, *, pins: Pins | None = None, max_entries: int = _MAX_ENTRIES
    ) -> None:
        self.timing = timing or Timing()
        self.discovery = SmartDiscovery(self.timing, pins)
        self.methods: dict[tuple[str, str, str, str], Literal["basic", "post"]] = {}
        self._max = max_entries
        self._entries: OrderedDict[TokenKey, _Entry] = OrderedDict()
        self._tasks: set[asyncio.Task[Token | CallError]] = set()
        self.minted = self.refused = 0
        """How many mints brought a token, and how many didn't."""

    async def token(self, key: TokenKey, mint: Mint) -> Held:
        """A token that works: the kept one, or the one that the single mint of this key brings. Raises what the mint raised."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry()
            if len(self._entries) > self._max:
                self._entries.popitem(last=False)
        else:
            self._entries.move_to_end(key)
        now = self.timing.monotonic()
        if entry.token is not None and now < entry.dead_at:
            if now >= entry.refresh_at and entry.mint is None and now >= entry.hold_until:
                self._start(entry, mint)
            return Held(entry.token, hit=True)
        if entry.failure is not None and now < entry.hold_until:
            raise _again(entry.failure, entry.hold_until - now)
        task = entry.mint or self._start(entry, mint)
        match await asyncio.shield(task):
            case Token() as token:
                return Held(token, hit=False)
            case failure:
                raise _again(failure)

    def reject(self, key: TokenKey, used: str) -> bool:
        """The origin answered 401 to token `used`. True: a newer one is there or will be minted, so try once more (rules B7)."""
        entry = self._entries.get(key)
        if entry is None or entry.token is None or entry.token.value != used:
            return True
        now = self.timing.monotonic()
        if entry.last_drop_at is not None and now - entry.last_drop_at < _QUIET_AFTER_401_S:
            return False
        entry.last_drop_at = now
        entry.token = None
        return True

    def drop(self, workspace: str, integration_id: str) -> None:
        """Forgets tokens, failures and the remembered client authentication: after a change of config, and for test-connection."""
        for key in [k for k in self._entries if (k.workspace, k.integration_id) == (workspace, integration_id)]:
            del self._entries[key]
        for method in [m for m in self.methods if m[:2] == (workspace, integration_id)]:
            del self.methods[method]

    async def settled(self) -> None:
        """Waits for the mints that run now, however they end."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, entry: _Entry, mint: Mint) -> asyncio.Task[Token | CallError]:
        # An empty context: the mint is nobody's call, so it isn't logged or traced as the first waiter's.
        task = asyncio.get_running_loop().create_task(self._mint(entry, mint), context=contextvars.Context())
        entry.mint = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _mint(self, entry: _Entry, mint: Mint) -> Token | CallError:
        """Errors are returned, not raised: when every waiter has gone nobody would fetch the exception."""
        begun = self.timing.monotonic()
        try:
            token = await mint()
        except CallError as failure:
            self.refused += 1
            self._remember(entry, failure)
            return failure
        except Exception:  # noqa: BLE001 - a fault of ours must reach every waiter, and may hold a secret in its text
            self.refused += 1
            failure = Internal("minting the token failed inside the gateway")
            self._remember(entry, failure)
            return failure
        else:
            self.minted += 1
            self._keep(entry, token, begun)
            return token
        finally:
            entry.mint = None

    def _keep(self, entry: _Entry, token: Token, begun: float) -> None:
        """Reused until max(half the life, life - 60 s), less a jitter of up to 10 % of what remains then (rules B5)."""
        entry.failure, entry.failures, entry.hold_until = None, 0, 0.0
        life = min(token.life_s, MAX_LIFE_S)  # 0 or less is over at once: kept only to know it again after a 401
        reuse = max(life / 2, life - 60)
        entry.token = token
        entry.refresh_at = begun + reuse - self.timing.random() * 0.1 * (life - reuse)
        entry.dead_at = begun + life

    def _remember(self, entry: _Entry, failure: CallError) -> None:
        """Rejected credentials are held 30 s, doubling to 5 min, so that they can't lock the account; Retry-After is obeyed (B6)."""
        now = self.timing.monotonic()
        hold = min(failure.retry_after_s or 0.0, _LAST_HOLD_S)
        if isinstance(failure, CredentialRejected):
            hold = max(hold, min(_FIRST_HOLD_S * 2**entry.failures, _LAST_HOLD_S))
            entry.failures = min(entry.failures + 1, 10)
        entry.failure = failure if hold else None
        # While the old token still works a failed refresh waits a little, else every call would start one.
        entry.hold_until = now + max(hold, _REFRESH_PAUSE_S if entry.token is not None else 0.0)


def _again(failure: CallError, wait_s: float | None = None) -> CallError:
    """The same failure as a new object: one exception raised for many waiters would share (and grow) its traceback."""
    copy = type(failure).__new__(type(failure))
    copy.__dict__.update(failure.__dict__)
    copy.args = failure.args
    if wait_s is not None:
        copy.retry_after_s = wait_s
    return copy
