"""Background calls in the registry's database: accepted once, claimed by lease, taken over when a lease ends.

Arguments and results are sealed, because they are patients' data. What tells other processes is the counter `calls`.
"""

import json
import os
from collections.abc import AsyncIterator, Mapping, Set
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Row, delete, func, or_, select, update

from server.keyring import Keyring
from server.store.database import Database
from server.store.tables import background_calls as rows
from server.store.workspaces import key_of
from tools.background import KEPT_FOR, OPEN, BackgroundCall, State
from tools.callers import Caller
from tools.json_values import write_json

_NONCE = 12
_Row = Row[*tuple[Any, ...]]


class SqlCallQueue:
    """`tools.background.CallQueue`, and what workers and operators do with the rows. Everything raises StorageUnavailable."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._key_id = keyring.key_id
        self._cipher = cipher_of(keyring)

    # ------------------------------------------------------------------ callers

    async def accept(self, call: BackgroundCall, most: int) -> BackgroundCall | None:
        mine = rows.c.workspace == key_of(call.caller.workspace)
        equal = rows.c.same == call.same
        if call.given is not None:
            equal = or_(equal, rows.c.given == call.given)
        while True:
            async with self._database.write() as connection:
                await connection.execute(delete(rows).where(equal, rows.c.expires_at <= call.accepted_at))
                known = (await connection.execute(select(rows).where(equal).order_by(rows.c.given))).all()
                if known:
                    # The caller's own key says more than equal arguments: its row first.
                    return self._opened(next((r for r in known if r.given == call.given), known[0]))
                waiting = select(func.count()).select_from(rows).where(mine, rows.c.state.in_(OPEN))
                if (await connection.execute(waiting)).scalar_one() >= most:
                    return None
                made = self._database.insert(rows).values(self._values(call)).on_conflict_do_nothing()
                if (await connection.execute(made.returning(rows.c.id))).scalar() is not None:
                    await self._database.raise_counter(connection, "calls")
                    return call
            # Somebody else accepted the same call meanwhile: look again.

    async def get(self, workspace: str, caller: str, id: str, now: datetime) -> BackgroundCall | None:
        row = await self._row(workspace, id)
        return None if row is None or row.caller != caller or row.expires_at <= now else self._opened(row)

    # ------------------------------------------------------------------ workers

    def changes(self) -> AsyncIterator[int]:
        """Again and again when a call was accepted, ended or cancelled, by whichever process."""
        return self._database.moves("calls")

    async def claim(
        self,
        owner: str,
        now: datetime,
        lease_until: datetime,
        most: int,
        *,
        past: datetime | None,
        beyond: datetime | None = None,
        but: Set[str] = frozenset(),
    ) -> list[BackgroundCall]:
        """At most `most` calls that wait, or whose lease ended by `past` or reaches beyond `beyond`; never one of `but`.

        They are `owner`'s until `lease_until`.
        """
        over = [] if past is None else [rows.c.lease_until <= past]
        over += [] if beyond is None else [rows.c.lease_until > beyond]
        free = rows.c.state == "accepted"
        if over:
            free |= (rows.c.state == "running") & or_(*over) & rows.c.id.not_in(sorted(but))
        # What was sealed with another key waits for a process that has it.
        due = select(rows.c.id).where(free, rows.c.expires_at > now, rows.c.key_id == self._key_id)
        due = due.order_by(rows.c.accepted_at, rows.c.id).limit(most)
        async with self._database.read() as connection:
            if (await connection.execute(due.limit(1))).first() is None:
                return []
        async with self._database.write() as connection:
            ids = (await connection.execute(due.with_for_update(skip_locked=True))).scalars().all()
            taken = (
                update(rows)
                .where(rows.c.id.in_(ids))
                .values(
                    state="running",
                    owner=owner,
                    lease_until=lease_until,
                    attempts=rows.c.attempts + 1,
                    started_at=func.coalesce(rows.c.started_at, now),
                )
            )
            claimed = (await connection.execute(taken.returning(*rows.c))).all()
        return [self._opened(row) for row in sorted(claimed, key=lambda r: (r.accepted_at, r.id))]

    async def held(self, owner: str) -> set[str]:
        """What `owner` still runs: not what was cancelled or taken over."""
        query = select(rows.c.id).where(rows.c.owner == owner, rows.c.state == "running")
        async with self._database.read() as connection:
            return set((await connection.execute(query)).scalars())

    async def still_open(self, ids: Set[str]) -> set[str]:
        """Those of `ids` that haven't ended, whoever runs them."""
        query = select(rows.c.id).where(rows.c.id.in_(sorted(ids)), rows.c.state.in_(OPEN))
        async with self._database.read() as connection:
            return set((await connection.execute(query)).scalars())

    async def beat(self, owner: str, lease_until: datetime, progress: Mapping[str, float]) -> None:
        """Keeps what `owner` runs for longer, and notes how far it is."""
        running = update(rows).where(rows.c.owner == owner, rows.c.state == "running")
        async with self._database.write() as connection:
            await connection.execute(running.values(lease_until=lease_until))
            for id, part in sorted(progress.items()):
                await connection.execute(running.where(rows.c.id == id).values(progress=part))

    async def release(self, owner: str, now: datetime) -> None:
        """Another process may take over at once."""
        running = update(rows).where(rows.c.owner == owner, rows.c.state == "running")
        async with self._database.write() as connection:
            await connection.execute(running.values(lease_until=now))
            await self._database.raise_counter(connection, "calls")

    async def end(
        self, call: BackgroundCall, owner: str, state: State, result: Mapping[str, Any], code: str | None, now: datetime
    ) -> bool:
        """False: it wasn't `owner`'s any more (cancelled, or taken over), and nothing was written."""
        bound = _bound_to(call.caller.workspace, call.caller.id, call.id, "result")
        this = update(rows).where(rows.c.id == call.id, rows.c.owner == owner, rows.c.state == "running")
        ended = this.values(
            **_ending(state, now), error_code=code, result=sealed(self._cipher, write_json(result), bound)
        )
        async with self._database.write() as connection:
            if not (await connection.execute(ended)).rowcount:
                return False
            await self._database.raise_counter(connection, "calls")
        return True

    async def forget_expired(self, now: datetime) -> None:
        async with self._database.write() as connection:
            await connection.execute(delete(rows).where(rows.c.expires_at <= now, rows.c.state != "running"))

    # ------------------------------------------------------------------ operators

    async def find(self, workspace: str, id: str) -> BackgroundCall | None:
        """Any caller's, without arguments and result."""
        row = await self._row(workspace, id)
        return None if row is None else _call(row)

    async def newest(self, workspace: str, states: tuple[State, ...], limit: int) -> list[BackgroundCall]:
        """Any caller's, without arguments and results; no states are all."""
        query = select(rows).where(rows.c.workspace == key_of(workspace))
        if states:
            query = query.where(rows.c.state.in_(states))
        async with self._database.read() as connection:
            found = await connection.execute(query.order_by(rows.c.accepted_at.desc(), rows.c.id.desc()).limit(limit))
            return [_call(row) for row in found]

    async def open_calls(self) -> dict[str, tuple[int, datetime]]:
        """Of all workspaces: state to (how many, when the first of them was accepted)."""
        query = select(rows.c.state, func.count(), func.min(rows.c.accepted_at)).where(rows.c.state.in_(OPEN))
        async with self._database.read() as connection:
            found = await connection.execute(query.group_by(rows.c.state))
            return {state: (count, since) for state, count, since in found}

    async def cancel(self, workspace: str, id: str, now: datetime) -> bool:
        """Ends a call that waits or runs; whoever runs it hears of it. False: no such call, or it has ended."""
        this = update(rows).where(rows.c.workspace == key_of(workspace), rows.c.id == id, rows.c.state.in_(OPEN))
        async with self._database.write() as connection:
            if not (await connection.execute(this.values(**ended_without_answer(now)))).rowcount:
                return False
            await self._database.raise_counter(connection, "calls")
        return True

    # ------------------------------------------------------------------ rows

    async def _row(self, workspace: str, id: str) -> _Row | None:
        query = select(rows).where(rows.c.id == id, rows.c.workspace == key_of(workspace))
        async with self._database.read() as connection:
            return (await connection.execute(query)).first()

    def _values(self, call: BackgroundCall) -> dict[str, Any]:
        caller = call.caller
        clear = {
            "arguments": call.arguments,
            "key": call.idempotency_key,
            "hops": call.hops,
            "kind": caller.kind,
            "role": caller.role,
            "permissions": sorted(caller.permissions),
            "integrations": None if caller.integrations is None else sorted(caller.integrations),
            "tools": None if caller.tools is None else sorted(caller.tools),
            "ends": None if caller.ends is None else caller.ends.timestamp(),
        }
        return {
            "id": call.id,
            "workspace": key_of(caller.workspace),
            "workspace_id": caller.workspace,
            "caller": caller.id,
            "tool": call.tool,
            "integration": call.integration,
            "version": call.version,
            "same": call.same,
            "given": call.given,
            "request_id": call.request_id or None,
            "wanted": call.wanted,
            "state": call.state,
            "attempts": call.attempts,
            "accepted_at": call.accepted_at,
            "expires_at": call.expires_at,
            "key_id": self._key_id,
            "sealed": sealed(
                self._cipher, write_json(clear), _bound_to(caller.workspace, caller.id, call.id, "arguments")
            ),
        }

    def _opened(self, row: _Row) -> BackgroundCall:
        clear = json.loads(opened(self._cipher, row.sealed, bound_to(row, "arguments")) or "null")
        result = None if row.result is None else opened(self._cipher, row.result, bound_to(row, "result"))
        return _call(row, clear, None if result is None else json.loads(result))


