"""Warm sessions: one for each upstream and credential, made on demand, each owned by one task that opens, watches and closes it.

A failed connection is remembered for a moment (backoff with jitter), so that callers of a dead upstream are told at once and the
upstream isn't hammered. What nobody used for a while is closed; a stdio upstream's process ends with its session.
"""

import asyncio
import copy
import hashlib
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson

from tools.errors import CallError, TooManyCalls, UpstreamUnreachable
from tools.kinds.mcp.connecting import Connected, Connecting, connect
from tools.kinds.mcp.session import Era
from tools.models import AuthConfig, Integration

IDLE_S = 300.0
MAX_SESSIONS = 500
SHARED_ASKER = "*"
FIRST_ASKING = "2025-06-18"
"""The protocol version that brought elicitation."""
_BACKOFF_S = (0.5, 30.0)


class McpSessions:
    """`on_change` is told of integrations whose upstream says that its tools changed, and of every new connection."""

    def __init__(
        self,
        connecting: Connecting,
        *,
        idle_s: float = IDLE_S,
        max_sessions: int = MAX_SESSIONS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connecting, self._idle, self._max, self._clock = connecting, idle_s, max_sessions, clock
        self._warm: dict[tuple[str, str, str], _Warm] = {}
        self._retiring: set[_Warm] = set()
        self.on_change: Callable[[Integration], None] = lambda _: None

    @asynccontextmanager
    async def use(
        self, integration: Integration, auth: AuthConfig | None, asker: str = ""
    ) -> AsyncGenerator[Connected, None]:
        """A connected session, connecting where there is none. Raises CallErrors: nothing was sent.

        `asker` (see `asker_of`) names the session of callers that can be asked; one of a single caller ends with a call that
        was given up, since a late question of that would be put to the next.
        """
        warm = self._of(integration, auth, asker)
        warm.users += 1
        try:
            yield await warm.connected()
        except asyncio.CancelledError:
            if asker not in ("", SHARED_ASKER) and not warm.retired:
                key = next((k for k, w in self._warm.items() if w is warm), None)
                if key is not None:
                    self._retire(self._warm.pop(key))
            raise
        finally:
            warm.used_at = self._clock()
            warm.users -= 1
            if warm.retired:
                warm.wake.set()

    def forget(self, integration_id: str) -> None:
        """The integration is gone or was changed: its sessions end when their running calls have."""
        for key in [key for key in self._warm if key[0] == integration_id]:
            self._retire(self._warm.pop(key))

    def count(self) -> int:
        """Sessions that are open now."""
        return sum(1 for w in (*self._warm.values(), *self._retiring) if w.is_open)

    async def aclose(self) -> None:
        """Ends all sessions at once; no process stays."""
        everything = [*self._warm.values(), *self._retiring]
        self._warm.clear()
        await asyncio.gather(*(warm.stop() for warm in everything))

    def _of(self, integration: Integration, auth: AuthConfig | None, asker: str) -> "_Warm":
        key = (integration.id, "" if auth is None or auth == integration.auth else auth.model_dump_json(), asker)
        warm = self._warm.get(key)
        if warm is not None and (warm.integration is integration or warm.source == source_of(integration, auth)):
            warm.integration = integration
            return warm
        if warm is not None:
            self._retire(self._warm.pop(key))
        if len(self._warm) >= self._max:
            self._make_room()
        made = self._warm[key] = _Warm(self, integration, auth, asks=bool(asker))
        return made

    def _make_room(self) -> None:
        idle = min((w.used_at, k) for k, w in self._warm.items() if not w.users) if self._warm else None
        if idle is None:
            raise TooManyCalls("too many MCP upstreams are in use at once")
        self._retire(self._warm.pop(idle[1]))

    def _retire(self, warm: "_Warm") -> None:
        warm.retired = True
        warm.wake.set()
        if warm.is_open:
            self._retiring.add(warm)

    # ------------------------------------------------------------------ for _Warm

    async def open(self, warm: "_Warm") -> Connected:
        def notice(method: str, params: Mapping[str, Any]) -> None:
            if method == "notifications/tools/list_changed":
                self.on_change(warm.integration)

        return await connect(self._connecting, warm.integration, warm.auth, warm.era, notice, asks=warm.asks)

    def closed(self, warm: "_Warm") -> None:
        self._retiring.discard(warm)
        key = next((k for k, w in self._warm.items() if w is warm), None)
        if key is not None and not warm.users and warm.next_try <= self._clock():
            del self._warm[key]

    @property
    def idle_s(self) -> float:
        return self._idle

    def now(self) -> float:
        return self._clock()


class _Warm:
    """One upstream with one credential. `era` is None until a connection has found it out."""

    def __init__(self, owner: McpSessions, integration: Integration, auth: AuthConfig | None, *, asks: bool) -> None:
        self.asks = asks
        self._sessions, self.integration, self.auth = owner, integration, auth
        self.source = source_of(integration, auth)
        self.users, self.retired, self.used_at = 0, False, owner.now()
        self.wake = asyncio.Event()
        self.era: Era | None = era_of(integration)
        self.next_try = 0.0
        self._failures = 0
        self._failure: CallError | None = None
        self._current: Connected | None = None
        self._ready: asyncio.Future[Connected] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        return self._task is not None and not self._task.done()

    async def connected(self) -> Connected:
        current = self._current
        if current is not None and not current.session.link.ended.done():
            return current
        if self._current is not None and self._task is not None:
            await asyncio.wait([self._task])  # the old one is being closed: a process may hold what the new one needs
        if self._ready is None or self._ready.done():
            if self._failure is not None and self._sessions.now() < self.next_try:
                raise copy.copy(self._failure)
            if self._current is None:
                self._ready = asyncio.get_running_loop().create_future()
                self._task = asyncio.ensure_future(self._own(self._ready))
        assert self._ready is not None
        return await asyncio.shield(self._ready)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _own(self, ready: "asyncio.Future[Connected]") -> None:
        """Opens the session, keeps it while it is wanted and alive, closes it."""
        try:
            connected = await self._sessions.open(self)
        except CallError as e:
            e.sent = "no"  # whoever waits for the session: his own request never left
            self._failed(e)
            ready.set_exception(copy.copy(e))
            ready.exception()  # seen, also where the caller has left
            self._sessions.closed(self)
            return
        except BaseException as e:
            lost = UpstreamUnreachable("can't be reached: the gateway is ending")
            ready.set_exception(lost if isinstance(e, asyncio.CancelledError) else e)
            ready.exception()
            raise
        self._current, self.era, self._failure, self._failures = connected, connected.era, None, 0
        link = connected.session.link
        try:
            ready.set_result(connected)
            connected.session.watch()
            self._sessions.on_change(self.integration)
            link.ended.add_done_callback(lambda _: self.wake.set())
            await self._until_unwanted(link.ended)
        finally:
            await link.close()
            self._current = None
            self._sessions.closed(self)

    async def _until_unwanted(self, ended: "asyncio.Future[str]") -> None:
        while not ended.done():
            idle_for = self._sessions.now() - self.used_at
            if not self.users and (self.retired or idle_for >= self._sessions.idle_s):
                return
            self.wake.clear()
            wait = self._sessions.idle_s if self.users else self._sessions.idle_s - idle_for
            try:
                async with asyncio.timeout(max(wait, 0.01)):
                    await self.wake.wait()
            except TimeoutError:
                continue

    def _failed(self, error: CallError) -> None:
        self._failure = error
        base, cap = _BACKOFF_S
        self.next_try = self._sessions.now() + min(cap, base * 2**self._failures) * (0.5 + random.random() / 2)  # noqa: S311 - jitter
        self._failures = min(self._failures + 1, 10)
        self.era = None  # it may be another server now: find out again


def source_of(integration: Integration, auth: AuthConfig | None) -> str:
    """A digest of everything that a connection is made from."""
    i = integration
    parts = (
        i.mcp_transport,
        i.mcp_url,
        i.mcp_command,
        i.mcp_args,
        i.mcp_headers,
        i.mcp_env,
        i.base_url,
        auth.model_dump() if auth else None,
        {path: binding.model_dump() for path, binding in sorted(i.bindings.items())},
    )
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()


def asker_of(integration: Integration, caller: str) -> str:
    """Which session serves a caller whose user can be asked.

    A handshake declares that once for a session, so callers who can't be asked have another one. Over streamable HTTP a question
    comes on the stream of its call, so one session serves all who can. On the one stream of stdio and SSE nothing says to which
    call a question belongs: each caller has a session of his own. 2026-07-28 declares it request by request: no session of its own.
    """
    known = integration.upstream_tools
    if known is None or is_modern(integration) or known.protocol_version < FIRST_ASKING:
        return ""
    return SHARED_ASKER if integration.mcp_transport == "http" else caller


def lister_of(integration: Integration) -> str:
    """Which session reads the tools: some servers of a handshake era show tools that ask only to clients that can be asked.

    Over stdio that would be a second process, so there the tools are those that a client which can't be asked is shown.
    """
    known = integration.upstream_tools
    early = known is not None and known.protocol_version < FIRST_ASKING
    return "" if integration.mcp_transport == "stdio" or is_modern(integration) or early else SHARED_ASKER


def is_modern(integration: Integration) -> bool:
    """Whether its tools were read over 2026-07-28."""
    return era_of(integration) == "modern"


def era_of(integration: Integration) -> Era | None:
    """What its tools were read in, so that a new connection needn't find out again."""
    known = integration.upstream_tools
    if known is None or not known.protocol_version:
        return None
    return "modern" if known.protocol_version >= "2026" else "handshake"
