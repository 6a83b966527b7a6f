"""The schema's revision: is it this version's, and the way there. Alembic is imported only when there is something to do."""

from importlib.resources import files

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from tools.errors import StorageUnavailable

HEAD = "0007"
"""The newest revision in `migrations/versions`; a test holds the two together."""

_MOVE = "name another one with database_url (one that is empty or not there yet is made), or restore a backup"
_LOCK = 0x1A7E_6A71
"""Any number, the same in every replica: whoever holds it migrates."""


async def is_current(connection: AsyncConnection) -> bool:
    return await connection.run_sync(revision_of) == HEAD


async def upgrade(connection: AsyncConnection) -> None:
    """Brings the schema up to date within this transaction; of several replicas at once, one does and the others wait.

    Raises StorageUnavailable when the database was written by a newer version.
    """
    if connection.dialect.name == "postgresql":  # on SQLite the write transaction itself is the lock
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    revision = await connection.run_sync(revision_of)
    if revision == HEAD:
        return
    await connection.run_sync(migrate, revision)


def revision_of(connection: Connection) -> str | None:
    """None where there are no tables yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _others(connection: Connection) -> str:
    """Tables that stand in the way of a new registry: any in an SQLite file; in PostgreSQL, which others may use too, of our names."""
    found = set(inspect(connection).get_table_names())
    if connection.dialect.name == "postgresql":
        from server.store.tables import metadata

        found &= metadata.tables.keys()
    return ", ".join(sorted(found)[:3])


def migrate(connection: Connection, revision: str | None, target: str = HEAD) -> None:
    """From `revision` (None: no tables yet) to `target`. Raises StorageUnavailable for a revision that isn't known here.

    Each step is given its operations. Alembic's own runner keeps them in module-level proxies, which two registries opened at
    once in one process would take from each other.
    """
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    steps = ScriptDirectory(str(files("server.store") / "migrations"))
    known = {script.revision for script in steps.walk_revisions()}
    if revision is None and (found := _others(connection)):
        raise StorageUnavailable(
            f"The database that the registry should be in holds tables of something else ({found}): {_MOVE}"
        )
    for wanted in (revision, target):
        if wanted is not None and wanted not in known:
            if not (wanted.isdecimal() and wanted > HEAD):
                raise StorageUnavailable(
                    f"The registry's database is of another program, or of a version before the first release (schema {wanted[:40]}): {_MOVE}"
                )
            raise StorageUnavailable(
                f"The registry was written by a newer version of integrations-mcp (schema {wanted}, this one knows {HEAD}); "
                "start that version, or restore a backup from before the upgrade."
            )
    context = MigrationContext.configure(connection)
    operations = Operations(context)
    for script in reversed(list(steps.iterate_revisions(target, revision or "base"))):
        script.module.upgrade(operations)
    context.stamp(steps, target)
