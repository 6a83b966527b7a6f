"""Limits of calls through the gateway: what is refused never reaches the upstream, and one's load is not another's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.upstreams import Hostile, Received, answer
from tests.world import World, gateway
from tools.callers import Caller, local_caller
from tools.parsing import parse_update

pytestmark = pytest.mark.anyio


class Held:
    """An upstream's step that answers when it is let go."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> bool:
        await self.gate.wait()
        return await answer(200, b"done")(request, writer)


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


def body(name: str, upstream: Hostile, **fields: object) -> dict[str, object]:
    read = {"name": "read", "description": "d", "method": "GET", "path": f"/{name}"}
    return {"name": name, "display_name": name, "base_url": upstream.url, "endpoints": [read], **fields}


async def call(world: World, tool: str, caller: Caller | None = None) -> str:
    return (await world.app.toolbox.call(caller or world.owner, tool, {})).text


async def test_a_call_over_the_limit_waits_for_its_turn(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path, integration_concurrency=1, slot_wait=60) as world:
        await world.create(body("sy", upstream))
        held = Held()
        upstream.script("/sy", held)
        calls = [asyncio.ensure_future(call(world, "sy_read")) for _ in range(3)]
        await upstream.until(lambda: len(upstream.received) == 1)
        assert upstream.open == 1
        held.gate.set()
        assert await asyncio.gather(*calls) == ["done"] * 3
        assert upstream.connections == 1


async def test_what_is_changed_while_an_approved_call_waits_for_a_slot_is_not_sent(
    tmp_path: Path, upstream: Hostile
) -> None:
    """Rules J14: the wait can be long, and what was approved is the integration as it was."""
    async with gateway(tmp_path, integration_concurrency=1, slot_wait=60) as world:
        write = {"name": "write", "description": "d", "method": "POST", "path": "/w", "approval_policy": "all"}
        made = body("sy", upstream)
        await world.create({**made, "endpoints": [*made["endpoints"], write]})  # pyright: ignore[reportGeneralTypeIssues]
        held = Held()
        upstream.script("/sy", held)
        reading = asyncio.ensure_future(call(world, "sy_read"))
        await upstream.until(lambda: len(upstream.received) == 1)
        await call(world, "sy_write")
        (asked,) = await world.app.approval_admin.list(world.owner)
        await world.app.approval_admin.approve(world.owner, asked.id)
        writing = asyncio.ensure_future(call(world, "sy_write"))
        while await world.app.approval_admin.list(world.owner):  # noqa: ASYNC110 - taking one raises no event here
            await asyncio.sleep(0)  # until the approval is taken: then it waits for the slot
        await world.app.admin.update(world.owner, "sy", parse_update({"display_name": "Other"}, "sy"))
        held.gate.set()
        assert await reading == "done"
        assert "was changed after this call was approved" in await writing
    assert [r.path for r in upstream.received] == ["/sy"]


async def test_who_finds_no_slot_is_refused_and_a_slow_upstream_takes_nobody_elses(
    tmp_path: Path, upstream: Hostile
) -> None:
    async with gateway(tmp_path, integration_concurrency=2, slot_wait=0) as world:
        await world.create(body("slow", upstream))
        await world.create(body("fast", upstream))
        held = Held()
        upstream.script("/slow", held)
        upstream.script("/fast", answer(200, b"quick"))
        running = [asyncio.ensure_future(call(world, "slow_read")) for _ in range(2)]
        await upstream.until(lambda: len(upstream.received) == 2)
        text = await call(world, "slow_read")
        assert "2 calls of this integration run at once" in text
        assert "[too_many_calls]" in text
        assert await call(world, "fast_read") == "quick"
        assert [r.path for r in upstream.received] == ["/slow", "/slow", "/fast"]
        held.gate.set()
        assert await asyncio.gather(*running) == ["done", "done"]
        assert await call(world, "slow_read") == "done"


async def test_a_cancelled_call_gives_its_slots_back(tmp_path: Path, upstream: Hostile) -> None:
    limits = {"integration_concurrency": 1, "workspace_concurrency": 1, "key_concurrency": 1}
    async with gateway(tmp_path, slot_wait=0, **limits) as world:
        await world.create(body("sy", upstream))
        upstream.script("/sy", Held(), answer(200, b"done"))
        running = asyncio.ensure_future(call(world, "sy_read"))
        await upstream.until(lambda: len(upstream.received) == 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert await call(world, "sy_read") == "done"


async def test_an_integrations_own_limit_is_the_lower_one(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path, integration_rate="100/h") as world:
        await world.create(body("sy", upstream, limits={"rate": "2/h"}))
        await world.create(body("wide", upstream, limits={"rate": "1000/s", "concurrency": 9}))
        for path in ("/sy", "/wide"):
            upstream.script(path, answer(200, b"done"))
        said = [await call(world, "sy_read") for _ in range(3)]
        assert said[:2] == ["done", "done"]
        assert said[2].startswith('Not sent: calls of integration "sy" are limited to 2 in 3600 s.')
        assert "Wait 1" in said[2]  # 1,800 s less what has passed
        said = [await call(world, "wide_read") for _ in range(101)]
        assert said[:100] == ["done"] * 100
        assert "limited to 100 in 3600 s" in said[100]
        assert len(upstream.received) == 102


async def test_a_key_over_its_rate_leaves_the_others_alone_and_refusals_count_nowhere(
    tmp_path: Path, upstream: Hostile
) -> None:
    async with gateway(tmp_path, key_rate="2/h", workspace_rate="3/h") as world:
        await world.create(body("sy", upstream))
        upstream.script("/sy", answer(200, b"done"))
        one, two = await caller_of_a_key(world), await caller_of_a_key(world)
        said = [await call(world, "sy_read", one) for _ in range(4)]
        assert said[:2] == ["done", "done"]
        assert all("calls with this key are limited to 2 in 3600 s" in text for text in said[2:])
        assert await call(world, "sy_read", two) == "done"
        assert "calls of this workspace are limited to 3 in 3600 s" in await call(world, "sy_read", two)
        assert len(upstream.received) == 3


async def caller_of_a_key(world: World) -> Caller:
    return await world.app.keys.caller(await world.key("member"), "127.0.0.1")


async def test_an_accepted_background_call_runs_however_full_it_is(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path, integration_concurrency=1, slot_wait=0, queue_wait=30) as world:
        made = body("sy", upstream)
        export = {"name": "export", "description": "d", "method": "GET", "path": "/export", "result_delivery": "queue"}
        await world.create({**made, "endpoints": [*made["endpoints"], export]})  # type: ignore[misc]
        held = Held()
        upstream.script("/sy", held)
        upstream.script("/export", answer(200, b"exported"))
        running = asyncio.ensure_future(call(world, "sy_read"))
        await upstream.until(lambda: len(upstream.received) == 1)
        queued = asyncio.ensure_future(call(world, "sy_export"))
        lanes = world.app.gateway.traffic.integrations
        async with asyncio.timeout(10):
            while not lanes.waiting:  # noqa: ASYNC110 - the worker claims it when it likes
                await asyncio.sleep(0)
        held.gate.set()
        assert await running == "done"
        assert await queued == "exported"


async def test_the_local_user_is_limited_like_a_key(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path, key_rate="1/h") as world:
        await world.create(body("sy", upstream))
        upstream.script("/sy", answer(200, b"done"))
        assert await call(world, "sy_read", local_caller("acme")) == "done"
        assert "[too_many_calls]" in await call(world, "sy_read", local_caller("acme"))
