"""Every wire that the gateway speaks, as a connected client of mcp 2.3: the same conversation can be held over each."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from tests.processes import SCRIPT, environment
from tests.world import World, http, served

Wire = Literal["modern http", "session", "stateless", "sse", "modern stdio", "legacy stdio"]
HTTP: tuple[Wire, ...] = ("modern http", "session", "stateless", "sse")
STDIO: tuple[Wire, ...] = ("modern stdio", "legacy stdio")
ALL = HTTP + STDIO
LASTING: tuple[Wire, ...] = tuple(w for w in ALL if w != "stateless")
"""Those with something that lives longer than one request: they can be told of changes, and of a cancellation."""


def version_of(wire: Wire) -> str:
    return "2026-07-28" if wire.startswith("modern") else "2025-11-25"


@asynccontextmanager
async def connected(
    wire: Wire, world: World, home: Path, key: str | None = None, **more: Any
) -> AsyncGenerator[Client]:
    """A client of workspace `acme` over `wire`; over HTTP with `key` (an owner's if None). `home` holds the registry.

    stdio is a process of its own on the same registry. `more` goes to Client.
    """
    mode = "auto" if wire.startswith("modern") else "legacy"
    async with AsyncExitStack() as stack:
        if wire in STDIO:
            env = environment(home, {"INTEGRATIONS_MCP_WORKSPACE": "acme"})
            env["INTEGRATIONS_MCP_ALLOW_PRIVATE_NETWORKS"] = "127.0.0.0/8"
            server = StdioServerParameters(command=str(SCRIPT), args=["stdio"], env=env)
            transport: Any = stdio_client(server)
        else:
            url = await stack.enter_async_context(served(world, sessions=wire != "stateless"))
            key = key or await world.key()
            if wire == "sse":
                transport = sse_client(f"{url}/sse", {"Authorization": f"Bearer {key}"})
            else:
                client = await stack.enter_async_context(http(url, key))
                transport = streamable_http_client(f"{url}/mcp", http_client=client)
        yield await stack.enter_async_context(Client(transport, mode=mode, **more))
