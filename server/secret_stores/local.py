"""Secrets in the registry's own database, sealed with AES-256-GCM. Works on every replica that has the key."""

import os
import secrets
import time
from collections.abc import Collection
from datetime import UTC, datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete, func, insert, or_, select

from server.secret_stores.keyring import Keyring
from server.store.database import Database
from server.store.tables import secret_values
from tools.errors import SecretNotFound, SecretStoreUnavailable
from tools.secrets import Secret

_NONCE = 12


class LocalSecretStore:
    """`tools.secrets.SecretStore` over a database. A value is bound to its path and version: moved, it doesn't open."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring
        self._cipher = AESGCM(keyring.derive("secrets"))
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
        if row.key_id != self._key_id:
            raise SecretStoreUnavailable(
                f"The secret at {path} was encrypted with another key than {self._keyring.source}; bring back the key it "
                "was written with, or store the secret again."
            )
        try:
            value = self._cipher.decrypt(row.sealed[:_NONCE], row.sealed[_NONCE:], _bound_to(path, row.version))
        except InvalidTag:
            raise SecretStoreUnavailable(f"The secret at {path} is damaged; store it again.") from None
        return Secret(value=value.decode(), version=row.version)

    async def write(self, path: str, value: str) -> str:
        newest = select(func.max(secret_values.c.version)).where(secret_values.c.path == path)
        async with self._database.write() as connection:
            version = _next_version((await connection.execute(newest)).scalar())
            nonce = os.urandom(_NONCE)
            sealed = nonce + self._cipher.encrypt(nonce, value.encode(), _bound_to(path, version))
            row = insert(secret_values).values(
                path=path, version=version, key_id=self._key_id, sealed=sealed, created_at=datetime.now(UTC)
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


def _bound_to(path: str, version: str) -> bytes:
    return f"{path}|{version}".encode()  # no path holds "|" (rules A3)


def _next_version(newest: str | None) -> str:
    """Nanoseconds and 64 random bits in hex, greater than `newest` also when the clock has stepped back."""
    now = time.time_ns()
    if newest is not None:
        now = max(now, int(newest[:16], 16) + 1)
    return f"{now:016x}{secrets.token_hex(8)}"
