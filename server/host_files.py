"""What each host (Claude Desktop, Cursor, ...) reads to find a gateway: its file, and our entry in it (agents.md, "Host files").

A host that can take a secret from the environment or ask for it gets a reference; the others need the key itself in the file.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from server.connections import KEY

KEY_VARIABLE = "INTEGRATIONS_MCP_API_KEY"
URL_VARIABLE = "INTEGRATIONS_MCP_URL"
PLACEHOLDER = "YOUR_API_KEY"
Format = Literal["json", "toml", "yaml"]


@dataclass(frozen=True, slots=True)
class Target:
    """What a host is to reach: a server at `url` (of /mcp), or, where it is empty, `command stdio` with `environment`."""

    command: str
    url: str = ""
    api_key: str = PLACEHOLDER
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class HostFile:
    """One host. `path(home, folder)` is its file; `section` holds the entries; `entry` is ours; `more` goes beside the section.

    `holds_key`: the key itself must be written for a URL. `source` as in `tools.hosts`.
    """

    name: str
    title: str
    format: Format
    section: str
    path: Callable[[Path, Path], Path]
    entry: Callable[[Target], dict[str, Any]]
    holds_key: bool = False
    more: Callable[[Target], dict[str, Any]] = lambda _: {}


def _command(target: Target) -> dict[str, Any]:
    """Over stdio: ourselves, as a bridge where there is a URL. Absolute path, no blanks in arguments: desktops have no PATH."""
    if target.url:
        env = {URL_VARIABLE: target.url, KEY_VARIABLE: target.api_key}
        return {"command": target.command, "args": ["connect"], "env": env}
    entry: dict[str, Any] = {"command": target.command, "args": ["stdio"]}
    return entry | ({"env": dict(target.environment)} if target.environment else {})


def _http(reference: str, url_field: str = "url", **first: str) -> Callable[[Target], dict[str, Any]]:
    def entry(target: Target) -> dict[str, Any]:
        if not target.url:
            return _command(target)
        return {**first, url_field: target.url, "headers": {"Authorization": f"Bearer {reference}"}}

    return entry


def _codex(target: Target) -> dict[str, Any]:
    if not target.url:
        return _command(target)
    return {"url": target.url, "bearer_token_env_var": KEY_VARIABLE, "tool_timeout_sec": 120}


def _goose(target: Target) -> dict[str, Any]:
    shared = {"name": KEY, "enabled": True, "timeout": 120}
    if target.url:
        headers = {"Authorization": f"Bearer {target.api_key}"}
        return {"type": "streamable_http", "uri": target.url, "headers": headers, **shared}
    command = _command(target)
    return {
        "type": "stdio",
        "cmd": command["command"],
        "args": command["args"],
        "envs": command.get("env", {}),
        **shared,
    }


def _vscode_inputs(target: Target) -> dict[str, Any]:
    if not target.url:
        return {}
    return {
        "inputs": [{"type": "promptString", "id": "gw-key", "description": "API key of the gateway", "password": True}]
    }


def _claude_desktop(home: Path, _: Path) -> Path:
    match sys.platform:
        case "darwin":
            folder = home / "Library" / "Application Support"
        case "win32":
            folder = Path(os.environ.get("APPDATA", home / "AppData" / "Roaming"))
        case _:
            folder = home / ".config"
    return folder / "Claude" / "claude_desktop_config.json"


HOST_FILES: tuple[HostFile, ...] = (
    HostFile("claude-desktop", "Claude Desktop", "json", "mcpServers", _claude_desktop, _command, holds_key=True),
    HostFile(
        "claude-code",
        "Claude Code",
        "json",
        "mcpServers",
        lambda _, folder: folder / ".mcp.json",
        _http(f"${{{KEY_VARIABLE}}}", type="http"),
    ),
    HostFile(
        "cursor",
        "Cursor",
        "json",
        "mcpServers",
        lambda _, folder: folder / ".cursor" / "mcp.json",
        _http(f"${{env:{KEY_VARIABLE}}}"),
    ),
    HostFile(
        "vscode",
        "VS Code",
        "json",
        "servers",
        lambda _, folder: folder / ".vscode" / "mcp.json",
        _http("${input:gw-key}", type="http"),
        more=_vscode_inputs,
    ),
    HostFile("codex", "Codex", "toml", "mcp_servers", lambda home, _: home / ".codex" / "config.toml", _codex),
    HostFile(
        "windsurf",
        "Windsurf",
        "json",
        "mcpServers",
        lambda home, _: home / ".codeium" / "windsurf" / "mcp_config.json",
        _http(f"${{env:{KEY_VARIABLE}}}", "serverUrl"),
    ),
    HostFile(
        "zed",
        "Zed",
        "json",
        "context_servers",
        lambda home, _: home / ".config" / "zed" / "settings.json",
        _command,
        holds_key=True,
    ),
    HostFile(
        "goose",
        "Goose",
        "yaml",
        "extensions",
        lambda home, _: home / ".config" / "goose" / "config.yaml",
        _goose,
        holds_key=True,
    ),
)
"""As of 2026-11, see docs/connect.md for what was tried."""


def inspector_line(target: Target) -> str:
    """The MCP Inspector has no file: a command that lists the tools."""
    if target.url:
        header = f'--transport http --header "Authorization: Bearer ${KEY_VARIABLE}"'
        return f"npx @modelcontextprotocol/inspector --cli {target.url} {header} --method tools/list"
    return f"npx @modelcontextprotocol/inspector --cli {target.command} stdio --method tools/list"
