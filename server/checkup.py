"""What is wrong on this machine when a host doesn't see the tools: one finding a thing looked at, each with what to do."""

import os
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import anyio
import httpx2

from server import clocks, egress_checkup, surroundings
from server.app import App, issuers_of, open_app
from server.config_file import ConfigError
from server.egress import EgressError, host_list, way_out
from server.finding import SOON, Check, Finding
from server.host_files import HOST_FILES
from server.host_merge import HostFileError, entry_in
from server.keyring import KEY_FILE
from server.settings import Settings
from tools.bindings import origins_of
from tools.callers import local_caller
from tools.checks import unreached
from tools.errors import GatewayError, SecretStoreUnavailable
from tools.hosts import hosts_over
from tools.kinds.paths import origin_of
from tools.lint import lint
from tools.linted import linted
from tools.models import Integration

_START_S = 15.0
_BUILT = datetime(2026, 1, 1, tzinfo=UTC)
"""No clock is right before this code was written."""
_OLD_DAYS = 365
"""A signing key that is older is told: nothing ends it by itself."""


async def check_up(settings: Settings, user_home: Path, folder: Path) -> AsyncIterator[Finding]:
    """Everything, in the order in which things depend on each other. `user_home` and `folder` are where hosts' files are."""
    yield Finding("settings", "ok", f"workspace {settings.workspace}, home {settings.home}")
    for finding in (
        *_files(settings),
        *surroundings.registry_files(settings.registry_url),
        *surroundings.disk(settings.registry_url, settings.home),
        *surroundings.file_descriptors(settings.max_connections),
        *egress_checkup.environment_proxy(os.environ),
        *egress_checkup.certificates(settings),
    ):
        yield finding
    async for finding in egress_checkup.outbound_proxy(settings):
        yield finding
    try:
        async with open_app(settings) as app:
            found = [Finding("registry", "ok", "reachable, its schema is this version's")]
            found += [finding async for finding in clocks.database_clock(settings.registry_url)]
            found += [finding async for finding in _workspace(app)]
    except ConfigError as e:
        found = [Finding("config_file", "wrong", str(e), "correct it; integrations-mcp check FILE tells the same")]
    except EgressError:
        found = [Finding("registry", "note", "not looked at", "correct the CA file and client certificates first")]
    except SecretStoreUnavailable as e:
        found = [
            Finding("secret_store", "wrong", e.message, "see the settings secret_store and home; docs/secret-stores.md")
        ]
    except GatewayError as e:
        found = [Finding("registry", "wrong", e.message, "see the settings database_url and home")]
    for finding in found:
        yield finding
    async for finding in _hosts(user_home, folder):
        yield finding


def _files(settings: Settings) -> Iterator[Finding]:
    home, key = settings.home, settings.home / KEY_FILE
    places: list[tuple[Check, Path, int]] = [("home_folder", home, 0o700), ("key_file", key, 0o600)]
    for id, path, limit in places:
        if not path.exists():
            yield Finding(id, "note", f"{path} isn't there yet: it is made when it is needed")
        elif (mode := stat.S_IMODE(path.stat().st_mode)) & ~limit:
            yield Finding(id, "wrong", f"others may read {path} (mode {mode:o})", f"chmod {limit:o} {path}")
        else:
            yield Finding(id, "ok", str(path))


async def _workspace(app: App) -> AsyncIterator[Finding]:
    workspace = app.settings.workspace
    _, integrations = await app.registry.load(workspace)
    now = datetime.now(UTC)
    origins = {o for i in integrations if i.enabled for o in origins_of(i) if o.startswith(("https://", "http://"))}
    async for finding in _clock_and_issuers(app, integrations, origins, now):
        yield finding
    async for finding in _keys(app, now):
        yield finding
    for finding in _signing_keys(integrations, now):
        yield finding
    if not integrations:
        do = "integrations-mcp apply -f FILE; or integrations-mcp demo to see it work"
        yield Finding("integrations", "note", f"workspace {workspace} has none: agents see only management", do)
    for i in integrations:
        for issue in unreached(i, host_list(app.settings)):
            where = ".".join(map(str, issue.loc[1:]))
            do = f"integrations-mcp integrations update {i.name}"
            yield Finding("upstream_hosts", "wrong", f"{i.name}, {where}: {issue.msg}", do)
    async for finding in surroundings.secret_store(app):
        yield finding
    yield await surroundings.secrets(app, integrations)
    async for finding in surroundings.names(origins):
        yield finding
    async for finding in _tools(app):
        yield finding


async def _clock_and_issuers(
    app: App, integrations: tuple[Integration, ...], origins: set[str], now: datetime
) -> AsyncIterator[Finding]:
    newest = max((i.updated_at for i in integrations), default=_BUILT)
    if now < _BUILT or newest > now + timedelta(minutes=2):
        said = f"it says {now:%Y-%m-%d %H:%M} UTC; the newest change in the registry is of {newest:%Y-%m-%d %H:%M}"
        yield Finding("clock", "wrong", said, "set it: tokens and keys are refused when it is wrong")
    else:
        yield Finding("clock", "ok", f"{now:%Y-%m-%d %H:%M} UTC")
    ahead = await clocks.hosts_apart(app.upstream, app.settings.workspace, origins)
    issuers, upstream = issuers_of(app.settings, way_out(app.settings))
    try:
        for finding in await surroundings.identity_providers(issuers):
            yield finding
        ahead |= await clocks.hosts_apart(upstream, "", (origin_of(i.provider.issuer) for i in issuers))
    finally:
        await upstream.aclose()
    if (finding := clocks.beside_hosts(ahead)) is not None:
        yield finding


