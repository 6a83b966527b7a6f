"""What is wrong on this machine when a host doesn't see the tools: one finding a thing looked at, each with what to do."""

import os
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import anyio
import httpx2

from server import surroundings
from server.app import App, open_app
from server.config_file import ConfigError
from server.egress import host_list
from server.finding import Finding
from server.host_files import HOST_FILES
from server.host_merge import HostFileError, entry_in
from server.keyring import KEY_FILE
from server.settings import Settings
from tools.callers import local_caller
from tools.checks import unreached
from tools.errors import GatewayError
from tools.hosts import hosts_over
from tools.lint import lint
from tools.linted import linted

_START_S = 15.0
_BUILT = datetime(2026, 1, 1, tzinfo=UTC)
"""No clock is right before this code was written."""


async def check_up(settings: Settings, user_home: Path, folder: Path) -> AsyncIterator[Finding]:
    """Everything, in the order in which things depend on each other. `user_home` and `folder` are where hosts' files are."""
    yield Finding("settings", "ok", f"workspace {settings.workspace}, home {settings.home}")
    for finding in (
        *_files(settings),
        *surroundings.disk(settings.registry_url, settings.home),
        *surroundings.way_out(os.environ),
    ):
        yield finding
    try:
        async with open_app(settings) as app:
            found = [Finding("registry", "ok", "reachable, its schema is this version's")]
            found += [finding async for finding in surroundings.database_clock(settings.registry_url)]
            found += [finding async for finding in _workspace(app)]
    except ConfigError as e:
        found = [Finding("config file", "wrong", str(e), "correct it; integrations-mcp check FILE tells the same")]
    except GatewayError as e:
        found = [Finding("registry", "wrong", e.message, "see the settings database_url and home")]
    for finding in found:
        yield finding
    async for finding in _hosts(user_home, folder):
        yield finding


def _files(settings: Settings) -> Iterator[Finding]:
    for what, path, limit in (
        ("home folder", settings.home, 0o700),
        ("key file", settings.home / KEY_FILE, 0o600),
    ):
        if not path.exists():
            yield Finding(what, "note", f"{path} isn't there yet: it is made when it is needed")
        elif (mode := stat.S_IMODE(path.stat().st_mode)) & ~limit:
            yield Finding(what, "wrong", f"others may read {path} (mode {mode:o})", f"chmod {limit:o} {path}")
        else:
            yield Finding(what, "ok", str(path))


async def _workspace(app: App) -> AsyncIterator[Finding]:
    workspace = app.settings.workspace
    _, integrations = await app.registry.load(workspace)
    now = datetime.now(UTC)
    newest = max((i.updated_at for i in integrations), default=_BUILT)
    if now < _BUILT or newest > now + timedelta(minutes=2):
        said = f"it says {now:%Y-%m-%d %H:%M} UTC; the newest change in the registry is of {newest:%Y-%m-%d %H:%M}"
        yield Finding("clock", "wrong", said, "set it: tokens and keys are refused when it is wrong")
    else:
        yield Finding("clock", "ok", f"{now:%Y-%m-%d %H:%M} UTC")
    keys, _ = await app.key_store.keys(workspace, 10_000, 0)
    live = sum(k.expires_at is None or k.expires_at > now for k in keys)
    if live:
        yield Finding("keys", "ok", f"{live} of {len(keys)} keys are valid")
    else:
        yield Finding("keys", "note", "no valid key: only stdio works", "integrations-mcp keys create")
    if not integrations:
        do = "integrations-mcp apply -f FILE; or integrations-mcp demo to see it work"
        yield Finding("integrations", "note", f"workspace {workspace} has none: agents see only management", do)
    for i in integrations:
        for issue in unreached(i, host_list(app.settings)):
            where = ".".join(map(str, issue.loc[1:]))
            do = f"integrations-mcp integrations update {i.name}"
            yield Finding("hosts", "wrong", f"{i.name}, {where}: {issue.msg}", do)
    yield await surroundings.secret_store(app, integrations)
    async for finding in surroundings.names(integrations):
        yield finding
    async for finding in _tools(app):
        yield finding


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
        yield Finding(f"integration {row['name']}", "ok" if good else "wrong", said, do)


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
            yield Finding(host.title, "note", f"{path}: {e}")
            continue
        if entry is None:
            yield Finding(host.title, "note", f"{path} doesn't name us", do)
        elif (fault := await _entry_fault(entry)) is not None:
            yield Finding(host.title, "wrong", f"{path}: {fault}", do)
        else:
            yield Finding(host.title, "ok", f"{path}: works as written")


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
