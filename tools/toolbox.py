"""Everything a caller can call: his endpoint tools, `get_result`, and the management tools that he may use.

The wires know only this: `page`, `call`, `schema_of`, `instructions`. Order is by name, so that lists are the same every time.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import orjson

from tools.admin import Admin
from tools.admin_tools import READING, AdminTool
from tools.callers import Caller
from tools.catalog import Catalog, Catalogs
from tools.descriptions import instructions_of
from tools.errors import CallError, InvalidRequest, Issue, NotAllowed, RequestError
from tools.gateway import CallContext, Gateway, new_call_id, refused
from tools.outcome import Block, Outcome, Trace
from tools.reading_on import GET_RESULT, ReadingOn

_NO_CONTEXT = CallContext()


class Toolbox:
    """`page_size`: tools on one page of the list (most hosts read only the first)."""

    def __init__(
        self, catalogs: Catalogs, gateway: Gateway, admin: Admin, reading_on: ReadingOn, *, page_size: int = 1000
    ) -> None:
        self._catalogs, self._gateway, self._admin, self._reading_on = catalogs, gateway, admin, reading_on
        self._page_size = page_size
        self._admin_tools: dict[str, AdminTool] = {tool.name: tool for tool in READING}

    async def call(
        self, caller: Caller, name: str, arguments: Mapping[str, Any] | None, context: CallContext = _NO_CONTEXT
    ) -> Outcome:
        """Calls any tool; every failure is an outcome."""
        if name == "get_result":
            return await self._reading_on.get_result(caller, arguments)
        admin_tool = self._admin_tools.get(name)
        if admin_tool is not None and caller.may(admin_tool.permission):
            return await self._manage(admin_tool, caller, arguments or {})
        return await self._gateway.call(caller, name, arguments, context)

    async def page(self, caller: Caller, cursor: str | None) -> tuple[list[dict[str, Any]], str | None]:
        """The entries of one page and the cursor of the next. Raises InvalidRequest for a cursor that isn't one."""
        catalog = await self._catalogs.get(caller.workspace)
        return page_of(self.entries(catalog, caller), cursor, self._page_size)

    def entries(self, catalog: Catalog, caller: Caller) -> list[tuple[str, dict[str, Any]]]:
        """(name, entry) of every tool the caller sees, by name."""
        view = catalog.view(caller)
        rows = [(t.name, t.entry) for t in view.tools]
        if view.tools:
            rows.append((GET_RESULT["name"], GET_RESULT))
        rows += [(t.name, t.entry) for t in self._admin_tools.values() if caller.may(t.permission)]
        return sorted(rows, key=lambda row: row[0])

    def schema_of(self, caller: Caller | None, name: str) -> Mapping[str, Any] | None:
        """The published input schema, without waiting: what the SDK checks mirrored headers against."""
        if name == "get_result":
            return GET_RESULT["inputSchema"]
        if (admin_tool := self._admin_tools.get(name)) is not None:
            return admin_tool.entry["inputSchema"]
        catalog = self._catalogs.peek(caller.workspace) if caller is not None else None
        tool = catalog.tools.get(name) if catalog is not None else None
        return tool.published.schema if tool is not None else {"type": "object"}

    async def instructions(self, caller: Caller) -> str:
        """What the server tells a model at the start (agents.md 2)."""
        catalog = await self._catalogs.get(caller.workspace)
        return instructions_of(catalog.view(caller).systems, manager=False)

    async def _manage(self, tool: AdminTool, caller: Caller, arguments: Mapping[str, Any]) -> Outcome:
        call_id = new_call_id()
        try:
            prepared = tool.arguments.prepare(arguments)
            found = await tool.run(self._admin, caller, prepared.values)
        except CallError as e:
            return refused(call_id, tool.name, e)
        except RequestError as e:
            return refused(call_id, tool.name, NotAllowed(e.message))
        text = orjson.dumps(found).decode()
        return Outcome(call_id, tool.name, text, (Block("text", text),), 0.0, Trace(), structured=found)


def page_of(
    rows: list[tuple[str, dict[str, Any]]], cursor: str | None, size: int
) -> tuple[list[dict[str, Any]], str | None]:
    """The page after `cursor` of rows in the order of their names, and the cursor of the next page."""
    start = 0
    if cursor is not None:
        after = _decode(cursor)
        start = next((i for i, (name, _) in enumerate(rows) if name > after), len(rows))
    page = rows[start : start + size]
    more = start + size < len(rows)
    return [entry for _, entry in page], _encode(page[-1][0]) if more and page else None


def _encode(name: str) -> str:
    """Opaque to clients: the name of the last tool on the page, so that a list that changes meanwhile isn't skipped."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def _decode(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor.encode()).decode()
    except (binascii.Error, UnicodeError, ValueError):
        raise InvalidRequest(
            [Issue(("cursor",), "this cursor is not one of tools/list; list from the beginning")]
        ) from None
