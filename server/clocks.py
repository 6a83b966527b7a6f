"""Clocks beside ours, as `doctor` holds them: the database's, and those of the hosts that tokens and signatures go to."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

from sqlalchemy import func, select

from server.finding import Finding
from server.store.database import open_database
from tools.errors import CallError
from tools.upstream import Limits, Request, Upstream, http_date

_APART_S = 5.0
"""Replicas' leases allow for a few seconds (docs/background-calls.md)."""
_SIDE_BY_SIDE = 20
_MOST = 100
_LIMITS = Limits(deadline_s=5.0, max_bytes=64 * 1024)


async def database_clock(registry_url: str) -> AsyncIterator[Finding]:
    """PostgreSQL's clock beside ours; SQLite has none of its own. Raises StorageUnavailable."""
    if registry_url.startswith("sqlite"):
        return
    async with open_database(registry_url) as database, database.read() as connection:
        theirs: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    yield beside_database(theirs, datetime.now(UTC))


def beside_database(theirs: datetime, ours: datetime) -> Finding:
    apart = abs((ours - theirs).total_seconds())
    if apart > _APART_S:
        said = f"this machine's clock is {apart:,.0f} s apart from the database's ({theirs:%Y-%m-%d %H:%M:%S} UTC)"
        return Finding("database_clock", "wrong", said, "let NTP set both: leases and tokens go by it")
    return Finding("database_clock", "ok", f"within {_APART_S:.0f} s of ours")


async def hosts_apart(upstream: Upstream, pool: str, origins: Iterable[str]) -> dict[str, float]:
    """By host, how many seconds its clock is ahead of ours. Asked without credentials; who doesn't answer isn't in it."""
    gate = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def one(origin: str) -> tuple[str, float] | None:
        async with gate:
            return await _ahead(upstream, pool, origin)

    found = await asyncio.gather(*(one(origin) for origin in sorted(set(origins))[:_MOST]))
    return dict(row for row in found if row is not None)


async def _ahead(upstream: Upstream, pool: str, origin: str) -> tuple[str, float] | None:
    asked_at = time.time()
    try:
        answer = await upstream.send(Request("HEAD", f"{origin}/"), pool=pool, limits=_LIMITS)
    except CallError:
        return None
    theirs = http_date(answer.headers.get("Date", ""))
    if theirs is None:
        return None
    age = answer.headers.get("Age", "")
    if age.isascii() and age.isdigit():  # a cache answers with the Date of what it keeps (RFC 9111 5.1)
        theirs += int(age[:9])
    # Somewhere between asking and now it looked at its clock: what lies between isn't apart.
    ours = min(max(theirs, asked_at), time.time())
    return urlsplit(answer.url).hostname or origin, theirs - ours


def beside_hosts(ahead: Mapping[str, float]) -> Finding | None:
    """None where no host told its time. Where most differ, it is ours that is wrong."""
    if not ahead:
        return None
    off = [f"{host} by {s:+,.0f} s" for host, s in sorted(ahead.items()) if abs(s) > _APART_S]
    if not off:
        return Finding("hosts_clocks", "ok", f"{len(ahead)} hosts' clocks are within {_APART_S:.0f} s of ours")
    more = f" (and {len(off) - 3} more)" if len(off) > 3 else ""
    said = f"{len(off)} of {len(ahead)} hosts' clocks differ from this machine's: " + ", ".join(off[:3]) + more
    if 2 * len(off) > len(ahead):
        do = "set this machine's clock (NTP), or else theirs: tokens and signed requests are refused when clocks differ"
        return Finding("hosts_clocks", "wrong", said, do)
    do = "the others agree with ours: tell who runs them, since they may refuse tokens and signed requests"
    return Finding("hosts_clocks", "note", said, do)
