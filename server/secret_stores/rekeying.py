"""A new key for everything at rest: `secrets rekey`. It can be cut off anywhere and is finished by running it again.

With a key file: the new key becomes `secret.key` and the one before is kept as `secret.key.old`, so that a process that starts
in between reads what either has sealed; then all rows are sealed anew in one transaction; then the old key goes.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server.keyring import OLD_KEY_FILE, Keyring, kept_in, old_kept_in, replace
from server.secret_stores.local import opened, sealed
from server.store import background
from server.store.database import Database
from server.store.tables import background_calls, kept_results, secret_values
from tools.errors import SecretStoreUnavailable


async def rekey_file(database: Database, home: Path) -> int:
    """A new key file; returns how many values were sealed anew. Raises SecretStoreUnavailable, StorageUnavailable."""
    ring, old = kept_in(home), old_kept_in(home)
    if old is None or old.key == ring.key:
        replace(home, secrets.token_bytes(32), OLD_KEY_FILE)
        old, ring = ring, kept_in(home)
    count = await reseal(database, [old], ring)
    (home / OLD_KEY_FILE).unlink(missing_ok=True)
    return count


async def reseal(database: Database, old: Sequence[Keyring], new: Keyring) -> int:
    """Seals every value and background call with `new`, all or none; kept results, which live for minutes, are dropped."""
    ciphers = {ring.key_id: AESGCM(ring.derive("secrets")) for ring in (*old, new)}
    count = 0
    async with database.write() as connection:
        rows = (await connection.execute(select(secret_values).where(secret_values.c.key_id != new.key_id))).all()
        for row in rows:
            if row.key_id not in ciphers:
                raise SecretStoreUnavailable(
                    f"The secret at {row.path} was encrypted with a key that isn't here; nothing was changed. Bring that key "
                    "back, or remove the secret."
                )
            value = opened(ciphers[row.key_id], row.path, row.version, row.sealed)
            this = (secret_values.c.path == row.path) & (secret_values.c.version == row.version)
            again = sealed(ciphers[new.key_id], row.path, row.version, value)
            await connection.execute(update(secret_values).where(this).values(key_id=new.key_id, sealed=again))
            count += 1
        await _reseal_calls(connection, [*old, new], new)
        await connection.execute(delete(kept_results))
    return count


async def _reseal_calls(connection: AsyncConnection, known: Sequence[Keyring], new: Keyring) -> None:
    """What was accepted will run, and what has ended is kept. One that no key here opens is left: it can't be read either way."""
    ciphers = {ring.key_id: background.cipher_of(ring) for ring in known}
    calls = background_calls
    foreign = calls.c.key_id.in_(set(ciphers) - {new.key_id})
    for row in (await connection.execute(select(calls).where(foreign))).all():
        again: dict[str, bytes] = {}
        for column, part in (("sealed", "arguments"), ("result", "result")):
            bound, kept = background.bound_to(row, part), getattr(row, column)
            clear = None if kept is None else background.opened(ciphers[row.key_id], kept, bound)
            if clear is not None:
                again[column] = background.sealed(ciphers[new.key_id], clear, bound)
        await connection.execute(update(calls).where(calls.c.id == row.id).values(key_id=new.key_id, **again))
