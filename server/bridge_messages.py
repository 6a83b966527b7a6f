"""JSON-RPC messages as the bridge sees them: the headers that mirror one, and answers where the server gave none. Pure."""

from typing import Any

import httpx2

Message = dict[str, Any]
"""One JSON-RPC message as JSON."""
_VERSION = "io.modelcontextprotocol/protocolVersion"
_NO_ANSWER = -32000


def asks(message: Message) -> bool:
    """Whether it is a request, so that somebody waits for an answer."""
    return "method" in message and "id" in message


def is_modern(message: Message) -> bool:
    """2026-07-28 and later: each request says its own version and stands alone."""
    return _own_version(message) is not None


def headers_of(message: Message, negotiated: str | None) -> dict[str, str]:
    """MCP's request headers (Streamable HTTP): version, and since 2026-07-28 the method and the name it is about."""
    headers = {"accept": "application/json, text/event-stream"}
    own = _own_version(message)
    if (version := own or negotiated) is not None:
        headers["mcp-protocol-version"] = version
    if own is not None:
        headers["mcp-method"] = message["method"]
        params: dict[str, Any] = message.get("params") or {}
        name = params.get("uri") if message["method"].startswith("resources/") else params.get("name")
        if isinstance(name, str) and name.isascii() and name.isprintable():
            headers["mcp-name"] = name
    return headers


def error_answer(request: Message, text: str) -> Message:
    return {"jsonrpc": "2.0", "id": request["id"], "error": {"code": _NO_ANSWER, "message": text}}


def status_answer(request: Message, response: httpx2.Response) -> Message:
    """An HTTP error as a JSON-RPC error: the server's own where it is one, else a sentence."""
    try:
        body: Any = response.json()
    except ValueError:
        body = None
    if isinstance(body, dict):
        if "error" in body:
            return {**body, "id": request["id"]}
        body = body.get("detail")  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - JSON
    said = f": {body}" if isinstance(body, str) else ""
    match response.status_code:
        case 401:
            text = f"The gateway doesn't accept the API key in INTEGRATIONS_MCP_API_KEY{said}"
        case 301 | 302 | 303 | 307 | 308:
            text = f"The gateway's URL has moved: it redirects to {response.headers.get('location', 'nowhere')}"
        case 404 if not said:
            text = "There is no gateway at this URL: it ends in /mcp"
        case status:
            text = f"The gateway answered {status}{said}"
    return error_answer(request, text)


def _own_version(message: Message) -> str | None:
    params = message.get("params")
    meta: Any = params.get("_meta") if isinstance(params, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - JSON
    version: Any = meta.get(_VERSION) if isinstance(meta, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return version if isinstance(version, str) else None