async def _keys(app: App, now: datetime) -> AsyncIterator[Finding]:
    keys, _ = await app.key_store.keys(app.settings.workspace, 10_000, 0)
    live = [k for k in keys if k.expires_at is None or k.expires_at > now]
    ending = sorted((k.expires_at, k.name or k.id, k.id) for k in live if k.expires_at and k.expires_at < now + SOON)
    said = f"{len(live)} of {len(keys)} keys are valid"
    if not live:
        do = "integrations-mcp keys create"
        yield Finding("keys", "note", "no valid key: only stdio and access tokens work", do)
    elif ending:
        soon = ", ".join(f"{name} on {at:%Y-%m-%d}" for at, name, _ in ending[:3])
        more = f" (and {len(ending) - 3} more)" if len(ending) > 3 else ""
        said += f"; {len(ending)} end within {SOON.days} days: {soon}{more}"
        do = f"integrations-mcp keys rotate {ending[0][2]}, and give out the new one: the old one ends at once"
        yield Finding("keys", "note", said, do)
    else:
        yield Finding("keys", "ok", said)


def _signing_keys(integrations: tuple[Integration, ...], now: datetime) -> Iterator[Finding]:
    for i in integrations:
        for key in (k for k in i.published_keys if k.state == "active"):
            days = (now - key.since).days
            said = f"{key.kid} signs since {key.since:%Y-%m-%d}"
            if days > _OLD_DAYS:
                do = f"integrations-mcp auth rotate-key {i.name}"
                yield Finding("signing_key", "note", f"{said}, {days} days", do, i.name)
            else:
                yield Finding("signing_key", "ok", said, about=i.name)


async def _tools(app: App) -> AsyncIterator[Finding]:
    caller = local_caller(app.settings.workspace)
    tools = (await app.catalogs.get(caller.workspace)).view(caller).tools
    over = hosts_over(len(tools))
    said = f"{len(tools)} tools" + "".join(f"; {h.name} takes {h.tools}" for h in over)
    do = "narrow a key to some integrations, or set tool_mode" if over else ""
    yield Finding("tools", "note" if over else "ok", said, do)
    errors = sum(row.severity == "error" for row in lint([linted(t, app.settings.result_budget) for t in tools]))
    if errors:
        yield Finding("tools", "wrong", f"{errors} things that some host refuses", "integrations-mcp tools lint")
    report = await app.admin.health(caller)
    for row in report["integrations"]:
        good = row["status"] == "healthy"
        said = f"{row['status']}: {row['message']}"
        do = "" if good else f"integrations-mcp integrations test {row['name']}"
        yield Finding("integration", "ok" if good else "wrong", said, do, row["name"])


async def _hosts(user_home: Path, folder: Path) -> AsyncIterator[Finding]:
    """Hosts' files on this machine that name us, and whether what they say works."""
    for host in HOST_FILES:
        path = host.path(user_home, folder)
        if not path.is_file():
            continue
        do = f"integrations-mcp connect {host.name} --write"
        try:
            entry = entry_in(host, path.read_text("utf-8"))
        except (HostFileError, OSError, UnicodeDecodeError) as e:
            yield Finding("host_file", "note", f"{path}: {e}", about=host.title)
            continue
        if entry is None:
            yield Finding("host_file", "note", f"{path} doesn't name us", do, host.title)
        elif (fault := await _entry_fault(entry)) is not None:
            yield Finding("host_file", "wrong", f"{path}: {fault}", do, host.title)
        else:
            yield Finding("host_file", "ok", f"{path}: works as written", about=host.title)


async def _entry_fault(entry: Mapping[str, Any]) -> str | None:
    command = entry.get("command") or entry.get("cmd")
    if isinstance(command, str):
        if (fault := _command_fault(Path(command))) is not None:
            return fault
        return await _start_fault(command, entry.get("args") or [], entry.get("env") or entry.get("envs") or {})
    url = entry.get("url") or entry.get("serverUrl") or entry.get("uri")
    if not isinstance(url, str):
        return "it has neither a command nor a URL"
    try:
        async with httpx2.AsyncClient(timeout=5) as client:
            answer = await client.post(url, json={})
    except (httpx2.HTTPError, httpx2.InvalidURL) as e:
        return f"{url} can't be reached ({type(e).__name__}): is the server running?"
    # Without a key our server answers 401; the key is the host's, we don't have it.
    return None if answer.status_code in (200, 400, 401) else f"{url} answers {answer.status_code}: it ends in /mcp"


def _command_fault(command: Path) -> str | None:
    if not command.is_absolute():
        return f"{command} isn't an absolute path: desktops don't search the shell's PATH"
    return None if command.is_file() else f"{command} isn't there"


async def _start_fault(command: str, args: list[str], env: dict[str, str]) -> str | None:
    """Starts what is written and lists the tools."""
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    try:
        with anyio.fail_after(_START_S):
            async with Client(stdio_client(StdioServerParameters(command=command, args=args, env=env))) as client:
                await client.list_tools()
    except TimeoutError:
        return f"{command} {' '.join(args)} doesn't answer within {_START_S:.0f} s"
    except Exception as e:  # noqa: BLE001 - whatever a started program does is a finding
        return f"{command} {' '.join(args)} doesn't serve: {_first(e)}"
    return None


def _first(error: BaseException) -> str:
    """The words of the first of a group of errors."""
    if isinstance(error, BaseExceptionGroup):
        return _first(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    return str(error) or type(error).__name__