def _call(row: _Row, clear: dict[str, Any] | None = None, result: dict[str, Any] | None = None) -> BackgroundCall:
    """`clear` is what was sealed; None where that isn't asked for, or was sealed with a key that is gone."""
    caller = Caller(row.caller, row.workspace_id)
    if clear is not None:
        caller = Caller(
            row.caller,
            row.workspace_id,
            clear["kind"],
            clear["role"],
            frozenset(clear["permissions"]),
            None if clear["integrations"] is None else frozenset(clear["integrations"]),
            None if clear["tools"] is None else frozenset(clear["tools"]),
            None if clear.get("ends") is None else datetime.fromtimestamp(clear["ends"], UTC),
        )
    return BackgroundCall(
        id=row.id,
        caller=caller,
        tool=row.tool,
        integration=row.integration,
        version=row.version,
        same=row.same or "",
        wanted=row.wanted,
        accepted_at=row.accepted_at,
        expires_at=row.expires_at,
        arguments=clear["arguments"] if clear else {},
        idempotency_key=clear["key"] if clear else "",
        hops=clear["hops"] if clear else 0,
        given=row.given,
        request_id=row.request_id or "",
        state=row.state,
        attempts=row.attempts,
        progress=row.progress,
        started_at=row.started_at,
        ended_at=row.ended_at,
        error_code=row.error_code,
        result=result,
    )


