"""A whole gateway for tests: the real parts on a registry of its own, an upstream on loopback, and the HTTP wire where asked for."""

import asyncio
import ipaddress
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from starlette.types import ASGIApp

from server.app import App, open_app
from server.listening import bind
from server.serving import Serving, config_of
from server.settings import Settings
from tools.address_guard import NetworkPolicy
from tools.callers import Caller, Role, local_caller
from tools.models import Integration
from tools.parsing import parse_create

LOOPBACK = NetworkPolicy(allow_private=(ipaddress.ip_network("127.0.0.0/8"),))


@dataclass(frozen=True)
class World:
    """A gateway, its workspace `acme`, and how to get further callers of it."""

    app: App
    owner: Caller

    async def create(self, body: dict[str, Any], caller: Caller | None = None) -> Integration:
        """Writes an integration given as the REST body would have it."""
        written = await self.app.admin.create(caller or self.owner, parse_create(body))
        return written.after

    async def key(self, role: Role = "owner", **narrowed: Any) -> str:
        return (await self.app.keys.create("acme", role=role, **narrowed)).api_key

    async def call(self, tool: str, /, **arguments: Any) -> str:
        """What an agent sees."""
        return (await self.app.toolbox.call(self.owner, tool, arguments)).text


@asynccontextmanager
async def gateway(
    home: Path,
    *,
    network: NetworkPolicy = LOOPBACK,
    listeners: frozenset[tuple[str, int]] = frozenset(),
    **settings: Any,
) -> AsyncGenerator[World, None]:
    """The parts, without a wire; upstreams may be on loopback."""
    read = Settings(home=home, workspace="acme", log_level="error", **settings)
    async with open_app(read, network=network, listeners=listeners, background=True) as app:
        yield World(app, local_caller("acme"))


@asynccontextmanager
async def served(world: World, *, sessions: bool = True, port: int = 0) -> AsyncGenerator[str, None]:
    """The HTTP wire of this gateway on a free port of loopback (or this one); gives its URL."""
    serving = Serving(world.app.settings, sessions=sessions, app=world.app)
    async with listening(serving, config_of(serving, world.app.settings), port) as url:
        yield url


@asynccontextmanager
async def listening(app: ASGIApp, config: uvicorn.Config | None = None, port: int = 0) -> AsyncGenerator[str, None]:
    """Any ASGI application on a free port of loopback (or this one); gives its URL."""
    sock = bind("127.0.0.1", port)
    server = uvicorn.Server(config or uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    # A listening socket takes connections before the server accepts them, so nobody need wait for it to have started.
    sock.listen(128)
    task = asyncio.ensure_future(server.serve(sockets=[sock]))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


def http(url: str, key: str) -> httpx2.AsyncClient:
    """A client with an API key; `url` is the base."""
    return httpx2.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False)
