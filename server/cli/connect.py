"""connect: the bridge to a running server, and the configuration of hosts."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from server.cli.options import Home, in_loop, settings_of


def connect_command(
    target: Annotated[
        str | None,
        typer.Argument(
            help="URL of a gateway, or a host to configure: claude-desktop, claude-code, cursor, vscode, codex, windsurf, zed, goose, inspector."
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="With a host: the gateway's URL. Default: INTEGRATIONS_MCP_URL, else the host starts `stdio` itself."
        ),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write it into the host's file, with a backup.")] = False,
    file: Annotated[Path | None, typer.Option(help="The host's file, where it isn't in its usual place.")] = None,
    home: Home = None,
) -> None:
    """Bridge stdio to a running gateway (key from INTEGRATIONS_MCP_API_KEY), or show how to configure a host.

    Example: integrations-mcp connect claude-code --url https://gateway.example.com/mcp
    """
    given = target or os.environ.get("INTEGRATIONS_MCP_URL", "")
    if not given:
        raise typer.BadParameter("name a URL or a host, or set INTEGRATIONS_MCP_URL", param_hint="TARGET")
    if "://" in given:
        _bridge(given)
    else:
        _configure(given, url or os.environ.get("INTEGRATIONS_MCP_URL", ""), write, file, home)


def mcp_url(url: str) -> str:
    """A server's URL means its /mcp. Raises ValueError for what isn't one."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
        raise ValueError(f"{url!r} is not the URL of a gateway, like https://gateway.example.com/mcp")
    return url if parts.path.strip("/") else url.rstrip("/") + "/mcp"


def _bridge(url: str) -> None:
    from server.bridging import bridge_stdio

    where, api_key = mcp_url(url), os.environ.get("INTEGRATIONS_MCP_API_KEY", "")
    if not api_key:
        typer.echo("integrations-mcp: INTEGRATIONS_MCP_API_KEY isn't set: the gateway will refuse", err=True)
    in_loop(lambda: bridge_stdio(where, api_key))


def _configure(name: str, url: str, write: bool, file: Path | None, home: Path | None) -> None:
    from server.cli.demo import executable
    from server.host_files import HOST_FILES, KEY_VARIABLE, PLACEHOLDER, Target, inspector_line
    from server.host_merge import HostFileError, shown, write_entry
    from tools.naming import nearest

    known = {host.name: host for host in HOST_FILES}
    target = Target(executable(), mcp_url(url) if url else "", environment=_environment(home))
    if name == "inspector":
        typer.echo(inspector_line(target))
        return
    if name not in known:
        close = nearest(name, [*known, "inspector"])
        said = f"; did you mean {close}?" if close else f": {', '.join(known)}, inspector, or a URL"
        raise typer.BadParameter(f"{name!r} is not a host{said}", param_hint="TARGET")
    host = known[name]
    path = file or host.path(Path.home(), Path.cwd())
    if not write:
        typer.echo(f"{host.title}: {path}", err=True)
        sys.stdout.write(shown(host, target))
        if host.holds_key and url:
            typer.echo(f"put the key in place of {PLACEHOLDER}; --write takes it from {KEY_VARIABLE}", err=True)
        return
    if host.holds_key and url:
        api_key = os.environ.get(KEY_VARIABLE, "")
        if not api_key:
            raise typer.BadParameter(
                f"{host.title} needs the key in its file: set {KEY_VARIABLE}", param_hint="--write"
            )
        target = Target(target.command, target.url, api_key)
    try:
        backup = write_entry(host, target, path)
    except HostFileError as e:
        raise ValueError(f"{path}: {e}\n{shown(host, Target(target.command, target.url))}") from None
    typer.echo(f"wrote {path}" + (f"; undo: cp {backup} {path}" if backup else ""), err=True)
    if url and not host.holds_key and host.name != "vscode":
        typer.echo(f"{host.title} takes the key from {KEY_VARIABLE}: set it where {host.title} is started", err=True)
    typer.echo(f"restart {host.title}, then ask it to list its tools", err=True)


def _environment(home: Path | None) -> dict[str, str]:
    """What `stdio` must be told, since a host doesn't start it in this shell."""
    settings = settings_of(home)
    default: Any = type(settings).model_fields["home"].get_default(call_default_factory=True)
    found = {} if settings.home == default else {"INTEGRATIONS_MCP_HOME": str(settings.home.absolute())}
    if settings.workspace != "default":
        found["INTEGRATIONS_MCP_WORKSPACE"] = settings.workspace
    if settings.config is not None:
        found["INTEGRATIONS_MCP_CONFIG"] = str(settings.config.absolute())
    return found
