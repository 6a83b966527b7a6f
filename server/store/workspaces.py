"""Workspaces: made when first named, each with a version that every write of its integrations raises."""

import re
from collections.abc import AsyncIterator, Callable, Sequence

import anyio
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server.store.database import RETRY_S, Database
from server.store.tables import workspaces
from tools.errors import InvalidRequest, Issue, StorageUnavailable
from tools.models import WORKSPACE_ID
from tools.naming import TOOL_NAME_MAX

_ID = re.compile(WORKSPACE_ID.removeprefix("^").removesuffix("$"), re.ASCII)


def key_of(workspace: str) -> str:
    """Workspace ids are ASCII (their pattern), so lower case is all that ignoring case takes."""
    return workspace.lower()


async def ensure(database: Database, connection: AsyncConnection, workspace: str) -> None:
    """Within a write: the workspace is there afterwards. Raises InvalidRequest for what can't be its id: paths and URLs are made of
    it (rules A3), so this one place is asked whatever brought it here.
    """
    if not _ID.fullmatch(workspace):
        raise InvalidRequest(
            [Issue(("path", "workspace_id"), "a workspace id has letters, digits, - and _, at most 64")]
        )
    made = (
        database.insert(workspaces)
        .values(key=key_of(workspace), id=workspace, version=1, changed=0)
        .on_conflict_do_nothing(index_elements=["key"])
    )
    await connection.execute(made)


async def raise_version(database: Database, connection: AsyncConnection, workspace: str) -> None:
    """Within a write, and last in it: the workspace moved."""
    changed = await database.raise_counter(connection, "registry")
    moved = update(workspaces).where(workspaces.c.key == key_of(workspace))
    await connection.execute(moved.values(version=workspaces.c.version + 1, changed=changed))


class WorkspaceRows:
    """The part of the Registry that is about workspaces."""

    def __init__(self, database: Database, tool_name_max: int = TOOL_NAME_MAX) -> None:
        """`tool_name_max` is the setting; rows written under another one have their new names when they are written again."""
        self._database = database
        self._tool_name_max = tool_name_max

    async def workspace_id(self, workspace: str) -> str | None:
        """Its id as first written; None where there is no such workspace."""
        written = select(workspaces.c.id).where(workspaces.c.key == key_of(workspace))
        async with self._database.read() as connection:
            return (await connection.execute(written)).scalar()

    async def ensure_workspace(self, workspace: str) -> str:
        known = await self.workspace_id(workspace)
        if known is not None:
            return known
        written = select(workspaces.c.id).where(workspaces.c.key == key_of(workspace))
        async with self._database.write() as connection:
            await ensure(self._database, connection, workspace)
            return (await connection.execute(written)).scalar_one()

    async def workspaces(self) -> list[str]:
        """All there are, by id."""
        async with self._database.read() as connection:
            return list((await connection.execute(select(workspaces.c.id).order_by(workspaces.c.key))).scalars())

    async def version(self, workspace: str) -> int:
        query = select(workspaces.c.version).where(workspaces.c.key == key_of(workspace))
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar() or 0

    async def changes(self, looked: Callable[[], None] = lambda: None) -> AsyncIterator[str]:
        told = 0
        async for counter in self._database.moves("registry", every_look=True):
            if counter != told:
                for workspace in await self._moved(told, counter):
                    yield workspace
                told = counter
            looked()

    async def _moved(self, after: int, until: int) -> Sequence[str]:
        query = select(workspaces.c.id).where(workspaces.c.changed > after, workspaces.c.changed <= until)
        while True:
            try:
                async with self._database.read() as connection:
                    return (await connection.execute(query.order_by(workspaces.c.changed))).scalars().all()
            except StorageUnavailable:
                await anyio.sleep(RETRY_S)  # what moved is told later, not lost
