"""A workspace's registry seen as tools: immutable snapshots, compiled once per version, cached, evicted by use.

A new version recompiles only the integrations whose own version moved. The path of a call reads a dictionary.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakValueDictionary

from tools.callers import Caller
from tools.errors import UnknownTool
from tools.models import Integration
from tools.naming import nearest
from tools.patience import Patience
from tools.registry import Registry
from tools.tool import Tool

MAX_PAGE = 1000


@dataclass(frozen=True, eq=False)
class Catalog:
    """One workspace at one version. `tools` is ordered by name."""

    workspace: str
    version: int
    integrations: tuple[Integration, ...]
    tools: Mapping[str, Tool]
    _views: dict[object, "View"] = field(default_factory=dict[object, "View"], repr=False)

    @cached_property
    def unread(self) -> tuple[Integration, ...]:
        """Enabled integrations whose tools only their server can name, and that nobody could ask yet."""
        return tuple(
            i
            for i in self.integrations
            if i.enabled
            and i.upstream_tools is None
            and (i.protocol == "mcp" or (i.protocol == "fhir" and not i.endpoints))
        )

    def find(self, caller: Caller, name: str) -> Tool:
        """The tool, if this caller may see it. Raises UnknownTool with the nearest known name."""
        tool = self.tools.get(name)
        if tool is not None and tool.is_visible_to(caller):
            return tool
        close = nearest(name, [t.name for t in self.view(caller).tools])
        hint = f"; did you mean {close}?" if close else ". List the tools again: it may be gone or renamed."
        raise UnknownTool(f"Not sent: there is no tool {name[:80]}{hint}")

    def view(self, caller: Caller) -> "View":
        """What this caller sees; shared by all callers with the same narrowing."""
        if not caller.may("Integration.execute"):
            key: object = None
        elif caller.integrations is None and caller.tools is None:
            key = "all"
        else:
            key = (caller.integrations, caller.tools)
        view = self._views.get(key)
        if view is None:
            if len(self._views) > 256:
                self._views.clear()  # many differently narrowed keys: make them again when they come back
            view = self._views[key] = View(tuple(t for t in self.tools.values() if t.is_visible_to(caller)))
        return view

    def lookup_for(self, tool: Tool, caller: Caller) -> str | None:
        """A GET tool that finds ids for `tool`: no path parameters, its path is the beginning of this one's."""
        return self._sibling(tool, caller, with_id=False)

    def check_for(self, tool: Tool, caller: Caller) -> str | None:
        """A GET tool that reads back what `tool` may have written."""
        return self._sibling(tool, caller, with_id=True) or self._sibling(tool, caller, with_id=False)

    def _sibling(self, tool: Tool, caller: Caller, *, with_id: bool) -> str | None:
        head = _literal_head(tool.endpoint.path)
        for endpoint in sorted(tool.integration.endpoints, key=lambda e: (len(e.path), e.name)):
            if endpoint.method != "GET" or endpoint.name == tool.endpoint.name:
                continue
            if ("{" in endpoint.path) == with_id and _literal_head(endpoint.path) == head:
                for candidate in self.tools.values():
                    if candidate.endpoint is endpoint and candidate.is_visible_to(caller):
                        return candidate.name
        return None


def _literal_head(path: str) -> str:
    return path.split("{", 1)[0].strip("/")


@dataclass(frozen=True, eq=False)
class View:
    """The tools that one kind of caller sees."""

    tools: tuple[Tool, ...]
    pages: dict[object, tuple[bytes, str | None]] = field(default_factory=dict[object, tuple[bytes, str | None]])
    """Ready-made pages of the list, by what else decides them; see `Toolbox.page_json`."""

    @cached_property
    def systems(self) -> list[tuple[str, str, int]]:
        """(display name, tool name prefix, how many tools) by integration, for the instructions."""
        counted: dict[str, tuple[str, str, int]] = {}
        for tool in self.tools:
            i = tool.integration
            _, _, n = counted.get(i.id, ("", "", 0))
            counted[i.id] = (i.display_name, i.name, n + 1)
        return list(counted.values())


@dataclass(slots=True)
class _Entry:
    catalog: Catalog
    checked_at: float
    stale: bool = False


