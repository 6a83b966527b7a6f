"""What the gateway stands on, as `doctor` looks at it: disk, the database's clock, the secret store, DNS and the way out."""

import asyncio
import shutil
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import func, select

from server.app import App
from server.finding import Finding
from server.store.database import open_database
from tools.errors import SecretNotFound, SecretStoreUnavailable
from tools.models import Integration

_LITTLE = 200 * 2**20
"""Bytes: below it SQLite soon can't write any more."""
_CLOCK_S = 5.0
"""Replicas' leases allow for a few seconds (docs/background-calls.md)."""
_RESOLVE_S = 5.0
_SHARES = ("nfs", "cifs", "smb", "9p", "afs", "fuse.sshfs", "glusterfs", "ceph")


def disk(registry_url: str, home: Path, *, mounts: Path = Path("/proc/self/mounts")) -> Iterator[Finding]:
    """The file of an SQLite registry, and the room where it and the key file are."""
    place = home
    if registry_url.startswith("sqlite"):
        path = Path(registry_url.partition("///")[2]).absolute()
        place = path.parent
        if path.exists() and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
            yield Finding("registry file", "wrong", f"others may read {path} (mode {mode:o})", f"chmod 600 {path}")
        if (share := _share(place, mounts)) is not None:
            said = f"{place} is on a network share ({share}), where SQLite's locks don't hold"
            yield Finding("registry file", "wrong", said, "move it to a local disk, or use PostgreSQL")
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    said = f"{free / 2**20:,.0f} MB free at {place}"
    if free < _LITTLE:
        yield Finding("disk", "wrong", said, "make room: a full disk refuses every write")
    else:
        yield Finding("disk", "ok", said)


def _share(place: Path, mounts: Path) -> str | None:
    """The kind of the network file system that `place` is on; None on a local disk, or where it can't be told."""
    try:
        lines = [line.split() for line in mounts.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        return None
    where = place.resolve()
    over = [(len(Path(f[1]).parts), f[2]) for f in lines if len(f) > 2 and where.is_relative_to(f[1])]
    kind = max(over, default=(0, ""))[1]
    return kind if kind.startswith(_SHARES) else None


async def database_clock(registry_url: str) -> AsyncIterator[Finding]:
    """PostgreSQL's clock beside ours; SQLite has none of its own. Raises StorageUnavailable."""
    if registry_url.startswith("sqlite"):
        return
    async with open_database(registry_url) as database, database.read() as connection:
        theirs = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    yield clock_beside("the database's", theirs, datetime.now(UTC))


def clock_beside(whose: str, theirs: datetime, ours: datetime) -> Finding:
    apart = abs((ours - theirs).total_seconds())
    if apart > _CLOCK_S:
        said = f"it is {apart:,.0f} s apart from {whose} ({theirs:%Y-%m-%d %H:%M:%S} UTC)"
        return Finding("clock beside others", "wrong", said, "let NTP set both: leases and tokens go by it")
    return Finding("clock beside others", "ok", f"within {_CLOCK_S:.0f} s of {whose}")


async def secret_store(app: App, integrations: tuple[Integration, ...]) -> Finding:
    """Whether every secret that an integration uses can be read now; no value is looked at."""
    total, missing = 0, list[str]()
    for integration in integrations:
        for path, binding in integration.bindings.items():
            total += 1
            try:
                await app.secrets.read(path, binding.version)
            except SecretNotFound:
                missing.append(f"{integration.name}: nothing at {path}")
            except SecretStoreUnavailable as e:
                missing.append(f"{integration.name}: {e.message}")
    if missing:
        more = f" (and {len(missing) - 3} more)" if len(missing) > 3 else ""
        said = f"{len(missing)} of {total} secrets can't be read: " + "; ".join(missing[:3]) + more
        return Finding(
            "secret store", "wrong", said, "bring back its key or access, or: integrations-mcp secrets set PATH"
        )
    return Finding("secret store", "ok", f"{app.settings.secret_store}; {total} secrets can be read")


async def names(integrations: tuple[Integration, ...]) -> AsyncIterator[Finding]:
    """DNS, for the hosts that enabled integrations call."""
    urls = (i.mcp_url or i.base_url or "" for i in integrations if i.enabled)
    hosts = sorted({host for url in urls if (host := urlsplit(url).hostname)})
    if not hosts:
        return
    faults = [f for f in await asyncio.gather(*(_unresolved(host) for host in hosts[:100])) if f is not None]
    if faults:
        do = "look at the names and at this machine's resolver (/etc/resolv.conf)"
        yield Finding("DNS", "wrong", f"{len(faults)} of {len(hosts)} hosts: " + "; ".join(faults[:3]), do)
    else:
        yield Finding("DNS", "ok", f"{len(hosts)} hosts have addresses")


async def _unresolved(host: str) -> str | None:
    try:
        async with asyncio.timeout(_RESOLVE_S):
            await asyncio.get_running_loop().getaddrinfo(host, None)
    except TimeoutError:
        return f"{host} isn't answered within {_RESOLVE_S:.0f} s"
    except (OSError, UnicodeError):
        return f"{host} has no address"
    return None


def way_out(variables: Mapping[str, str]) -> Iterator[Finding]:
    """Proxies of the environment, which calls don't use."""
    ignored = sorted({name for name in variables if name.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")})
    if ignored:
        said = f"{', '.join(ignored)}: calls to integrations don't go through the environment's proxy"
        yield Finding(
            "egress",
            "note",
            said,
            "let this machine reach the systems directly, or set INTEGRATIONS_MCP_OUTBOUND_PROXY",
        )
