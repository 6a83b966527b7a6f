"""Approval of an MCP upstream's tools: its own hints spare nobody the question."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tests.mcp_upstreams import lowlevel
from tests.world import World, gateway, listening

pytestmark = pytest.mark.anyio


@pytest.fixture
async def url() -> AsyncGenerator[str, None]:
    lowlevel.seen.clear()
    app = lowlevel.app()
    async with listening(app, uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1)) as made:
        yield made
        for stream in lowlevel.listening:
            stream.close()


@pytest.fixture
async def world(tmp_path: Path, url: str) -> AsyncGenerator[World, None]:
    async with gateway(tmp_path) as made:
        yield made


async def connect(world: World, url: str, **more: Any) -> None:
    where = {"mcp_transport": "http", "mcp_url": f"{url}/mcp"}
    await world.create(
        {"name": "up", "display_name": "Up", "protocol": "mcp", "approval_policy": "writes", **where, **more}
    )


async def test_an_upstream_that_calls_its_tool_read_only_is_asked_for_all_the_same(world: World, url: str) -> None:
    await connect(world, url)
    assert "[approval_required]" in await world.call("up_records")
    assert lowlevel.seen == []
    (waits,) = await world.app.approval_admin.list(world.owner)
    assert waits.body is not None
    assert '"name":"records"' in waits.body
    await world.app.approval_admin.approve(world.owner, waits.id)
    assert "approval" not in await world.call("up_records")
    assert len(lowlevel.seen) == 1
    assert "[approval_required]" in await world.call("up_records")
    assert len(lowlevel.seen) == 1


async def test_the_operators_own_read_only_hint_counts(world: World, url: str) -> None:
    own = {"name": "records", "description": "Reads.", "path": "records", "annotations": {"readOnlyHint": True}}
    await connect(world, url, endpoints=[own])
    assert "approval" not in await world.call("up_records")
    assert len(lowlevel.seen) == 1
