"""Kept results in the registry's database, so that any process can read on; sealed, because they are patients' data."""

import asyncio
import os
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete, select

from server.keyring import Keyring
from server.store.database import Database
from server.store.tables import kept_results
from tools.json_values import read_json, write_json
from tools.results import KeptResult

_NONCE = 12
_BATCH = 100


class SqlResultStore:
    """`tools.results.ResultStore`. A row is bound to its workspace, caller and id: read by anybody else, it doesn't open."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._cipher = AESGCM(keyring.derive("results"))
        self._waiting: list[tuple[dict[str, Any], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        put = database.insert(kept_results)
        # A background call that runs again keeps its result under the same id.
        given = {name: put.excluded[name] for name in ("sealed", "expires_at")}
        self._put = put.on_conflict_do_update(index_elements=["id"], set_=given)

    async def keep(self, workspace: str, caller: str, result: KeptResult) -> None:
        nonce = os.urandom(_NONCE)
        clear = write_json({"tool": result.tool, "value": result.value, "text": result.text, "limit": result.limit})
        sealed = nonce + self._cipher.encrypt(nonce, clear.encode(), _bound_to(workspace, caller, result.id))
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(({"id": result.id, "sealed": sealed, "expires_at": result.expires_at}, kept))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.ensure_future(self._write())
        await kept

    async def _write(self) -> None:
        """What waits, together: a transaction holds the one writer for some turns of the loop, however much it writes, and under
        load a transaction for each result is what calls would wait for."""
        while self._waiting:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            failed: Exception | None = None
            try:
                async with self._database.write(watched=False) as connection:
                    await connection.execute(self._put, [row for row, _ in batch])
            except Exception as e:  # noqa: BLE001 - told to each who waits
                failed = e
            for _, kept in batch:
                if kept.done():
                    continue  # its call has been given up
                if failed is None:
                    kept.set_result(None)
                else:
                    kept.set_exception(failed)

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
        fields = read_json(clear)
        return KeptResult(id, fields["tool"], fields["value"], fields["text"], fields["limit"], row.expires_at)

    async def forget_expired(self, now: datetime) -> None:
        async with self._database.write(watched=False) as connection:
            await connection.execute(delete(kept_results).where(kept_results.c.expires_at <= now))


def _bound_to(workspace: str, caller: str, id: str) -> bytes:
    return "|".join((workspace.lower(), caller, id)).encode()
