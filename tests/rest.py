"""A served gateway with an owner's client and an upstream, for tests of the REST API."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.world import World, gateway, http, listening, served
from tools.callers import Role

INTEGRATIONS = "/v1/acme/integrations"
CANARY = "canary-0123456789"


@dataclass(frozen=True)
class Rest:
    """`client` is the owner's; `upstream` the base URL of a shop whose item 0 is broken; `sent` what it was asked."""

    world: World
    url: str
    client: httpx2.AsyncClient
    upstream: str
    sent: list[str]

    def as_(self, key: str) -> httpx2.AsyncClient:
        return http(self.url, key)

    async def role(self, role: Role, **narrowed: Any) -> httpx2.AsyncClient:
        return http(self.url, await self.world.key(role, **narrowed))

    def shop(self, name: str = "shop", **more: Any) -> dict[str, Any]:
        """The body of a create."""
        return {
            "name": name,
            "display_name": name.title(),
            "base_url": self.upstream,
            "auth": {"type": "api_key_header", "api_key_value": {"value": CANARY}},
            "endpoints": [
                endpoint("get_item", "GET", "/items/{id}", response_filter=["id", "key"]),
                endpoint("delete_item", "DELETE", "/items/{id}"),
            ],
            **more,
        }

    async def create(self, name: str = "shop", **more: Any) -> dict[str, Any]:
        answer = await self.client.post(INTEGRATIONS, json=self.shop(name, **more))
        assert answer.status_code == 201, answer.text
        return answer.json()


def endpoint(name: str, method: str, path: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": f"Does {name}.", "method": method, "path": path, **more}


@asynccontextmanager
async def rest_world(home: Path, **settings: Any) -> AsyncGenerator[Rest, None]:
    sent: list[str] = []

    async def item(request: Request) -> JSONResponse:
        sent.append(f"{request.method} {request.url.path}")
        if request.path_params["id"] == "0":
            return JSONResponse({"detail": "the shelf fell over"}, 500)
        return JSONResponse({"id": request.path_params["id"], "key": request.headers.get("x-api-key"), "shelf": 3})

    routes = [Route("/items/{id}", item, methods=["GET", "DELETE"])]
    async with (
        listening(Starlette(routes=routes)) as upstream,
        gateway(home, **settings) as world,
        served(world) as url,
        http(url, await world.key()) as client,
    ):
        yield Rest(world, url, client, upstream, sent)
