"""Servers that were down when their integration was written: who knows a tool's name gets it called, and what is down isn't hammered."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tests.mcp_upstreams import lowlevel
from tests.world import World, gateway, listening

pytestmark = pytest.mark.anyio


@pytest.fixture
def port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def written(home: Path, port: int, **body: Any) -> None:
    """An integration whose server isn't there yet; the gateway that wrote it has ended."""
    async with gateway(home) as world:
        where = {"protocol": "mcp", "mcp_transport": "http", "mcp_url": f"http://127.0.0.1:{port}/mcp"}
        await world.create({"name": "up", "display_name": "Up", **where, **body})


@asynccontextmanager
async def upstream(port: int) -> AsyncGenerator[None, None]:
    app = lowlevel.app()
    config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
    async with listening(app, config, port):
        yield
        for stream in lowlevel.listening:
            stream.close()


async def listed(world: World) -> list[str]:
    page, _ = await world.app.toolbox.page(world.owner, None)
    return [e["name"] for e in page]


async def test_a_tool_of_a_server_that_is_there_by_now_is_called_by_its_name(tmp_path: Path, port: int) -> None:
    await written(tmp_path, port)
    async with upstream(port), gateway(tmp_path) as world:
        assert await world.call("up_add", a=1, b=2) == '{"sum":3}'
        assert "up_add" in await listed(world)
        assert "up_add" in await world.call("up_ad")  # did you mean


async def test_the_first_list_has_the_tools_of_a_server_that_is_there_by_now(tmp_path: Path, port: int) -> None:
    await written(tmp_path, port)
    async with upstream(port), gateway(tmp_path) as world:
        assert "up_add" in await listed(world)


async def test_an_endpoint_of_the_operators_is_found_too(tmp_path: Path, port: int) -> None:
    endpoint = {"name": "plus", "description": "", "path": "add"}
    await written(tmp_path, port, endpoints=[endpoint])
    async with upstream(port), gateway(tmp_path) as world:
        assert await world.call("up_plus", a=1, b=2) == '{"sum":3}'


async def test_a_server_that_is_down_is_what_the_error_says_and_it_is_not_hammered(tmp_path: Path, port: int) -> None:
    await written(tmp_path, port)
    connections: list[object] = []

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.close()

    async with gateway(tmp_path) as world:
        refused = await world.app.toolbox.call(world.owner, "up_add", {})
        assert refused.text == (
            "Not sent: no connection to the up's server could be made. Nothing was changed. The same call can be repeated later; if it "
            "goes on, tell the user. [upstream_unreachable]"
        )
        (row,) = (await world.app.registry.load("acme"))[1]
        assert row.upstream_tools is None
        elsewhere = await world.app.toolbox.call(world.owner, "other_add", {})
        assert elsewhere.text.endswith("[unknown_tool]")
    server = await asyncio.start_server(hangs_up, "127.0.0.1", port)
    async with server, gateway(tmp_path) as world:
        world.app.gateway.first._clock = lambda: 0.0  # pyright: ignore[reportPrivateUsage] - the pause isn't over in this test
        outcomes = await asyncio.gather(*(world.app.toolbox.call(world.owner, "up_add", {}) for _ in range(20)))
        assert {o.error.full_code for o in outcomes if o.error} == {"upstream_unreachable"}
        one_try = len(connections)
        for _ in range(20):
            await world.app.toolbox.call(world.owner, "up_add", {})
            await listed(world)
        assert one_try <= 2, "the probe of the new era, and the handshake"
        assert len(connections) == one_try


async def test_a_caller_who_may_not_use_it_makes_nobody_ask(tmp_path: Path, port: int) -> None:
    await written(tmp_path, port)
    async with gateway(tmp_path) as world:
        asked: list[str] = []
        world.app.gateway.first._read = lambda i: _note(asked, i.name)  # pyright: ignore[reportPrivateUsage] - counts what would leave
        for narrowed in (
            replace(world.owner, integrations=frozenset({"another"})),
            replace(world.owner, tools=frozenset({"up_other"})),
            replace(world.owner, permissions=frozenset({"Integration.view"})),
        ):
            assert "[unknown_tool]" in (await world.app.toolbox.call(narrowed, "up_add", {})).text
        assert asked == []
        await world.app.toolbox.call(world.owner, "up_add", {})
        assert asked == ["up"]


async def _note(asked: list[str], name: str) -> None:
    asked.append(name)


async def test_the_generic_tools_of_a_fhir_server_are_found_the_same_way(tmp_path: Path, port: int) -> None:
    base = f"http://127.0.0.1:{port}/fhir"
    fhir = {"protocol": "fhir", "base_url": base, "mcp_transport": None, "mcp_url": None}
    await written(tmp_path, port, **fhir)
    statement = b"""{"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "status": "active", "kind": "instance",
        "format": ["json"], "rest": [{"mode": "server", "resource": [{"type": "Patient",
        "interaction": [{"code": "read"}, {"code": "search-type"}]}]}]}"""
    patient = b'{"resourceType": "Patient", "id": "1", "gender": "female"}'

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = statement if scope["path"].endswith("/metadata") else patient
        headers = [(b"content-type", b"application/fhir+json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async with listening(app, port=port), gateway(tmp_path) as world:
        assert "female" in await world.call("up_read", resource_type="Patient", id="1")