def _ending(state: State, now: datetime) -> dict[str, Any]:
    return {
        "state": state,
        "same": None,
        "owner": None,
        "lease_until": None,
        "ended_at": now,
        "expires_at": now + KEPT_FOR,
    }


def ended_without_answer(now: datetime) -> dict[str, Any]:
    """The values of a call that was cancelled. Whether it was sent, `attempts` says."""
    return {**_ending("cancelled", now), "error_code": "cancelled"}


def cipher_of(ring: Keyring) -> AESGCM:
    return AESGCM(ring.derive("calls"))


def sealed(cipher: AESGCM, text: str, bound: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + cipher.encrypt(nonce, text.encode(), bound)


def opened(cipher: AESGCM, row: bytes, bound: bytes) -> str | None:
    """None where it was sealed with another key, or for another row."""
    try:
        return cipher.decrypt(row[:_NONCE], row[_NONCE:], bound).decode()
    except InvalidTag:
        return None


def bound_to(row: _Row, part: str) -> bytes:
    """What a row's `sealed` ("arguments") or `result` ("result") is bound to: moved elsewhere, it doesn't open."""
    return _bound_to(row.workspace, row.caller, row.id, part)


def _bound_to(workspace: str, caller: str, id: str, part: str) -> bytes:
    return "|".join((workspace.lower(), caller, id, part)).encode()
