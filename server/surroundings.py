"""What the gateway stands on, as `doctor` looks at it: disk, SQLite's files, descriptors, identity providers, the secret store, DNS."""

import asyncio
import shutil
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from server.access_tokens import Issuer
from server.app import App
from server.finding import Finding
from server.issuer_keys import KeysUnavailable
from tools.errors import GatewayError, SecretNotFound, SecretStoreUnavailable
from tools.models import Integration
from tools.secrets import SecretStore

_LITTLE = 200 * 2**20
"""Bytes: below it SQLite soon can't write any more."""
_LARGE_WAL = 64 * 2**20
"""Bytes: SQLite writes it back at 4 MB (1,000 pages), so one that is larger was held up."""
_DESCRIPTORS = 200
"""What a process opens beside its clients' connections: the registry, kept connections to systems, programs over stdio."""
_RESOLVE_S = 5.0
_SECRETS_S = 20.0
_SHARES = ("nfs", "cifs", "smb", "9p", "afs", "fuse.sshfs", "glusterfs", "ceph")


def registry_files(registry_url: str, *, mounts: Path = Path("/proc/self/mounts")) -> Iterator[Finding]:
    """The file of an SQLite registry and its write-ahead log; nothing of PostgreSQL."""
    path = _file(registry_url)
    if path is None:
        return
    if path.exists() and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        yield Finding("registry_file", "wrong", f"others may read {path} (mode {mode:o})", f"chmod 600 {path}")
    if (share := _share(path.parent, mounts)) is not None:
        said = f"{path.parent} is on a network share ({share}), where SQLite's locks don't hold"
        yield Finding("registry_file", "wrong", said, "move it to a local disk, or use PostgreSQL")
    if path.is_file():
        yield _wal(path)


def _wal(path: Path) -> Finding:
    """Writes the log back as far as nobody reads what is older (PASSIVE: it waits for nobody and nobody waits for it)."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=5)) as connection:
            wal = path.with_name(f"{path.name}-wal")
            size = wal.stat().st_size if wal.exists() else 0
            _, pages, done = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            page = connection.execute("PRAGMA page_size").fetchone()[0]
    except (sqlite3.Error, OSError) as e:
        do = f"is it a registry, and may this user write {path} and its folder?"
        return Finding("registry_wal", "wrong", f"it can't be written back ({e})", do)
    left = max(0, pages - done) * page
    said = f"{size / 2**20:,.1f} MB in {path}-wal"
    if size >= _LARGE_WAL and left:
        said += f", of which {left / 2**20:,.1f} MB can't be written back: a process reads an old state"
        do = f"end what keeps {path} open without being a server (lsof {path}): until then the log grows"
        return Finding("registry_wal", "wrong", said, do)
    if size >= _LARGE_WAL:
        do = "restart the servers at a quiet time: the file goes when the last of them ends"
        return Finding("registry_wal", "note", f"{said}, all of it written back; the file itself stays large", do)
    return Finding("registry_wal", "ok", said)


def disk(registry_url: str, home: Path) -> Iterator[Finding]:
    """The room where the registry and the home folder are; told once where that is one disk."""
    seen = set[int]()
    path = _file(registry_url)
    for place in (home,) if path is None else (path.parent, home):
        while not place.exists():
            place = place.parent
        if (device := place.stat().st_dev) in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(place).free
        said = f"{free / 2**20:,.0f} MB free"
        if free < _LITTLE:
            yield Finding("disk", "wrong", said, "make room: a full disk refuses every write", str(place))
        else:
            yield Finding("disk", "ok", said, about=str(place))


def _file(registry_url: str) -> Path | None:
    return Path(registry_url.partition("///")[2]).absolute() if registry_url.startswith("sqlite") else None


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


def file_descriptors(max_connections: int) -> Iterator[Finding]:
    """This shell's limit: a server that something else starts can have another, so it is never more than a note."""
    if sys.platform == "win32":
        return
    import resource

    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max_connections + _DESCRIPTORS
    said = f"{limit:,} may be open here, INTEGRATIONS_MCP_MAX_CONNECTIONS is {max_connections:,}"
    if limit != resource.RLIM_INFINITY and limit < needed:
        do = f"for a server: ulimit -n {needed} (LimitNOFILE= in systemd, --ulimit nofile= for a container), or set it lower"
        if most != resource.RLIM_INFINITY and most < needed:
            do += f"; the hard limit is {most:,}: only root raises it"
        yield Finding("file_descriptors", "note", said, do)
    else:
        yield Finding("file_descriptors", "ok", said)


