"""A registry that is locked or slow, not gone: what is known is served in time, and what needs it is told (docs/operating.md)."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import asyncpg
import pytest

from server.store.database import open_database
from tests.test_outage import HEADERS, READ, call
from tests.upstreams import Hostile, answer
from tests.world import World, gateway, http, served
from tools.errors import StorageUnavailable
from tools.patience import Patience

if TYPE_CHECKING:
    from tests.postgres import Postgres

pytest_plugins = ("tests.postgres",)
pytestmark = pytest.mark.anyio
LONG = {**READ, "name": "long", "path": "/long", "max_result_length": 500}
FAULTS = ("nothing comes back", "a lock is held")


class Relay:
    """Stands before the database; `frozen` it takes what comes and passes nothing on."""

    def __init__(self, port: int) -> None:
        self._to, self.port = port, 0
        self._moving = asyncio.Event()
        self._moving.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def freeze(self) -> None:
        self._moving.clear()

    def thaw(self) -> None:
        self._moving.set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.ensure_future(self._pass_on(source, target))
            self._tasks.add(task)

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._moving.wait()
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()


async def asked(url: str, key: str) -> Any:
    async with http(url, key) as client:
        return (await client.post("/mcp", json=call(), headers={**HEADERS, "Authorization": f"Bearer {key}"})).json()


async def goes_on(world: World, url: str, key: str) -> None:
    """What is known: over the wire, with the key and the catalog that ought to be asked for again."""
    world.app.keys.forget()
    world.app.catalogs.invalidate("acme")
    assert (await asked(url, key))["result"]["content"][0]["text"] == "fine"
    cut = await world.app.toolbox.call(world.owner, "sy_long", {})
    assert cut.text.startswith("[Showing")
    assert cut.result_id is None
    assert "get_result" not in cut.text


async def changed(world: World, name: str) -> None:
    """An edit: a further integration, with a secret."""
    auth = {"type": "bearer_token", "bearer_token_value": {"value": "swordfish-99"}}
    await world.create(
        {"name": name, "display_name": name, "base_url": "http://127.0.0.1:9", "auth": auth, "endpoints": [READ]}
    )


async def names(world: World) -> list[str]:
    return sorted(i.name for i in (await world.app.registry.load("acme"))[1])


async def made(world: World, upstream: Hostile, url: str) -> str:
    upstream.script("/x", answer(200, b"fine"))
    upstream.script("/long", answer(200, b"word " * 1000))
    await world.create({"name": "sy", "display_name": "S", "base_url": upstream.url, "endpoints": [READ, LONG]})
    key = await world.key()
    assert (await asked(url, key))["result"]["content"][0]["text"] == "fine"
    return key


@asynccontextmanager
async def slow(
    tmp_path: Path,
    postgres: "Postgres",
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    deadline_s: float,
    *left: str,
) -> AsyncGenerator[tuple[World, str, str, dict[str, Any]], None]:
    """A gateway whose PostgreSQL is slow inside: (world, url, key, its settings). Afterwards it works, and of the edits there are `left`."""
    monkeypatch.setattr("server.store.postgres.CONNECT_S", deadline_s)
    monkeypatch.setattr("server.store.postgres.COMMAND_S", deadline_s)
    monkeypatch.setattr("server.app.Patience", partial(Patience, 0.3))
    relay = Relay(postgres.port)
    straight = postgres.fresh_url()
    settings: dict[str, Any] = {"secret_key": "A" * 43 + "="}
    async with relay.running(), Hostile() as upstream:
        settings["database_url"] = straight.replace(f":{postgres.port}/", f":{relay.port}/")
        async with gateway(tmp_path, **settings) as world, served(world) as url:
            key = await made(world, upstream, url)
            holds = await asyncpg.connect(straight)
            try:
                if fault == "a lock is held":
                    await holds.execute("BEGIN")
                    await holds.execute("LOCK TABLE workspaces, integrations, api_keys, kept_results")
                else:
                    relay.freeze()
                yield world, url, key, settings
            finally:
                relay.thaw()
                await holds.close()
            assert await world.call("sy_read") == "fine"
            await changed(world, "after")
            with anyio.fail_after(60):
                while await names(world) != ["after", "sy", *left]:
                    pass


@pytest.mark.postgres
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_slow_postgresql_costs_known_calls_next_to_nothing(
    tmp_path: Path, postgres: "Postgres", monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Its own deadline is two minutes here: who waited for it would fail this test."""
    async with slow(tmp_path, postgres, monkeypatch, fault, 120, "while") as (world, url, key, _):
        with anyio.fail_after(60):
            await goes_on(world, url, key)
            await goes_on(world, url, key)
            edit = asyncio.ensure_future(changed(world, "while"))
            assert not edit.done()
    await edit


@pytest.mark.postgres
@pytest.mark.parametrize("fault", FAULTS)
async def test_what_needs_a_slow_postgresql_is_told_at_its_deadline_and_nothing_is_half_written(
    tmp_path: Path, postgres: "Postgres", monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    async with slow(tmp_path, postgres, monkeypatch, fault, 1) as (world, _, _, settings):
        with anyio.fail_after(60):
            with pytest.raises(StorageUnavailable):
                await changed(world, "while")
            with pytest.raises(StorageUnavailable):
                await names(world)
            with pytest.raises(StorageUnavailable):
                async with gateway(tmp_path / "second", **settings):
                    pass


async def test_a_locked_sqlite_file_costs_known_calls_nothing_and_tells_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.app.open_database", partial(open_database, busy_s=0.1))
    async with Hostile() as upstream, gateway(tmp_path) as world, served(world) as url:
        key = await made(world, upstream, url)
        with closing(sqlite3.connect(tmp_path / "registry.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await goes_on(world, url, key)
            async with http(url, key) as client:
                assert (await client.get("/v1/acme/integrations")).json()["total"] == 1
            with pytest.raises(StorageUnavailable, match="locked"):
                await changed(world, "while")
            async with gateway(tmp_path) as second:  # a restart: what it needs is there
                assert await second.call("sy_read") == "fine"
        await changed(world, "after")
        assert await names(world) == ["after", "sy"]
