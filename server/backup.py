"""Backup and restore: the registry with its sealed secrets as one file, from and to either database, while servers run.

Read in one transaction, which sees one state; written in one transaction, so that a restore is whole or not at all.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from dataclasses import replace as replaced
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from server import keyring
from server.backup_file import BackupError, BackupReader, Header, Row, TableHead, opened_key, sealed_key, writing
from server.keyring import KEY_FILE, Keyring
from server.secret_stores.opening import open_keyring
from server.settings import Settings
from server.store import copying, schema
from server.store.database import Database, open_database
from server.store.tables import counters
from server.version import VERSION
from tools.errors import StorageUnavailable

REPLACED_KEY_FILE = "secret.key.replaced"
Passphrase = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Report:
    """What was copied: rows by table; the keys that something in it is sealed with, and whether the key is there.

    `ended_calls` are background calls that a restore has ended without sending them; `old_key` says that another key file was
    put aside.
    """

    made_at: str
    version: str
    schema: str
    store: str
    key_ids: tuple[str, ...]
    key: bool
    rows: dict[str, int]
    ended_calls: int = 0
    old_key: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


async def backup(settings: Settings, path: Path, passphrase: str | None) -> Report:
    """Writes `path`, a new file of mode 0600; with a passphrase the key is in it, sealed.

    Raises BackupError, SecretStoreUnavailable, StorageUnavailable; then there is no file.
    """
    async with open_database(settings.registry_url) as database:
        with writing(path) as writer:
            async with database.read() as connection:
                ids = await copying.key_ids(connection)  # the first look: all that follows sees the same state
                key = None if passphrase is None else _sealed(_key_of(settings, ids), passphrase)
                made_at = datetime.now(UTC).isoformat(timespec="seconds")
                header = Header(made_at, VERSION, schema.HEAD, settings.secret_store, ids, key)
                writer.header(header)
                rows: dict[str, int] = {}
                for table in copying.COPIED:
                    head = TableHead(table.name, copying.columns_of(table))
                    writer.table(head)
                    rows[table.name] = 0
                    async for part in copying.rows_of(connection, table):
                        writer.rows(head, part)
                        rows[table.name] += len(part)
    return _report(header, rows, key=key is not None)


def _sealed(ring: Keyring, passphrase: str) -> dict[str, Any]:
    return {"id": ring.key_id, **sealed_key(ring.key, passphrase)}


def _key_of(settings: Settings, ids: Sequence[str]) -> Keyring:
    """The key that belongs to what was read; a change of keys meanwhile is noticed."""
    ring = open_keyring(settings)
    if ids and ring.key_id not in ids:
        raise BackupError(
            f"Nothing in the registry is encrypted with {ring.source}, so that key would be of no use. If the key is being "
            "changed just now (secrets rekey), run the backup again afterwards."
        )
    return ring


async def restore(settings: Settings, path: Path, ask: Passphrase, *, replace: bool) -> Report:
    """Makes the registry what the file holds. `ask` gives the passphrase, if the key is in the file and isn't here yet.

    Raises BackupError, OSError, SecretStoreUnavailable, StorageUnavailable; then registry and key are as they were.
    """
    reader = BackupReader(path)
    header = reader.header
    new_key = _new_key(settings, header, ask, replace=replace)
    async with open_database(settings.registry_url) as database:
        rows, ended = await _write(database, reader, settings, new_key, replace=replace)
    here = _here(settings)
    report = _report(header, rows, key=here is not None and here.key_id in header.key_ids)
    return replaced(report, ended_calls=ended, old_key=new_key is not None and new_key.replaces)


@dataclass(frozen=True, slots=True)
class _NewKey:
    key: bytes
    replaces: bool


def _new_key(settings: Settings, header: Header, ask: Passphrase, *, replace: bool) -> _NewKey | None:
    """The key to put into the home folder; None where it is there already, or isn't in the file."""
    here = _here(settings)
    if header.key is None or (here is not None and here.key_id in (*header.key_ids, header.key.get("id"))):
        return None
    if here is not None and settings.secret_key:
        raise BackupError(
            "The key in the backup is another one than INTEGRATIONS_MCP_SECRET_KEY. Unset it to have the backup's key in the "
            "home folder, or set it to the key that the backup was made with. Nothing was changed."
        )
    if here is not None and not replace:
        raise BackupError(
            f"There is another key in {settings.home / KEY_FILE}; nothing was changed. With --replace it is kept as "
            f"{REPLACED_KEY_FILE}, and the backup's key takes its place."
        )
    return _NewKey(opened_key(header.key, ask()), replaces=here is not None)


def _here(settings: Settings) -> Keyring | None:
    """The key that a server would use, without making one."""
    if not settings.secret_key and not (settings.home / KEY_FILE).exists():
        return None
    return open_keyring(settings)


async def _write(
    database: Database, reader: BackupReader, settings: Settings, new_key: _NewKey | None, *, replace: bool
) -> tuple[dict[str, int], int]:
    placed = False
    try:
        async with database.write() as connection:
            if not replace and await copying.is_used(connection):
                raise BackupError(
                    f"The registry ({database.name}) isn't empty; nothing was changed. Restore into another one, or give "
                    "--replace: all that is in it is removed then."
                )
            told = {row.name: row.value for row in (await connection.execute(select(counters))).all()}
            rows, ended = await _fill(connection, reader, told)
            if new_key is not None:
                _place(settings, new_key)
                placed = new_key.replaces
    except BaseException:
        if placed:  # the registry stays as it was, so its key does
            (settings.home / REPLACED_KEY_FILE).replace(settings.home / KEY_FILE)
        raise
    return rows, ended


async def _fill(connection: AsyncConnection, reader: BackupReader, told: dict[str, int]) -> tuple[dict[str, int], int]:
    try:
        await copying.make_anew(connection, reader.header.schema)
        rows: dict[str, int] = {}
        for head, of_table in _by_table(reader):
            rows[head.name] = await copying.fill(connection, head.name, [name for name, _ in head.columns], of_table)
        return rows, await copying.settle(connection, datetime.now(UTC), told)
    except StorageUnavailable:
        raise BackupError(
            f"The backup was made by a newer version of integrations-mcp ({reader.header.version[:40]}, schema "
            f"{reader.header.schema[:40]}): restore it with that version. Nothing was changed."
        ) from None
    except (KeyError, ValueError, TypeError, SQLAlchemyError) as e:
        if isinstance(e, BackupError) or getattr(e, "connection_invalidated", False):
            raise
        raise BackupError(
            f"What is in the backup doesn't fit its schema ({type(e).__name__}); nothing was changed."
        ) from None


def _by_table(reader: BackupReader) -> Iterator[tuple[TableHead, Iterator[Row]]]:
    """Each table's rows must have been taken before the next table is."""
    lines = reader.tables()
    following: list[TableHead] = [head for head in (next(lines, None),) if isinstance(head, TableHead)]

    def rows() -> Iterator[Row]:
        for line in lines:
            if isinstance(line, TableHead):
                following.append(line)
                return
            yield line

    while following:
        yield following.pop(), rows()


def _place(settings: Settings, new: _NewKey) -> None:
    if new.replaces:
        (settings.home / REPLACED_KEY_FILE).unlink(missing_ok=True)
        keyring.replace(settings.home, new.key, REPLACED_KEY_FILE)
    elif not keyring.put(settings.home, new.key):
        raise BackupError(f"Somebody else has just made {settings.home / KEY_FILE}; nothing was changed.")


def _report(header: Header, rows: dict[str, int], *, key: bool) -> Report:
    return Report(header.made_at, header.version, header.schema, header.store, header.key_ids, key, rows)
