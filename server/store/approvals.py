"""Approvals in the registry's database, so that any process and the shell can decide them; what is asked for is sealed."""

import os
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import ColumnElement, Row, and_, delete, func, not_, select, update

from server.keyring import Keyring
from server.store.database import Database
from server.store.tables import approvals as rows
from server.store.workspaces import key_of
from tools.approvals import MOST_WAITING, VALID_FOR, Approval, State
from tools.errors import TooManyCalls

_NONCE = 12
_MOST_SHOWN = 1000
_CLOCKS_APART = timedelta(minutes=1)
"""What the clocks of two replicas may differ by."""
_SEALED = (
    "caller_kind",
    "tool",
    "integration_id",
    "integration",
    "integration_version",
    "method",
    "url",
    "headers",
    "body",
)


class SqlApprovals:
    """`tools.approvals.Approvals`. A row opens only under its own id, workspace, caller and binding."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._cipher = AESGCM(keyring.derive("approvals"))

    async def ask(self, approval: Approval, now: datetime) -> Approval:
        same = rows.c.bound == approval.bound
        async with self._database.read() as connection:
            found = (await connection.execute(select(rows).where(same, _open(now)))).first()
        if found is not None and (opened := self._opened(found)) is not None:
            return opened
        nonce = os.urandom(_NONCE)
        clear = orjson.dumps({name: getattr(approval, name) for name in _SEALED})
        values = {
            "id": approval.id,
            "workspace": key_of(approval.workspace),
            "caller": approval.caller,
            "bound": approval.bound,
            "state": approval.state,
            "created_at": approval.created_at,
            "expires_at": approval.expires_at,
            "sealed": nonce + self._cipher.encrypt(nonce, clear, _bound_to(approval)),
        }
        async with self._database.write() as connection:
            # Also the one found above that didn't open: it was sealed with a key that is gone.
            gone = not_(_open(now)) if found is None else rows.c.id == found.id
            await connection.execute(delete(rows).where(same, gone))
            open_ones = select(func.count()).where(
                rows.c.workspace == values["workspace"], rows.c.caller == approval.caller, _open(now)
            )
            if (await connection.execute(open_ones)).scalar_one() >= MOST_WAITING:
                raise TooManyCalls(f"{MOST_WAITING} calls wait for a person to approve them already")
            added = self._database.insert(rows).values(values).on_conflict_do_nothing(index_elements=["bound"])
            await connection.execute(added)
            stored = (await connection.execute(select(rows).where(same))).first()
        if stored is None:  # it was there when ours was added, and has been used since
            return await self.ask(approval, now)
        return self._opened(stored) or approval

    async def take(self, approval: Approval, now: datetime) -> bool:
        this = (rows.c.id == approval.id, rows.c.state != "denied", _open(now))
        async with self._database.write() as connection:
            return (await connection.execute(delete(rows).where(*this))).rowcount == 1

    async def decide(self, workspace: str, id: str, state: State, now: datetime) -> bool:
        this = (
            rows.c.id == id,
            rows.c.workspace == key_of(workspace),
            rows.c.state == "waiting",
            _open(now),
        )
        async with self._database.write() as connection:
            return (await connection.execute(update(rows).where(*this).values(state=state))).rowcount == 1

    async def get(self, workspace: str, id: str, now: datetime) -> Approval | None:
        this = (rows.c.id == id, rows.c.workspace == key_of(workspace), _open(now))
        async with self._database.read() as connection:
            row = (await connection.execute(select(rows).where(*this))).first()
        return None if row is None else self._opened(row)

    async def open(self, workspace: str, now: datetime) -> list[Approval]:
        """At most the newest thousand."""
        query = (
            select(rows)
            .where(rows.c.workspace == key_of(workspace), _open(now))
            .order_by(rows.c.created_at.desc(), rows.c.id)
            .limit(_MOST_SHOWN)
        )
        async with self._database.read() as connection:
            found = (await connection.execute(query)).all()
        return [approval for row in found if (approval := self._opened(row)) is not None]

    async def forget_expired(self, now: datetime) -> None:
        async with self._database.write() as connection:
            await connection.execute(delete(rows).where(rows.c.expires_at <= now))

    def _opened(self, row: Row[*tuple[Any, ...]]) -> Approval | None:
        """None where it was sealed with a key that is gone, or changed in the database."""
        shell = Approval(
            row.id, row.workspace, row.bound, row.caller, "", "", "", "", 0, "", "", (), None, row.state, row.created_at, row.expires_at
        )  # fmt: skip
        try:
            clear = self._cipher.decrypt(row.sealed[:_NONCE], row.sealed[_NONCE:], _bound_to(shell))
        except InvalidTag:
            return None
        fields = orjson.loads(clear)
        return replace(shell, **{**fields, "headers": tuple(fields["headers"])})


def _open(now: datetime) -> ColumnElement[bool]:
    """What hasn't ended. One that would last for longer than any does was made by another clock, before this one was set back."""
    return and_(rows.c.expires_at > now, rows.c.expires_at <= now + VALID_FOR + _CLOCKS_APART)


def _bound_to(approval: Approval) -> bytes:
    return "|".join((key_of(approval.workspace), approval.caller, approval.id, approval.bound)).encode()
