"""client_id and secret are one: changed in one PUT under load, no token request of any process mixes them (rules A4, I8)."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from tests.upstreams import Hostile, Received, answer
from tests.world import World, gateway
from tools.parsing import parse_update

pytestmark = pytest.mark.anyio
pytest_plugins = ("tests.postgres",)
PAIRS = [(f"client-{n}", f"secret-of-client-{n}") for n in range(5)]
JSON = {"Content-Type": "application/json"}


class Strict:
    """A token server that knows a few pairs, and a system behind that says by whose token it was called."""

    def __init__(self, server: Hostile) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        server.script("/token", self.token)
        server.script("/whose", self.whose)

    async def token(self, request: Received, writer: asyncio.StreamWriter) -> bool:
        form = dict(parse_qsl(request.body.decode()))
        pair = form["client_id"], form["client_secret"]
        self.asked[pair] += 1
        if pair not in PAIRS:
            return await answer(401, b'{"error":"invalid_client"}', JSON)(request, writer)
        body = {"access_token": f"token-of-{pair[0]}", "token_type": "Bearer", "expires_in": 0}
        return await answer(200, json.dumps(body).encode(), JSON)(request, writer)

    async def whose(self, request: Received, writer: asyncio.StreamWriter) -> bool:
        token = (request.header("authorization") or "").removeprefix("Bearer token-of-")
        return await answer(200, b'{"whose":%d}' % _number(token), JSON)(request, writer)


def _number(client_id: str) -> int:
    return next(number for number, pair in enumerate(PAIRS) if pair[0] == client_id)


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


def auth(url: str, number: int) -> dict[str, Any]:
    client_id, secret = PAIRS[number]
    return {
        "type": "oauth2_client_credentials",
        "token_url": f"{url}/token",
        "client_id": client_id,
        "client_secret_value": {"value": secret},
        "client_auth_method": "post",
    }


class Process:
    """One gateway on the common registry, called without a pause; every call mints, since no token lives."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.answers: list[str] = []
        self._called = asyncio.Event()

    async def call_for_ever(self) -> None:
        while True:
            self.answers.append(await self.world.call("sys_whose"))
            self._called.set()

    async def until_it_uses(self, number: int) -> None:
        while not self.answers or self.answers[-1] != f'{{"whose":{number}}}':
            self._called.clear()
            await self._called.wait()
            assert self.answers[-1].startswith('{"whose":'), self.answers[-1]


async def test_a_change_of_both_in_one_put_is_never_seen_halfway(
    tmp_path: Path, database_url: str, upstream: Hostile
) -> None:
    """Two gateways on one registry, SQLite and PostgreSQL alike; the PUTs come by either of them."""
    server = Strict(upstream)
    async with AsyncExitStack() as stack, asyncio.timeout(90):
        worlds = [await stack.enter_async_context(gateway(tmp_path, database_url=database_url)) for _ in range(2)]
        await worlds[0].create(
            {
                "name": "sys",
                "display_name": "S",
                "base_url": upstream.url,
                "auth": auth(upstream.url, 0),
                "endpoints": [{"name": "whose", "description": "d", "method": "GET", "path": "/whose"}],
            }
        )
        processes = [Process(world) for world in worlds]
        callers = [asyncio.ensure_future(p.call_for_ever()) for p in processes for _ in range(4)]
        for number in range(len(PAIRS)):
            if number:
                world = worlds[number % 2]
                update = parse_update({"auth": auth(upstream.url, number)}, "sys")
                await world.app.admin.update(world.owner, "sys", update)
            for process in processes:
                await process.until_it_uses(number)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    assert set(server.asked) == set(PAIRS)
    assert [a for p in processes for a in p.answers if not a.startswith('{"whose":')] == []
