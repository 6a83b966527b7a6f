"""Secrets in the registry's own database, sealed with AES-256-GCM. Works on every replica that has the key."""

import os
import secrets
import time
from collections.abc import Collection
from datetime import UTC, datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete, func, insert, or_, select

from server.keyring import Keyring
from server.store.database import Database
from server.store.tables import secret_values
from tools.errors import SecretNotFound, SecretStoreUnavailable
from tools.secrets import Secret

_NONCE = 12


class LocalSecretStore:
    """`tools.secrets.SecretStore` over a database. A value is bound to its path and version: moved, it doesn't open."""

    def __init__(self, database: Database, keyring: Keyring, old: Keyring | None = None) -> None:
        """`old` also opens what it sealed: a change of keys is under way (`secrets rekey`)."""
        self._database = database
        self._keyring = keyring
        self._ciphers = {ring.key_id: AESGCM(ring.derive("secrets")) for ring in (keyring, old) if ring is not None}
        self._key_id = keyring.key_id

    async def read(self, path: str, version: str | None = None) -> Secret:
        query = select(secret_values).where(secret_values.c.path == path)
        if version is None:
            query = query.order_by(secret_values.c.version.desc()).limit(1)
        else:
            query = query.where(secret_values.c.version == version)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            raise SecretNotFound(f"No secret is stored at {path}.")
        cipher = self._ciphers.get(row.key_id)
        if cipher is None:
            raise SecretStoreUnavailable(
                f"The secret at {path} was encrypted with another key than {self._keyring.source}; bring back the key it "
                "was written with, or store the secret again. If the key was changed just now (secrets rekey), restart this "
                "process."
            )
        return Secret(value=opened(cipher, path, row.version, row.sealed), version=row.version)

    async def write(self, path: str, value: str) -> str:
        newest = select(func.max(secret_values.c.version)).where(secret_values.c.path == path)
        foreign = select(secret_values.c.key_id).where(secret_values.c.key_id.not_in(list(self._ciphers))).limit(1)
        async with self._database.write() as connection:
            if (await connection.execute(foreign)).first() is not None:
                # The key was changed behind our back: what we seal with the old one nobody could open later.
                raise SecretStoreUnavailable(
                    f"There are secrets that were encrypted with another key than {self._keyring.source}. If the key was "
                    "changed just now (secrets rekey), restart this process; else bring back the key, or remove them."
                )
            version = _next_version((await connection.execute(newest)).scalar())
            row = insert(secret_values).values(
                path=path,
                version=version,
                key_id=self._key_id,
                sealed=sealed(self._ciphers[self._key_id], path, version, value),
                created_at=datetime.now(UTC),
            )
            await connection.execute(row)
        return version

    async def versions(self, path: str) -> dict[str, datetime]:
        kept = select(secret_values.c.version, secret_values.c.created_at).where(secret_values.c.path == path)
        async with self._database.read() as connection:
            rows = await connection.execute(kept.order_by(secret_values.c.version))
            return {row.version: row.created_at for row in rows}

    async def remove(self, path: str, versions: Collection[str]) -> None:
        gone = delete(secret_values).where(secret_values.c.path == path, secret_values.c.version.in_(sorted(versions)))
        async with self._database.write() as connection:
            await connection.execute(gone)

    async def paths(self, prefix: str) -> list[str]:
        top = prefix.rstrip("/")
        # Everything under /a/b lies between "/a/b/" and "/a/b0": "0" is the character after "/".
        under = (secret_values.c.path >= f"{top}/") & (secret_values.c.path < f"{top}0")
        query = select(secret_values.c.path).distinct().where(or_(secret_values.c.path == top, under))
        async with self._database.read() as connection:
            return list((await connection.execute(query.order_by(secret_values.c.path))).scalars())


def sealed(cipher: AESGCM, path: str, version: str, value: str) -> bytes:
    """Nonce and ciphertext, bound to path and version."""
    nonce = os.urandom(_NONCE)
    return nonce + cipher.encrypt(nonce, value.encode(), _bound_to(path, version))


def opened(cipher: AESGCM, path: str, version: str, row: bytes) -> str:
    """The value. Raises SecretStoreUnavailable when it isn't what was sealed for this path and version."""
    try:
        return cipher.decrypt(row[:_NONCE], row[_NONCE:], _bound_to(path, version)).decode()
    except InvalidTag:
        raise SecretStoreUnavailable(f"The secret at {path} is damaged; store it again.") from None


def _bound_to(path: str, version: str) -> bytes:
    return f"{path}|{version}".encode()  # no path holds "|" (rules A3)


def _next_version(newest: str | None) -> str:
    """Nanoseconds and 64 random bits in hex, greater than `newest` also when the clock has stepped back."""
    now = time.time_ns()
    if newest is not None:
        now = max(now, int(newest[:16], 16) + 1)
    return f"{now:016x}{secrets.token_hex(8)}"
