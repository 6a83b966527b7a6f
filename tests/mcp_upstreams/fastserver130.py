"""An MCP server of the year before (mcp 1.30), run in tests/oldworld.py's environment: `stdio`, `sse PORT` or `http PORT`."""

import sys

from mcp.server.fastmcp import FastMCP

transport, *rest = sys.argv[1:]
server = FastMCP("old", host="127.0.0.1", port=int(rest[0]) if rest else 0)


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


server.run({"http": "streamable-http"}.get(transport, transport))
