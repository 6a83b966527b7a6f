"""An MCP server by the FastMCP class of whichever package its environment has (mcp 1.x, fastmcp 4): `stdio`, `sse PORT` or `http PORT`."""

import base64
import sys

try:
    from fastmcp import FastMCP
    from fastmcp.utilities.types import Image

    OWN = True
except ImportError:
    from mcp.server.fastmcp import FastMCP, Image

    OWN = False

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
transport, *rest = sys.argv[1:]
port = int(rest[0]) if rest else 0
server = FastMCP("old") if OWN else FastMCP("old", host="127.0.0.1", port=port)


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def picture() -> Image:
    """One pixel."""
    return Image(data=PIXEL, format="png")


@server.tool()
def fails() -> str:
    """Always fails."""
    raise ValueError("no such thing")


if OWN:
    server.run(
        transport=transport, show_banner=False, **({} if transport == "stdio" else {"host": "127.0.0.1", "port": port})
    )
else:
    server.run({"http": "streamable-http"}.get(transport, transport))