async def identity_providers(issuers: Iterable[Issuer]) -> list[Finding]:
    """Whether each one's metadata and keys can be had, and one of the keys can verify what is accepted."""
    return list(await asyncio.gather(*(_provider(issuer) for issuer in issuers)))


async def _provider(issuer: Issuer) -> Finding:
    name, algorithms = issuer.provider.issuer, issuer.provider.algorithms
    do = "this machine must reach it, `issuer` be written exactly as it does itself, and its JWKS hold its keys: docs/oauth.md"
    try:
        keys = await issuer.keys.published()
    except KeysUnavailable as e:
        return Finding("identity_provider", "wrong", str(e), do, name)
    usable = [a for a in algorithms if any(key.fits(a) for key in keys)]
    if not usable:
        offered = ", ".join(sorted({key.alg or type(key.key).__name__.strip("_") for key in keys}))
        said = f"none of its {len(keys)} keys ({offered}) is for {', '.join(algorithms)}: every token is refused"
        do = "name its algorithm in `algorithms` of its entry in INTEGRATIONS_MCP_IDENTITY_PROVIDERS"
        return Finding("identity_provider", "wrong", said, do, name)
    return Finding("identity_provider", "ok", f"{len(keys)} keys, for {', '.join(usable)}", about=name)


async def secret_store(app: App) -> AsyncIterator[Finding]:
    """Whether a secret can be stored, read and removed: done with one of our own, where no workspace's can be."""
    store, kind = app.secrets, app.settings.secret_store
    if kind == "environment":
        yield Finding("secret_store", "ok", "environment: read once, nothing can be stored")
        return
    path = f"/{app.settings.secret_prefix}/-/doctor"  # no workspace's id begins with "-"
    doing = "read"
    try:
        await store.versions(path)
        doing = "stored"
        version = await store.write(path, "a test of doctor's")
        doing = "read"
        await store.read(path, version)
        doing = f"removed ({path} stays)"
        await store.remove(path, list(await store.versions(path)))
    except SecretNotFound:
        pass  # another doctor has removed it just now
    except GatewayError as e:
        do = "correct what it says, then run doctor again: docs/secret-stores.md tells what each store needs"
        yield Finding("secret_store", "wrong", f"{kind}: a secret can't be {doing}: {e.message}", do)
        return
    yield Finding("secret_store", "ok", f"{kind}: a secret was stored, read and removed")


async def secrets(app: App, integrations: tuple[Integration, ...]) -> Finding:
    """Whether every secret that an integration uses can be read now; no value is looked at."""
    uses = [(i.name, path, binding.version) for i in integrations for path, binding in i.bindings.items()]
    try:
        async with asyncio.timeout(_SECRETS_S):
            faults = await asyncio.gather(*(_unread(app.secrets, *use) for use in uses))
    except TimeoutError:
        said = f"{len(uses)} weren't read within {_SECRETS_S:.0f} s"
        return Finding("secrets", "wrong", said, "is the secret store up, and can this machine reach it?")
    if missing := [f for f in faults if f is not None]:
        more = f" (and {len(missing) - 3} more)" if len(missing) > 3 else ""
        said = f"{len(missing)} of {len(uses)} can't be read: " + "; ".join(missing[:3]) + more
        return Finding("secrets", "wrong", said, "bring back its key or access, or: integrations-mcp secrets set PATH")
    return Finding("secrets", "ok", f"{len(uses)} can be read")


async def _unread(store: SecretStore, name: str, path: str, version: str | None) -> str | None:
    try:
        await store.read(path, version)
    except SecretNotFound:
        return f"{name}: nothing at {path}"
    except SecretStoreUnavailable as e:
        return f"{name}: {e.message}"
    return None


async def names(origins: Iterable[str]) -> AsyncIterator[Finding]:
    """DNS, for the hosts that enabled integrations call."""
    hosts = sorted({host for url in origins if (host := urlsplit(url).hostname)})
    if not hosts:
        return
    faults = [f for f in await asyncio.gather(*(_unresolved(host) for host in hosts[:100])) if f is not None]
    if faults:
        do = "look at the names and at this machine's resolver (/etc/resolv.conf)"
        yield Finding("dns", "wrong", f"{len(faults)} of {len(hosts)} hosts: " + "; ".join(faults[:3]), do)
    else:
        yield Finding("dns", "ok", f"{len(hosts)} hosts have addresses")


async def _unresolved(host: str) -> str | None:
    try:
        async with asyncio.timeout(_RESOLVE_S):
            await asyncio.get_running_loop().getaddrinfo(host, None)
    except TimeoutError:
        return f"{host} isn't answered within {_RESOLVE_S:.0f} s"
    except (OSError, UnicodeError):
        return f"{host} has no address"
    return None
