"""Tells connected clients that a workspace's tools changed, in both protocol eras, each workspace to its own clients only.

2026-07-28: `subscriptions/listen` streams. Before: `notifications/tools/list_changed` on connections that can be written to.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcp.server.connection import Connection
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ServerEvent, ToolsListChanged
from mcp_types import SubscriptionsListenRequestParams, SubscriptionsListenResult

MAX_STREAMS = 1024


@dataclass(frozen=True)
class _Changed(ToolsListChanged):
    workspace: str = ""


class _WorkspaceBus:
    """The one bus as one workspace may hear it."""

    def __init__(self, bus: InMemorySubscriptionBus, workspace: str) -> None:
        self._bus, self._workspace = bus, workspace

    async def publish(self, event: ServerEvent) -> None:
        await self._bus.publish(event)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        def only_ours(event: ServerEvent) -> None:
            if isinstance(event, _Changed) and event.workspace == self._workspace:
                listener(event)

        return self._bus.subscribe(only_ours)


class Announcements:
    """The open streams and legacy connections of this process, by workspace (its key in lower case)."""

    def __init__(self) -> None:
        self._bus = InMemorySubscriptionBus()
        self._listeners: dict[str, ListenHandler] = {}
        self._connections: dict[str, set[Connection]] = {}
        self._closed = False

    async def listen(
        self, workspace: str, ctx: Any, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serves one `subscriptions/listen` stream until the client leaves or `close`."""
        key = workspace.lower()
        handler = self._listeners.get(key)
        if handler is None:
            handler = ListenHandler(_WorkspaceBus(self._bus, key), max_subscriptions=MAX_STREAMS)
            self._listeners[key] = handler
        return await handler(ctx, params)

    def track(self, workspace: str, connection: Connection) -> None:
        """Remembers a legacy connection that can be told of changes, until it ends."""
        key = workspace.lower()
        self._connections.setdefault(key, set()).add(connection)
        connection.exit_stack.callback(self._forget, key, connection)

    def _forget(self, key: str, connection: Connection) -> None:
        connections = self._connections.get(key)
        if connections is not None:
            connections.discard(connection)
            if not connections:
                del self._connections[key]

    async def tools_changed(self, workspace: str) -> None:
        key = workspace.lower()
        await self._bus.publish(_Changed(workspace=key))
        for connection in list(self._connections.get(key, ())):
            try:
                await connection.send_tool_list_changed()
            except Exception:  # noqa: BLE001 - a client that is just leaving must not keep the others from being told
                self._forget(key, connection)

    def close(self) -> None:
        """Ends every listen stream gracefully: each client is told that it ended on purpose."""
        for handler in self._listeners.values():
            handler.close()
