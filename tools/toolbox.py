"""Everything a caller can call: his endpoint tools, `get_result`, `find_tools`, `call_tool`, and the management tools he may use.

The wires know only this: `page`, `call`, `schema_of`, `instructions`. Order is by name (pinned tools first where only those are
listed), so that lists are the same every time.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from tools.admin_tools.admin_tool import AdminTool, Asking, Desk
from tools.admin_tools.endpoints import ENDPOINTS
from tools.admin_tools.history import HISTORY
from tools.admin_tools.importing import IMPORTING
from tools.admin_tools.reading import READING
from tools.admin_tools.refusal import RequestRefused, refusal
from tools.admin_tools.testing import TESTING
from tools.admin_tools.writing import WRITING
from tools.call import CallContext
from tools.callers import Caller
from tools.catalog import Catalog, Catalogs
from tools.descriptions import instructions_of
from tools.endings import new_call_id, refused
from tools.errors import CallError, InvalidRequest, Issue, RequestError
from tools.finding import CALL_TOOL, FIND_TOOLS, Finder, ToolMode, call_arguments, is_searched
from tools.gateway import Gateway
from tools.hidden_text import visible
from tools.json_values import read_json, write_json
from tools.kinds.rest import to_json
from tools.outcome import Block, Outcome, Trace
from tools.reading_on import GET_RESULT, ReadingOn
from tools.tool import Tool

Listed = tuple[str, Tool | dict[str, Any]]
"""(order, a tool or a ready entry)."""
_NO_CONTEXT = CallContext()


class Toolbox:
    """`page_size`: tools on one page of the list (most hosts read only the first).

    `tool_mode`: `all` lists every tool; `search` lists the pinned ones and `find_tools`, `call_tool`; `auto` is `search` for
    callers who see more than 60 tools or 15,000 tokens of them. `pinned` are tool names, `*` standing for anything.
    """

    def __init__(
        self,
        catalogs: Catalogs,
        gateway: Gateway,
        desk: Desk,
        reading_on: ReadingOn,
        *,
        page_size: int = 1000,
        tool_mode: ToolMode = "all",
        pinned: tuple[str, ...] = (),
    ) -> None:
        self._catalogs, self._gateway, self._desk, self._reading_on = catalogs, gateway, desk, reading_on
        self._page_size, self._pinned = page_size, pinned
        self._mode: ToolMode = tool_mode
        self._finder = Finder()
        self._admin_tools: dict[str, AdminTool] = {
            tool.name: tool for tool in (*READING, *HISTORY, *TESTING, *WRITING, *ENDPOINTS, *IMPORTING)
        }

    @property
    def is_traced(self) -> bool:
        """Whether the wires should say what a request came with."""
        return self._gateway.tracer is not None

    async def call(
        self,
        caller: Caller,
        name: str,
        arguments: Mapping[str, Any] | None,
        context: CallContext = _NO_CONTEXT,
    ) -> Outcome:
        """Calls any tool; every failure is an outcome. What `context.confirm` raises that is no GatewayError goes through."""
        match name:
            case "get_result":
                return await self._reading_on.get_result(caller, arguments)
            case "find_tools":
                return await self._find(caller, arguments or {})
            case "call_tool":
                try:
                    inner, given = call_arguments(arguments or {})
                except CallError as e:
                    return refused(new_call_id(), name, e)
                return await self.call(caller, inner, given, context)
            case _:
                pass
        admin_tool = self._admin_tools.get(name)
        if admin_tool is not None and caller.may(admin_tool.permission):
            return await self._manage(admin_tool, Asking(caller, context.confirm, arguments or {}, context.hops))
        return await self._gateway.call(caller, name, arguments, context)

    async def page(self, caller: Caller, cursor: str | None) -> tuple[list[dict[str, Any]], str | None]:
        """The entries of one page and the cursor of the next. Raises InvalidRequest for a cursor that isn't one."""
        catalog = await self._gateway.first.listed(caller)
        return page_of(self._listed(catalog, caller), cursor, self._page_size)

    async def page_json(self, caller: Caller, cursor: str | None) -> tuple[bytes, str | None] | None:
        """`page` as a ready-made JSON array, made once per catalog version, kind of caller and cursor; None for a bad cursor."""
        catalog = await self._gateway.first.listed(caller)
        pages = catalog.view(caller).pages
        key = (caller.permissions, cursor)
        page = pages.get(key)
        if page is None:
            try:
                entries, following = page_of(self._listed(catalog, caller), cursor, self._page_size)
            except InvalidRequest:
                return None
            page = (to_json(entries), following)
            if len(pages) < 100:
                pages[key] = page
        return page

    async def apps(self, caller: Caller) -> list[dict[str, Any]]:
        """Entries of resources/list: pages of MCP Apps, of which the caller's tools name each."""
        return await self._gateway.apps(caller)

    async def read_app(self, caller: Caller, uri: str, hops: int) -> dict[str, Any] | None:
        """The result of resources/read; None for a page that is none of the caller's. Raises CallErrors."""
        return await self._gateway.read_app(caller, uri, hops)

    async def is_plain_tool(self, caller: Caller, name: str, *, asks: bool) -> bool:
        """Whether `name` is an endpoint of the catalog that asks nobody anything, of a client that shows forms (`asks`) or one
        that doesn't: a call of it needs nothing but the gateway."""
        catalog = self._catalogs.peek(caller.workspace) or await self._catalogs.get(caller.workspace)
        tool = catalog.tools.get(name)
        return tool is not None and not tool.needs_approval and not (asks and tool.integration.protocol == "mcp")

    def entries(self, catalog: Catalog, caller: Caller) -> list[tuple[str, dict[str, Any]]]:
        """(order, entry) of every listed tool: by name, in search mode pinned tools first."""
        return [(order, _entry(listed)) for order, listed in self._listed(catalog, caller)]

    def _listed(self, catalog: Catalog, caller: Caller) -> list[Listed]:
        """The same, before any entry is made: a page shows a thousand of a workspace's tools."""
        view = catalog.view(caller)
        searched = is_searched(self._mode, view)
        own: list[Listed] = [(t.name, t.entry) for t in self._admin_tools.values() if caller.may(t.permission)]
        if view.tools:
            own.append(("get_result", GET_RESULT))
        if searched:
            pinned: list[Listed] = [(f"!{t.name}", t) for t in view.tools if self._is_pinned(t.name)]
            own += [("find_tools", FIND_TOOLS), ("call_tool", CALL_TOOL)]
            return sorted([*pinned, *own], key=lambda row: row[0])
        if view.tools and (caller.may("Integration.update") or caller.may("Integration.create")):
            own.append(("call_tool", CALL_TOOL))  # who makes tools can call them before his host lists again
        return sorted([*((t.name, t) for t in view.tools), *own], key=lambda row: row[0])

    def _is_pinned(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._pinned)

    def schema_of(self, caller: Caller | None, name: str) -> Mapping[str, Any] | None:
        """The published input schema, without waiting: what the SDK checks mirrored headers against."""
        for entry in (GET_RESULT, FIND_TOOLS, CALL_TOOL):
            if name == entry["name"]:
                return entry["inputSchema"]
        if (admin_tool := self._admin_tools.get(name)) is not None:
            return admin_tool.entry["inputSchema"]
        catalog = self._catalogs.peek(caller.workspace) if caller is not None else None
        tool = catalog.tools.get(name) if catalog is not None else None
        return tool.published.schema if tool is not None else {"type": "object"}

    async def instructions(self, caller: Caller) -> str:
        """What the server tells a model at the start (agents.md 2)."""
        catalog = await self._catalogs.get(caller.workspace)
        return instructions_of(catalog.view(caller).systems, manager=caller.may("Integration.update"))

    async def _manage(self, tool: AdminTool, asking: Asking) -> Outcome:
        call_id = new_call_id()
        given = {name: value for name, value in asking.given.items() if name not in tool.ignored}
        try:
            prepared = tool.arguments.prepare(given)
            found = await tool.run(self._desk, replace(asking, given=given), prepared.values)
        except CallError as e:
            return refused(call_id, tool.name, e)
        except RequestError as e:
            return _not_done(call_id, tool.name, refusal(e))
        return _structured(call_id, tool.name, found)

    async def _find(self, caller: Caller, arguments: Mapping[str, Any]) -> Outcome:
        call_id = new_call_id()
        try:
            catalog = await self._gateway.first.listed(caller)
            return _structured(call_id, "find_tools", await self._finder.find(catalog.view(caller), arguments))
        except CallError as e:
            return refused(call_id, "find_tools", e)
        except RequestError as e:
            return _not_done(call_id, "find_tools", refusal(e))