class Catalogs:
    """The catalogs of this process. `make_tools` compiles one integration; `clock` is monotonic seconds.

    `patience`: how long a registry that is slow is waited for where there is a catalog to go on with.

    `invalidate` is called for every change that the registry tells, and `all_told` after each look for them. A catalog is believed
    for `trust_s` after the last that says it hasn't moved; then its version is read again.
    """

    def __init__(
        self,
        registry: Registry,
        make_tools: Callable[[Integration], tuple[Tool, ...]],
        *,
        trust_s: float = 5.0,
        max_endpoints: int = 200_000,
        clock: Callable[[], float] = time.monotonic,
        patience: Patience | None = None,
    ) -> None:
        self._registry = registry
        self._make_tools = make_tools
        self._trust = trust_s
        self._max = max_endpoints
        self._clock = clock
        self._patience = patience or Patience()
        # By workspace id in lower case: ids are unique ignoring it, and a caller may spell his own way.
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._loading: dict[str, bool] = {}
        # Held by those who wait, and gone with the last of them: one that is taken out while somebody waits makes two loads of one.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._told_until = self._last_look = float("-inf")
        self.builds, self.build_s = 0, 0.0
        """How often a workspace was compiled anew, and the seconds that took."""

    @property
    def kept(self) -> int:
        """Workspaces in memory."""
        return len(self._entries)

    @property
    def tools_kept(self) -> int:
        return sum(len(e.catalog.tools) for e in self._entries.values())

    def peek(self, workspace: str) -> Catalog | None:
        """The catalog if it can be used without asking the registry; no await, for the path of a call."""
        key = workspace.lower()
        entry = self._entries.get(key)
        if entry is None or entry.stale or self._clock() - max(entry.checked_at, self._told_until) >= self._trust:
            return None
        self._entries.move_to_end(key)
        return entry.catalog

    def known(self, workspace: str) -> Catalog | None:
        """The last catalog, however old: good enough for names in figures."""
        entry = self._entries.get(workspace.lower())
        return None if entry is None else entry.catalog

    async def get(self, workspace: str) -> Catalog:
        """The catalog at the registry's version. While the registry can't be reached or is slow, the last one goes on."""
        catalog = self.peek(workspace)
        if catalog is not None:
            return catalog
        key = workspace.lower()
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            return self.peek(workspace) or await self._refresh(workspace)

    def all_told(self) -> None:
        """Called after each look for changes: what was written before it began was told with `invalidate`, so nothing else moved.

        With this nobody asks for the version of each workspace every few seconds.
        """
        # The look began after the one before had ended: that moment is sure, and an instant of its own isn't needed.
        self._told_until, self._last_look = self._last_look, self._clock()

    def invalidate(self, workspace: str) -> None:
        key = workspace.lower()
        if (entry := self._entries.get(key)) is not None:
            entry.stale = True
        if key in self._loading:
            self._loading[key] = True  # what is being loaded may be older than this change

    async def _refresh(self, workspace: str) -> Catalog:
        from tools.errors import StorageUnavailable

        key = workspace.lower()
        entry = self._entries.get(key)
        started = self._clock()
        self._loading[key] = False
        try:
            if (
                entry is not None
                and await self._patience.wait(self._registry.version(workspace)) == entry.catalog.version
            ):
                # Only now: while this was being found out, nobody may take the old catalog for the present one.
                entry.checked_at, entry.stale = started, self._loading[key]
                self._entries[key] = entry  # it may have been evicted while we asked
                self._entries.move_to_end(key)
                return entry.catalog
            if entry is None:
                version, integrations = await self._registry.load(workspace)
            else:
                load = self._registry.load(workspace, entry.catalog.integrations)
                version, integrations = await self._patience.wait(load)
        except StorageUnavailable:
            if entry is None:
                raise
            # From now, not from when it began: who waited for us would else wait as long, one after the other.
            entry.checked_at, entry.stale = self._clock(), self._loading[key]
            return entry.catalog  # known tools go on through an outage of the registry
        finally:
            moved = self._loading.pop(key, False)
        begun = self._clock()
        catalog = self._compile(workspace, version, integrations, entry.catalog if entry else None)
        self.builds, self.build_s = self.builds + 1, self.build_s + self._clock() - begun
        self._entries[key] = _Entry(catalog, started, stale=moved)
        self._entries.move_to_end(key)
        self._evict()
        return catalog

    def _compile(
        self, workspace: str, version: int, integrations: tuple[Integration, ...], before: Catalog | None
    ) -> Catalog:
        kept: dict[tuple[str, int], list[Tool]] = {}
        for tool in before.tools.values() if before else ():
            kept.setdefault((tool.integration.id, tool.integration.version), []).append(tool)
        versions = {i.id: i.version for i in before.integrations} if before else {}
        tools: list[Tool] = []
        for integration in integrations:
            same = kept.get((integration.id, integration.version))
            if same is not None and same[0].integration.upstream_tools == integration.upstream_tools:
                tools += same
            else:
                made = self._make_tools(integration)
                old = {t.endpoint.name: t for t in kept.get((integration.id, versions.get(integration.id, 0)), ())}
                for tool in made:
                    # Subclasses' parts also come from what their server said.
                    if type(tool) is Tool and (one := old.get(tool.endpoint.name)) is not None:
                        tool.take_over(one)
                tools += made
        # An upstream can call its tools what it likes: what an operator named wins.
        tools.sort(key=lambda t: (t.is_discovered, t.name))
        by_name: dict[str, Tool] = {}
        for tool in tools:
            by_name.setdefault(tool.name.lower(), tool)
        ordered = sorted(by_name.values(), key=lambda t: t.name)
        return Catalog(workspace, version, integrations, {t.name: t for t in ordered})

    def _evict(self) -> None:
        total = self.tools_kept
        while total > self._max and len(self._entries) > 1:
            _, gone = self._entries.popitem(last=False)
            total -= len(gone.catalog.tools)
