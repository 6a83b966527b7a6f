"""Names of tools, unique in a workspace: kept by the write of the integration itself, so that no two writers can take one."""

from collections.abc import Sequence

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from server.store.tables import integrations, tool_names
from server.store.workspaces import WorkspaceRows, key_of
from tools.errors import NameTaken
from tools.models import Integration
from tools.naming import tool_name


async def set_names(connection: AsyncConnection, integration: Integration, limit: int) -> None:
    """Within a write: the integration has exactly the names of its endpoints. Raises NameTaken."""
    await connection.execute(delete(tool_names).where(tool_names.c.integration == integration.id))
    workspace = key_of(integration.workspace_id)
    rows = [
        {
            "workspace": workspace,
            "name": tool_name(integration.name, endpoint.name, limit).lower(),
            "integration": integration.id,
            "endpoint": endpoint.name,
        }
        for endpoint in integration.endpoints
    ]
    if not rows:
        return
    try:
        await connection.execute(insert(tool_names), rows)
    except IntegrityError:
        raise NameTaken("one of its tools has a name that somebody else has just taken; try again") from None


class ToolNameRows(WorkspaceRows):
    """The part of the Registry that is about names of tools."""

    async def names_taken(self, workspace: str, names: Sequence[str], besides: str) -> dict[str, tuple[str, str]]:
        columns = (tool_names.c.name, integrations.c.name.label("by"), tool_names.c.endpoint)
        joined = tool_names.join(integrations, integrations.c.id == tool_names.c.integration)
        query = select(*columns).select_from(joined)
        query = query.where(tool_names.c.workspace == key_of(workspace), tool_names.c.integration != besides)
        async with self._database.read() as connection:
            rows = await connection.execute(query.where(tool_names.c.name.in_(sorted(n.lower() for n in names))))
            return {row.name: (row.by, row.endpoint) for row in rows}
