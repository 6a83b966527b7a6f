"""How hosts are told of a running gateway: their files and commands (agents.md, "Host files"), with absolute paths."""

import json
import shlex
from typing import Any

KEY = "gateway"
"""What every host calls the server: short, because hosts put it before each tool's name."""


def configurations(mcp_url: str, api_key: str, executable: str) -> list[tuple[str, str]]:
    """(host, what to paste) for the hosts that the README names."""
    header = f"Authorization: Bearer {api_key}"
    headers = {"Authorization": f"Bearer {api_key}"}
    return [
        (
            "Claude Desktop: claude_desktop_config.json (starts a demo of its own over stdio)",
            _json({"mcpServers": {KEY: {"command": executable, "args": ["stdio", "--demo"]}}}),
        ),
        (
            "Claude Code",
            f"claude mcp add --transport http --header {shlex.quote(header)} {KEY} {mcp_url}",
        ),
        ("Cursor: .cursor/mcp.json", _json({"mcpServers": {KEY: {"url": mcp_url, "headers": headers}}})),
        (
            "VS Code: .vscode/mcp.json",
            _json({"servers": {KEY: {"type": "http", "url": mcp_url, "headers": headers}}}),
        ),
        (
            "MCP Inspector",
            f"npx @modelcontextprotocol/inspector --cli {mcp_url} --transport http --header {shlex.quote(header)} --method tools/list",
        ),
    ]


def curl_line(mcp_url: str, api_key: str, example: dict[str, Any]) -> str:
    """One call with curl: protocol 2026-07-28 needs no handshake."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "curl", "version": "1"},
    }
    params = {"name": example["tool"], "arguments": example["arguments"], "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return (
        f"curl -s {mcp_url} -H {shlex.quote(f'Authorization: Bearer {api_key}')} -H 'Content-Type: application/json' "
        "-H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/call' "
        f"-H 'Mcp-Name: {example['tool']}' -d {shlex.quote(json.dumps(body))}"
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)