def _structured(call_id: str, name: str, found: dict[str, Any]) -> Outcome:
    """Structured content and exactly the same as text (agents.md, "structuredContent policy"). It can quote an upstream."""
    whole = write_json(found)
    text = visible(whole)
    if text is not whole:
        found = read_json(text.encode())
    return Outcome(call_id, name, text, (Block("text", text),), 0.0, Trace(), structured=found)


def _not_done(call_id: str, name: str, error: RequestRefused) -> Outcome:
    text = visible(f"{error.message} [{error.full_code}]")
    return Outcome(call_id, name, text, (Block("text", text),), 0.0, Trace(), error)


def _entry(listed: Tool | dict[str, Any]) -> dict[str, Any]:
    return listed.entry if isinstance(listed, Tool) else listed


def page_of(rows: list[Listed], cursor: str | None, size: int) -> tuple[list[dict[str, Any]], str | None]:
    """The page after `cursor` of rows in the order of their names, and the cursor of the next page."""
    start = 0
    if cursor is not None:
        after = _decode(cursor)
        start = next((i for i, (order, _) in enumerate(rows) if order > after), len(rows))
    page = rows[start : start + size]
    more = start + size < len(rows)
    return [_entry(listed) for _, listed in page], _encode(page[-1][0]) if more and page else None


def _encode(name: str) -> str:
    """Opaque to clients: the name of the last tool on the page, so that a list that changes meanwhile isn't skipped."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def _decode(cursor: str) -> str:
    try:
        name = base64.urlsafe_b64decode(cursor.encode()).decode()
    except (binascii.Error, UnicodeError, ValueError):
        name = ""
    # Lenient decoding reads something out of any text: only what this list wrote itself is a cursor.
    if not name or _encode(name) != cursor:
        raise InvalidRequest([Issue(("cursor",), "this cursor is not one of tools/list; list from the beginning")])
    return name
