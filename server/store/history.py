"""Calls and management changes: appended in batches, read newest first by their number, forgotten by age."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

import orjson
from sqlalchemy import ColumnElement, Row, Table, delete, select

from server.store.database import Database
from server.store.tables import audit, calls
from server.store.workspaces import key_of
from tools.history import AuditQuery, AuditRecord, CallQuery, CallRecord
from tools.json_values import write_json

MAX_ARGUMENTS = 8192
"""Characters of JSON kept of a call's arguments; longer ones are left out whole."""


class SqlHistory:
    """The rows. Everything raises StorageUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, made: Sequence[CallRecord], changed: Sequence[AuditRecord]) -> None:
        """All of them or none."""
        async with self._database.write(watched=False) as connection:
            if made:
                await self._database.fill(connection, calls, [_call_values(r) for r in made])
            if changed:
                await self._database.fill(connection, audit, [_change_values(r) for r in changed])

    async def calls(self, workspace: str, query: CallQuery) -> list[CallRecord]:
        wanted = [calls.c.workspace == key_of(workspace)]
        if query.tool is not None:
            wanted.append(calls.c.tool == query.tool)
        if query.integration is not None:
            wanted.append(calls.c.integration == query.integration)
        if query.request_id is not None:
            wanted.append(calls.c.request_id == query.request_id)
        if query.failed is not None:
            wanted.append(calls.c.error_code.is_not(None) if query.failed else calls.c.error_code.is_(None))
        if query.integrations is not None:
            wanted.append(calls.c.integration.in_(query.integrations))
        if query.tools is not None:
            wanted.append(calls.c.tool.in_(query.tools))
        return [_call(row) for row in await self._page(calls, wanted, query.before, query.limit)]

    async def changes(self, workspace: str, query: AuditQuery) -> list[AuditRecord]:
        wanted = [audit.c.workspace == key_of(workspace), audit.c.kind.in_(query.kinds)]
        if query.target is not None:
            wanted.append(audit.c.target == query.target)
        if query.integrations is not None:
            wanted.append(audit.c.target.in_(query.integrations))
        return [_change(row) for row in await self._page(audit, wanted, query.before, query.limit)]

    async def forget(self, calls_before: datetime, changes_before: datetime) -> None:
        async with self._database.write() as connection:
            await connection.execute(delete(calls).where(calls.c.at < calls_before))
            await connection.execute(delete(audit).where(audit.c.at < changes_before))

    async def _page(
        self, table: Table, wanted: list[ColumnElement[bool]], before: int | None, limit: int
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        if before is not None:
            wanted = [*wanted, table.c.seq < before]
        query = select(table).where(*wanted).order_by(table.c.seq.desc()).limit(limit)
        async with self._database.read() as connection:
            return (await connection.execute(query)).all()


def _call_values(r: CallRecord) -> dict[str, Any]:
    arguments = None if r.arguments is None else write_json(r.arguments)
    return {
        "at": r.at,
        "workspace": key_of(r.workspace),
        "caller": r.caller,
        "caller_kind": r.caller_kind,
        "call_id": r.call_id,
        "tool": _text(r.tool)[:128],
        "integration": r.integration,
        "status": r.status,
        "error_code": r.error_code,
        "ms": r.ms,
        "attempts": r.attempts,
        "bytes": r.bytes,
        "arguments": None if arguments is None or len(arguments) > MAX_ARGUMENTS else arguments,
        "request_id": r.request_id or None,
    }


def _change_values(r: AuditRecord) -> dict[str, Any]:
    return {
        "at": r.at,
        "workspace": key_of(r.workspace),
        "caller": r.caller,
        "caller_kind": r.caller_kind,
        "action": r.action,
        "kind": r.kind,
        "target": r.target,
        "name": _text(r.name),
        "changes": write_json(list(r.changes)),
    }


def _text(given: str) -> str:
    """A caller's own text: neither database keeps NUL or lone surrogates."""
    return given.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _call(row: Row[*tuple[Any, ...]]) -> CallRecord:
    fields = dict(cast("dict[str, Any]", row._mapping))  # pyright: ignore[reportPrivateUsage] - SQLAlchemy's public name for it
    fields["arguments"] = None if row.arguments is None else orjson.loads(row.arguments)
    fields["request_id"] = row.request_id or ""
    return CallRecord(**fields)


def _change(row: Row[*tuple[Any, ...]]) -> AuditRecord:
    fields = dict(cast("dict[str, Any]", row._mapping))  # pyright: ignore[reportPrivateUsage]
    fields["changes"] = orjson.loads(row.changes)
    return AuditRecord(**fields)
