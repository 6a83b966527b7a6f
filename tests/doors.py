"""Every way into a served gateway as one plain request each, to see who is let in: both protocol eras, SSE and REST."""

from typing import Any, Literal

import httpx2

Door = Literal["modern", "legacy", "sse", "rest"]
DOORS: tuple[Door, ...] = ("modern", "legacy", "sse", "rest")
_BOTH = "application/json, text/event-stream"
_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
}
_HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}


def call(name: str, arguments: dict[str, Any], token: str) -> dict[str, Any]:
    """The arguments of a POST to /mcp that calls a tool (2026-07-28)."""
    return _modern("tools/call", {"name": name, "arguments": arguments}, token, {"Mcp-Name": name})


def listing(token: str) -> dict[str, Any]:
    """The arguments of a POST to /mcp that lists tools (2026-07-28)."""
    return _modern("tools/list", {}, token, {})


def _modern(method: str, params: dict[str, Any], token: str, more: dict[str, str]) -> dict[str, Any]:
    headers = {"Accept": _BOTH, "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method, **more}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": _META}}
    return {"headers": {**headers, **_bearer(token)}, "json": body}


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


async def knock(client: httpx2.AsyncClient, door: Door, token: str, **more: str) -> httpx2.Response:
    """What the door says to this token ("" is none); `more` are headers. Of an SSE stream only the head is read."""
    headers = {**_bearer(token), "Accept": _BOTH, **more}
    if door == "modern":
        asked = _modern("tools/list", {}, token, more)
        return await client.post("/mcp", **asked)
    if door == "legacy":
        body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": _HELLO}
        return await client.post("/mcp", json=body, headers=headers)
    if door == "rest":
        return await client.get("/v1/acme/integrations", headers=headers)
    async with client.stream("GET", "/sse", headers=headers) as stream:
        if stream.status_code != 200:
            await stream.aread()
        return stream
