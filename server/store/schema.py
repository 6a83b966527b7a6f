"""The schema's revision: is it this version's, and the way there. Alembic is imported only when there is something to do."""

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from tools.errors import StorageUnavailable

HEAD = "0005"
"""The newest revision in `migrations/versions`; a test holds the two together."""

_LOCK = 0x1A7E_6A71
"""Any number, the same in every replica: whoever holds it migrates."""


async def is_current(connection: AsyncConnection) -> bool:
    return await connection.run_sync(_revision) == HEAD


async def upgrade(connection: AsyncConnection) -> None:
    """Brings the schema up to date within this transaction; of several replicas at once, one does and the others wait.

    Raises StorageUnavailable when the database was written by a newer version.
    """
    if connection.dialect.name == "postgresql":  # on SQLite the write transaction itself is the lock
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    revision = await connection.run_sync(_revision)
    if revision == HEAD:
        return
    await connection.run_sync(_migrate, revision)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(connection: Connection, revision: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "server.store:migrations")
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise StorageUnavailable(
            f"The registry was written by a newer version of integrations-mcp (schema {revision}, this one knows {HEAD}); "
            "start that version, or restore a backup from before the upgrade."
        )
    command.upgrade(config, "head")
