"""One request is found at each step: the answer's header, the log's line, the history's row and the attempts have the same ids."""

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.upstreams import Hostile, answer
from tests.world import World, gateway, http, served

pytestmark = pytest.mark.anyio
JSON = {"Content-Type": "application/json"}
ARGUMENT = "patient-4711"


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        server.script("/x", answer(503, headers={"Retry-After": "0"}), answer(200, b"1", JSON), answer(404))
        yield server


def lines(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [r.__dict__["fields"] for r in caplog.records if r.name == "integrations_mcp" and r.message == event]


@pytest.mark.parametrize("door", ["fast path", "sdk", "rest"])
async def test_a_call_has_the_same_ids_everywhere(
    tmp_path: Path, upstream: Hostile, caplog: pytest.LogCaptureFixture, door: str
) -> None:
    caplog.set_level(logging.DEBUG, "integrations_mcp")
    async with gateway(tmp_path, fast_path=door == "fast path") as world:
        await shop(world, upstream)
        async with served(world, sessions=False) as url, http(url, await world.key()) as client:
            for mine, ended in (({"X-Request-Id": "mine-1"}, "call"), ({}, "call failed")):
                got = await call(client, door, mine)
                id = got.headers["x-request-id"]
                assert id == mine.get("X-Request-Id", id)
                (line,) = lines(caplog, ended)
                assert line["request_id"] == id
                (row,) = (await client.get("/v1/acme/calls", params={"request_id": id})).json()["items"]
                assert row["request_id"] == id
                assert line["call_id"] == row["call_id"]
                assert row["call_id"] in got.text or door == "rest"
                assert len(line["attempts"]) == row["attempts"]
    assert [a.partition(" in ")[0] for a in lines(caplog, "call")[0]["attempts"]] == ["503", "200"]
    assert lines(caplog, "call failed")[0]["outcome"] == "upstream_404"
    assert ARGUMENT not in caplog.text + repr([r.__dict__ for r in caplog.records])
    # The ids are ours and the caller's: systems get none.
    assert all("mine-1" not in repr(r.headers) for r in upstream.received)
    assert len(upstream.received) == 3


async def test_at_info_only_failures_are_told(
    tmp_path: Path, upstream: Hostile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "integrations_mcp")
    async with gateway(tmp_path) as world:
        await shop(world, upstream)
        for _ in range(2):
            await world.call("shop_get", q=ARGUMENT)
    assert lines(caplog, "call") == []
    assert len(lines(caplog, "call failed")) == 1


async def shop(world: World, upstream: Hostile) -> None:
    get = {
        "name": "get",
        "description": "d",
        "method": "GET",
        "path": "/x",
        "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}},
        "retry_config": {"max_retries": 1, "retry_on_status": [503]},
    }
    await world.create({"name": "shop", "display_name": "Shop", "base_url": upstream.url, "endpoints": [get]})


async def call(client: Any, door: str, headers: dict[str, str]) -> Any:
    if door == "rest":
        path = "/v1/acme/integrations/shop/endpoints/get/test"
        return await client.post(path, json={"params": {"q": ARGUMENT}}, headers=headers)
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    body["params"] = {"name": "shop_get", "arguments": {"q": ARGUMENT}}
    accept = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
    got = await client.post("/mcp", json=body, headers={**accept, **headers})
    assert json.loads(got.text.partition("data: ")[2] or got.text)["result"]
    return got
