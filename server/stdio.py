"""The stdio wire: one client, who is the local user. stdout is the protocol's; everything else goes to stderr."""

from mcp.server.stdio import stdio_server

from server.app import App
from tools.callers import Caller


async def serve_stdio(app: App, caller: Caller) -> None:
    """Serves both eras until stdin ends."""
    server = app.mcp_server(caller, announces=True)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())
