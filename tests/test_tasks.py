"""The tasks extension: a background call as a task, for the clients that take tasks and for nobody else (rules F2, H4)."""

import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from tests.test_background import DONE, JSON, Gate, arrived, begins_nothing, handle, settings, write
from tests.upstreams import Hostile, answer, silence
from tests.world import World, gateway, http, served

pytestmark = pytest.mark.anyio
TASKS = "io.modelcontextprotocol/tasks"
TERMINAL = {"completed", "failed", "cancelled"}
_ids = itertools.count(1)


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


@dataclass
class Peer:
    """A client of 2026-07-28 that speaks for itself; `takes_tasks` as its requests declare it."""

    client: httpx2.AsyncClient
    takes_tasks: bool = True

    async def ask(self, method: str, name: str, params: dict[str, Any], **meta: Any) -> dict[str, Any]:
        """The whole answer. `name` goes into Mcp-Name."""
        said = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {"extensions": {TASKS: {}}} if self.takes_tasks else {},
            "io.modelcontextprotocol/clientInfo": {"name": "peer", "version": "1"},
            **meta,
        }
        body = {"jsonrpc": "2.0", "id": next(_ids), "method": method, "params": {**params, "_meta": said}}
        headers = {
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": method,
            "Mcp-Name": name,
            "Accept": "application/json, text/event-stream",
        }
        async with self.client.stream("POST", "/mcp", json=body, headers=headers) as answered:
            text = (await answered.aread()).decode()
        if answered.headers["content-type"].startswith("text/event-stream"):
            text = next(line for line in reversed(text.splitlines()) if line.startswith("data:")).removeprefix("data:")
        told: dict[str, Any] = httpx2.Response(200, text=text).json()
        return {**told, "status": answered.status_code}

    async def call(self, tool: str, **meta: Any) -> dict[str, Any]:
        return (await self.ask("tools/call", tool, {"name": tool, "arguments": {}}, **meta))["result"]

    async def task(self, method: str, id: str) -> dict[str, Any]:
        more = {"inputResponses": {"never-asked": {"action": "accept"}}} if method == "tasks/update" else {}
        return await self.ask(method, id, {"taskId": id, **more})

    async def until(self, id: str, statuses: set[str]) -> dict[str, Any]:
        with anyio.fail_after(20):
            while True:
                task = (await self.task("tasks/get", id))["result"]
                if task["status"] in statuses:
                    return task
                await anyio.sleep(0.02)


@asynccontextmanager
async def peer(world: World, url: str, *, takes_tasks: bool = True) -> AsyncGenerator[Peer, None]:
    async with http(url, await world.key("agent")) as client:
        yield Peer(client, takes_tasks)


@pytest.mark.parametrize("meta", [{}, {"progressToken": 1}], ids=["fast path", "SDK"])
async def test_a_slow_call_is_a_task_whose_result_is_the_one_of_get_result(
    tmp_path: Path, upstream: Hostile, meta: dict[str, Any]
) -> None:
    gate = Gate()
    upstream.script("/export", gate.step())
    async with gateway(tmp_path, **settings()) as world, served(world) as url, peer(world, url) as client:
        made = await client.call(await write(world, upstream), **meta)
        assert (made["resultType"], made["status"], made["ttlMs"]) == ("task", "working", 24 * 3600 * 1000)
        assert made["pollIntervalMs"] == 1000
        await arrived(upstream)
        gate.open.set()
        done = await client.until(made["taskId"], TERMINAL)
        assert (done["resultType"], done["status"]) == ("complete", "completed")
        kept = await client.ask(
            "tools/call", "get_result", {"name": "get_result", "arguments": {"result_id": made["taskId"]}}
        )
        assert done["result"]["content"] == kept["result"]["content"]
        assert "r1" in done["result"]["content"][0]["text"]
        assert done["result"]["_meta"].items() <= kept["result"]["_meta"].items()
        assert (await client.call("clinic_export"))["taskId"] != made["taskId"]  # ended: the next one is another call


async def test_a_quick_answer_and_a_client_that_takes_no_tasks_get_no_task(tmp_path: Path, upstream: Hostile) -> None:
    gate = Gate()
    upstream.script("/export", answer(200, DONE, JSON), gate.step())
    async with (
        gateway(tmp_path, queue_wait=1, grace_seconds=0) as world,
        served(world) as url,
        peer(world, url) as client,
        peer(world, url, takes_tasks=False) as other,
    ):
        tool = await write(world, upstream)
        quick = await client.call(tool)
        assert (quick["resultType"], quick.get("taskId")) == ("complete", None)
        slow = await other.call(tool)
        assert slow["resultType"] == "complete"
        id = handle(slow["content"][0]["text"])
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            refused = await other.task(method, id)
            assert refused["error"]["code"] == -32021
            assert refused["error"]["data"] == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
        gate.open.set()


async def test_a_task_is_its_callers_own(tmp_path: Path, upstream: Hostile) -> None:
    gate = Gate()
    upstream.script("/export", gate.step())
    async with (
        gateway(tmp_path, **settings()) as world,
        served(world) as url,
        peer(world, url) as client,
        peer(world, url) as other,
    ):
        id = (await client.call(await write(world, upstream)))["taskId"]
        unknown = (await other.task("tasks/get", "c_nothing"))["error"]
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            assert (await other.task(method, id))["error"] == unknown
        assert unknown["code"] == -32602
        assert (await client.task("tasks/update", id))["result"]["resultType"] == "complete"
        mismatched = await client.ask("tasks/get", "c_nothing", {"taskId": id})
        assert (mismatched["status"], mismatched["error"]["code"]) == (400, -32020)
        gate.open.set()
        assert (await client.until(id, TERMINAL))["status"] == "completed"


async def test_cancelling_what_was_not_sent_sends_nothing_and_says_so(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path, **settings()) as world, served(world) as url, peer(world, url) as client:
        await begins_nothing(world)
        id = (await client.call(await write(world, upstream)))["taskId"]
        assert (await client.task("tasks/cancel", id))["result"]["resultType"] == "complete"
        task = (await client.task("tasks/get", id))["result"]
        assert (task["status"], "Nothing was sent" in task["statusMessage"]) == ("cancelled", True)
        assert (await client.task("tasks/cancel", id))["result"]["resultType"] == "complete"
    async with gateway(tmp_path, **settings()) as world:  # a process that would begin it
        async for _ in world.app.background.changes():
            break
        assert world.app.worker is not None
        await world.app.worker.look()
        assert upstream.received == []


async def test_cancelling_what_was_sent_cuts_it_off_and_says_that_it_may_have_been_carried_out(
    tmp_path: Path, upstream: Hostile
) -> None:
    upstream.script("/export", silence)
    async with gateway(tmp_path, **settings()) as world, served(world) as url, peer(world, url) as client:
        id = (await client.call(await write(world, upstream)))["taskId"]
        await arrived(upstream)
        await client.task("tasks/cancel", id)
        task = await client.until(id, TERMINAL)
        assert (task["status"], "MAY have been carried out" in task["statusMessage"]) == ("cancelled", True)
        await upstream.until(lambda: upstream.open == 0)
        assert len(upstream.received) == 1


async def test_older_eras_have_no_task_methods(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world, served(world, sessions=False) as url, http(url, await world.key()) as client:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"taskId": "c_x"}}
        headers = {"MCP-Protocol-Version": "2025-11-25", "Accept": "application/json, text/event-stream"}
        told = await client.post("/mcp", json=body, headers=headers)
        assert "-32601" in told.text
