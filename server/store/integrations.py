"""Integrations: one row each, with columns for what lists filter and sort by and one JSON document for the rest."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import anyio.to_thread
from pydantic import ValidationError
from sqlalchemy import ColumnElement, Row, Select, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from server.store import secrets
from server.store.tables import integrations, upstream_tools, workspaces
from server.store.tool_names import set_names
from server.store.workspaces import WorkspaceRows, ensure, key_of, raise_version
from tools.errors import NameTaken, NotFound, StorageUnavailable, VersionMismatch
from tools.models import Integration, UpstreamTools
from tools.registry import ListPage, ListQuery
from tools.signing_keys import due

_ROW = (
    integrations.c.id,
    integrations.c.created_at,
    integrations.c.updated_at,
    integrations.c.version,
    integrations.c.last_tested_at,
    integrations.c.last_test_status,
    integrations.c.document,
    workspaces.c.id.label("workspace_id"),
    upstream_tools.c.document.label("upstream_tools"),
)
_SORT = {"name": "name", "display_name": "display_key", "created_at": "created_at", "updated_at": "updated_at"}


def folded(text: str) -> str:
    """What case-insensitive search and order compare. PostgreSQL's text can't hold NUL."""
    return text.casefold().replace("\x00", "\ufffd")


class IntegrationRows(WorkspaceRows):
    """The part of the Registry that is about integrations."""

    async def load(self, workspace: str, known: Sequence[Integration] = ()) -> tuple[int, tuple[Integration, ...]]:
        version = select(workspaces.c.version).where(workspaces.c.key == key_of(workspace))
        async with self._database.read() as connection:
            number = (await connection.execute(version)).scalar() or 0
            rows = (await connection.execute(_of(workspace).order_by(integrations.c.name))).all()
        # Thousands of endpoints take a while to parse: not on the event loop.
        read = {(i.id, i.version): i for i in known}
        return number, await anyio.to_thread.run_sync(lambda: tuple(_parsed(row, read) for row in rows))

    async def get(self, workspace: str, ref: str) -> Integration:
        named = or_(integrations.c.id == ref, integrations.c.name == ref)
        # A name can look like another one's id: the id wins.
        query = _of(workspace).where(named).order_by((integrations.c.id == ref).desc()).limit(1)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            raise _absent(ref)
        return _parsed(row)

    async def page(self, workspace: str, query: ListQuery) -> ListPage:
        column = integrations.c[_SORT[query.sort]]
        order = (column.desc(), integrations.c.id.desc()) if query.descending else (column, integrations.c.id)
        conditions = _conditions(query)
        total = select(func.count()).select_from(integrations).where(integrations.c.workspace == key_of(workspace))
        # Two steps: sorting moves ids only, and the documents of one page are read.
        ids = select(integrations.c.id).where(integrations.c.workspace == key_of(workspace), *conditions)
        ids = ids.order_by(*order).limit(query.limit).offset(query.offset)
        async with self._database.read() as connection:
            count = (await connection.execute(total.where(*conditions))).scalar_one()
            wanted = (await connection.execute(ids)).scalars().all()
            rows = (await connection.execute(_of(workspace).where(integrations.c.id.in_(wanted)))).all()
        found = {row.id: row for row in rows}
        return ListPage(items=tuple(_parsed(found[id]) for id in wanted), total=count)

    async def insert(self, integration: Integration, sweeps: Mapping[str, datetime | None]) -> None:
        async with self._database.write() as connection:
            await ensure(self._database, connection, integration.workspace_id)
            row = insert(integrations).values(
                id=integration.id,
                workspace=key_of(integration.workspace_id),
                name=integration.name,
                created_at=integration.created_at,
                version=integration.version,
                last_tested_at=integration.last_tested_at,
                last_test_status=integration.last_test_status,
                **_columns(integration),
            )
            try:
                await connection.execute(row)
            except IntegrityError:
                raise NameTaken(f"An integration named {integration.name} is already there.") from None
            await self._written(connection, integration, sweeps)

    async def replace(
        self, integration: Integration, expected_version: int, sweeps: Mapping[str, datetime | None]
    ) -> None:
        row = _one(integration.workspace_id, integration.id)
        async with self._database.write() as connection:
            changed = update(integrations).where(*row, integrations.c.version == expected_version)
            # The version is counted here, so that no two states of a row can ever carry the same one.
            changed = changed.values(version=expected_version + 1, **_columns(integration))
            if not (await connection.execute(changed)).rowcount:
                raise await _refusal(connection, row, integration.id)
            await self._written(connection, integration, sweeps)

    async def delete(
        self, workspace: str, id: str, expected_version: int | None, sweeps: Mapping[str, datetime | None]
    ) -> None:
        row = _one(workspace, id)
        gone = delete(integrations).where(*row)
        if expected_version is not None:
            gone = gone.where(integrations.c.version == expected_version)
        async with self._database.write() as connection:
            if not (await connection.execute(gone)).rowcount:
                raise await _refusal(connection, row, id)
            await secrets.set_sweeps(self._database, connection, sweeps)
            await raise_version(self._database, connection, workspace)

    async def keys_due(self, now: datetime) -> list[tuple[str, str]]:
        rows = select(workspaces.c.id.label("workspace"), integrations.c.id)
        rows = rows.select_from(integrations.join(workspaces, workspaces.c.key == integrations.c.workspace))
        rows = rows.where(integrations.c.keys_due <= now).order_by(integrations.c.keys_due, integrations.c.id)
        async with self._database.read() as connection:
            return [(row.workspace, row.id) for row in await connection.execute(rows)]

    async def record_test(self, workspace: str, id: str, at: datetime, status: str) -> None:
        tested = update(integrations).where(*_one(workspace, id)).values(last_tested_at=at, last_test_status=status)
        async with self._database.write() as connection:
            if not (await connection.execute(tested)).rowcount:
                raise _absent(id)

    async def keep_upstream_tools(self, workspace: str, id: str, tools: UpstreamTools) -> None:
        document = tools.model_dump_json(exclude_defaults=True)
        kept = select(upstream_tools.c.document).where(upstream_tools.c.integration == id)
        async with self._database.write() as connection:
            if not (await connection.execute(select(integrations.c.id).where(*_one(workspace, id)))).scalar():
                raise _absent(id)
            if (await connection.execute(kept)).scalar() == document:
                return
            await connection.execute(delete(upstream_tools).where(upstream_tools.c.integration == id))
            await connection.execute(insert(upstream_tools).values(integration=id, document=document))
            await raise_version(self._database, connection, workspace)

    async def _written(
        self, connection: AsyncConnection, integration: Integration, sweeps: Mapping[str, datetime | None]
    ) -> None:
        await set_names(connection, integration, self._tool_name_max)
        await secrets.set_references(connection, integration)
        await secrets.set_sweeps(self._database, connection, sweeps)
        await raise_version(self._database, connection, integration.workspace_id)


def _of(workspace: str) -> Select[*tuple[Any, ...]]:
    joined = integrations.join(workspaces, workspaces.c.key == integrations.c.workspace)
    joined = joined.outerjoin(upstream_tools, upstream_tools.c.integration == integrations.c.id)
    return select(*_ROW).select_from(joined).where(integrations.c.workspace == key_of(workspace))


def _one(workspace: str, id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return integrations.c.workspace == key_of(workspace), integrations.c.id == id


def _columns(integration: Integration) -> dict[str, object]:
    # Defaults are the contract's and never change. Left out, a field that this version added doesn't stop a replica of the
    # version before from reading the row, as long as nobody uses it.
    return {
        "display_key": folded(integration.display_name),
        "protocol": integration.protocol,
        "enabled": integration.enabled,
        "updated_at": integration.updated_at,
        "keys_due": due(integration),
        "document": integration.model_dump_json(exclude_defaults=True, exclude={"upstream_tools"}),
    }


def _conditions(query: ListQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.enabled is not None:
        conditions.append(integrations.c.enabled.is_(query.enabled))
    if query.protocol is not None:
        conditions.append(integrations.c.protocol == query.protocol)
    if query.ids is not None:
        conditions.append(integrations.c.id.in_(sorted(query.ids)))
    if query.search:
        term = folded(query.search)
        columns = (integrations.c.name, integrations.c.display_key, integrations.c.id)
        conditions.append(or_(*(column.contains(term, autoescape=True) for column in columns)))
    return conditions


def _parsed(row: Row[*tuple[Any, ...]], known: Mapping[tuple[str, int], Integration] = {}) -> Integration:
    try:
        document = known.get((row.id, row.version)) or Integration.model_validate_json(row.document)
        shown = UpstreamTools.model_validate_json(row.upstream_tools) if row.upstream_tools is not None else None
    except ValidationError as error:
        where = ", ".join(sorted({".".join(map(str, fault["loc"])) for fault in error.errors(include_input=False)}))
        raise StorageUnavailable(
            f"Integration {row.id} can't be read: {where}. Was it written by a newer version of integrations-mcp?"
        ) from None
    return document.model_copy(
        update={
            "workspace_id": row.workspace_id,
            "created_at": row.created_at,
            "updated_at": row.updated_at,
            "version": row.version,
            "last_tested_at": row.last_tested_at,
            "last_test_status": row.last_test_status,
            "upstream_tools": shown,
        }
    )


async def _refusal(connection: AsyncConnection, row: tuple[ColumnElement[bool], ...], id: str) -> Exception:
    version = (await connection.execute(select(integrations.c.version).where(*row))).scalar()
    if version is None:
        return _absent(id)
    return VersionMismatch(f"Somebody else changed the integration meanwhile: its version is {version} now.")


def _absent(ref: str) -> NotFound:
    return NotFound(f"There is no integration {ref}.")
