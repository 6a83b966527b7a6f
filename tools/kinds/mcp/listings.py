"""Reads upstreams' tools into the registry: when an integration is written, tested, and when its upstream says that they changed."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol
from weakref import WeakValueDictionary

from tools.errors import GatewayError, NotFound, UpstreamRefused, UpstreamUnreachable
from tools.kinds.mcp.described import kept
from tools.kinds.mcp.rpc import LinkLost, RpcError, SessionGone
from tools.kinds.mcp.sessions import McpSessions, lister_of
from tools.masking import Masker
from tools.models import Integration, UpstreamTools

READ_S = 10.0
_QUIET_S = 1.0
_MAX_PENDING = 1000


class ListingStore(Protocol):
    """The part of the registry that keeps what upstreams show."""

    async def get(self, workspace: str, ref: str) -> Integration: ...

    async def keep_upstream_tools(self, workspace: str, id: str, tools: UpstreamTools) -> None:
        """Raises the workspace's version where they differ from what was kept. Raises NotFound, StorageUnavailable."""
        ...


class McpListings:
    """`changed` is told the workspace after each listing that was kept; `sleep` is injected by tests so that none waits."""

    def __init__(
        self,
        sessions: McpSessions,
        store: ListingStore,
        *,
        changed: Callable[[str], None],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._sessions, self._store, self._changed, self._sleep = sessions, store, changed, sleep
        self._pending: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        sessions.on_change = self.soon

    async def read(self, integration: Integration, *, accept: bool = False) -> UpstreamTools:
        """Reads and keeps the tools, within READ_S. `accept` takes their looks as they are now for those to hold to.

        Raises CallErrors where the upstream can't be asked (what was kept before stays), NotFound, StorageUnavailable,
        TimeoutError.
        """
        turn = self._locks.setdefault(integration.id, asyncio.Lock())
        async with asyncio.timeout(READ_S), turn:
            return await self._read(integration, accept)

    async def _read(self, integration: Integration, accept: bool) -> UpstreamTools:
        try:
            async with self._sessions.use(integration, integration.auth, lister_of(integration)) as connected:
                found = await connected.session.tools()
                session, masks = connected.session, set(connected.masks)
        except RpcError as e:
            raise UpstreamRefused("refused the list of its tools", said=e.message[:2000] or None) from e
        except (LinkLost, SessionGone) as e:
            raise UpstreamUnreachable(f"ended the connection before the list of its tools ({e})") from e
        source = f"{integration.mcp_transport} {integration.mcp_url or integration.mcp_command or ''}"
        before = integration.upstream_tools
        if before is None:  # another reading may have been the first meanwhile: what it saw is what holds
            before = (await self._store.get(integration.workspace_id, integration.id)).upstream_tools
        if accept or (before is not None and before.source != source):
            before = None
        # An upstream that echoes our credential in a description would hand it to every model (rules J6).
        listing = kept(
            Masker(masks).value(found),
            before,
            source=source,
            server=" ".join(str(session.server.get(k, ""))[:100] for k in ("name", "version")).strip(),
            protocol_version=session.version,
        )
        if listing != integration.upstream_tools:
            await self._store.keep_upstream_tools(integration.workspace_id, integration.id, listing)
            self._changed(integration.workspace_id)
        return listing

    def forget(self, integration: Integration) -> None:
        """It is gone: its sessions end."""
        self._sessions.forget(integration.id)

    async def read_if_possible(self, integration: Integration, *, accept: bool = False) -> None:
        """As `read`; an upstream that can't be asked is health's to tell, not the write's."""
        with suppress(GatewayError, TimeoutError):
            await self.read(integration, accept=accept)

    def soon(self, integration: Integration) -> None:
        """Reads again in the background: at most once a second for each integration, however often it is told."""
        if integration.id in self._pending:
            self._again.add(integration.id)
        elif len(self._pending) < _MAX_PENDING:
            task = asyncio.ensure_future(self._read_again(integration.workspace_id, integration.id))
            self._pending[integration.id] = task
            task.add_done_callback(lambda _: self._pending.pop(integration.id, None))

    async def aclose(self) -> None:
        for task in list(self._pending.values()):
            task.cancel()
        await asyncio.gather(*self._pending.values(), return_exceptions=True)

    async def _read_again(self, workspace: str, id: str) -> None:
        while True:
            self._again.discard(id)
            try:
                integration = await self._store.get(workspace, id)
                if not integration.enabled:
                    return
                await self.read(integration)
            except NotFound:
                return
            except (GatewayError, TimeoutError):
                pass  # health tells
            await self._sleep(_QUIET_S)
            if id not in self._again:
                return
