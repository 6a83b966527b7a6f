"""Kept results in the registry's database, so that any process can read on; sealed, because they are patients' data."""

import os
from datetime import datetime

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete, insert, select

from server.keyring import Keyring
from server.store.database import Database
from server.store.tables import kept_results
from tools.results import KeptResult

_NONCE = 12


class SqlResultStore:
    """`tools.results.ResultStore`. A row is bound to its workspace, caller and id: read by anybody else, it doesn't open."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._cipher = AESGCM(keyring.derive("results"))

    async def keep(self, workspace: str, caller: str, result: KeptResult) -> None:
        nonce = os.urandom(_NONCE)
        clear = orjson.dumps({"tool": result.tool, "value": result.value, "text": result.text, "limit": result.limit})
        sealed = nonce + self._cipher.encrypt(nonce, clear, _bound_to(workspace, caller, result.id))
        async with self._database.write() as connection:
            # A background call that runs again keeps its result under the same id.
            await connection.execute(delete(kept_results).where(kept_results.c.id == result.id))
            await connection.execute(
                insert(kept_results).values(id=result.id, sealed=sealed, expires_at=result.expires_at)
            )

    async def kept(self, workspace: str, caller: str, id: str, now: datetime) -> KeptResult | None:
        query = select(kept_results).where(kept_results.c.id == id, kept_results.c.expires_at > now)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            return None
        try:
            clear = self._cipher.decrypt(row.sealed[:_NONCE], row.sealed[_NONCE:], _bound_to(workspace, caller, id))
        except InvalidTag:
            return None  # another caller's, or sealed with a key that is gone: not found, either way
        fields = orjson.loads(clear)
        return KeptResult(id, fields["tool"], fields["value"], fields["text"], fields["limit"], row.expires_at)

    async def forget_expired(self, now: datetime) -> None:
        async with self._database.write() as connection:
            await connection.execute(delete(kept_results).where(kept_results.c.expires_at <= now))


def _bound_to(workspace: str, caller: str, id: str) -> bytes:
    return "|".join((workspace.lower(), caller, id)).encode()
