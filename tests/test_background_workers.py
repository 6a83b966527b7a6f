"""Workers of background calls: leases, takeovers after a crash, and what an operator does from the shell (rules F2, J14)."""

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from server.background import LEASE, Worker
from tests.processes import run, running
from tests.test_background import DONE, JSON, Gate, arrived, begins_nothing, ended, handle, keys, settings, write
from tests.upstreams import Hostile, answer
from tests.world import World, gateway
from tools.background import News
from tools.call import CallContext
from tools.history import CallQuery

pytestmark = pytest.mark.anyio


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


@dataclass
class Clock:
    """Now, as far as the leases know. `at` moves as time passes; `step` sets the clock."""

    at: datetime
    stepped: timedelta = timedelta()

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - self.stepped).timestamp()

    def step(self, by: timedelta) -> None:
        self.at += by
        self.stepped += by


@asynccontextmanager
async def worker(world: World, clock: Clock) -> AsyncGenerator[Worker, None]:
    """A process of its own, as far as the registry knows; it looks and beats only when it is told to."""
    app = world.app
    parts = (app.background, app.gateway, app.catalogs, app.key_store, News(), app.history.call)
    made = Worker(*parts, now=clock.now, clock=clock.monotonic)
    try:
        yield made
    finally:
        await made.abandon()


async def begun(world: World, upstream: Hostile, clock: Clock, owner: Worker) -> str:
    """The handle of a write that may be repeated, which `owner` has begun and the upstream has got."""
    await begins_nothing(world)
    id = handle(await world.call(await write(world, upstream, annotations={"idempotentHint": True})))
    clock.at = datetime.now(UTC)
    await owner.look()
    await arrived(upstream)
    return id


async def claims(world: World, id: str) -> int:
    """How often a process took the call, at once after `look`: its request leaves later."""
    call = await world.app.background.find(world.owner.workspace, id)
    assert call is not None
    return call.attempts


@pytest.mark.parametrize(("hint", "said"), [(True, "rows"), (None, "It MAY have been carried out")])
async def test_the_calls_of_a_dead_process_are_taken_over_when_its_lease_ends(
    tmp_path: Path, upstream: Hostile, hint: bool | None, said: str
) -> None:
    gate, clock = Gate(), Clock(datetime.now(UTC))
    upstream.script("/export", gate.step(200, b'{"late": true}'), answer(200, DONE, JSON))
    async with gateway(tmp_path, **settings()) as world, worker(world, clock) as dead, worker(world, clock) as other:
        await begins_nothing(world)
        tool = await write(world, upstream, **({} if hint is None else {"annotations": {"idempotentHint": hint}}))
        id = handle(await world.call(tool))
        clock.at = datetime.now(UTC)
        await dead.look()
        await arrived(upstream)
        await other.look()
        assert await claims(world, id) == 1
        clock.at += LEASE
        await other.look()
        outcome = await ended(world, id)
        assert said in outcome.text
        assert len(upstream.received) == (2 if hint else 1)
        assert len(keys(upstream.received)) == 1
        gate.open.set()  # the first process wasn't dead, only slow: its answer comes too late
        await dead.drain(10)
        assert (await ended(world, id)).text == outcome.text


async def test_a_lease_that_is_renewed_is_nobody_elses(tmp_path: Path, upstream: Hostile) -> None:
    gate, clock = Gate(), Clock(datetime.now(UTC))
    upstream.script("/export", gate.step())
    async with gateway(tmp_path, **settings()) as world, worker(world, clock) as mine, worker(world, clock) as other:
        id = await begun(world, upstream, clock, mine)
        for _ in range(3):
            clock.at += LEASE - timedelta(seconds=1)
            await mine.beat()
            await other.look()
        gate.open.set()
        assert json.loads((await ended(world, id)).text) == json.loads(DONE)
    assert len(upstream.received) == 1


async def test_a_call_that_is_being_claimed_when_the_server_ends_is_still_run(
    tmp_path: Path, upstream: Hostile
) -> None:
    upstream.script("/export", answer(200, DONE, JSON))
    clock, claimed, go_on = Clock(datetime.now(UTC)), asyncio.Event(), asyncio.Event()
    async with gateway(tmp_path, **settings()) as world, worker(world, clock) as mine:
        await begins_nothing(world)
        queue: Any = mine._queue  # pyright: ignore[reportPrivateUsage] - between its two steps the claim is held

        class Slow:
            def __getattr__(self, name: str) -> Any:
                return getattr(queue, name)

            async def claim(self, *given: Any, **named: Any) -> Any:
                calls = await queue.claim(*given, **named)
                claimed.set()
                await go_on.wait()
                return calls

        mine._queue = Slow()  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
        id = handle(await world.call(await write(world, upstream)))
        clock.at = datetime.now(UTC)
        looking = asyncio.ensure_future(mine.look())
        await claimed.wait()
        draining = asyncio.ensure_future(mine.drain(10))
        await asyncio.sleep(0)
        go_on.set()
        await draining
        assert len(upstream.received) == 1  # what is cut off now was sent and answered
        await looking
        assert json.loads((await ended(world, id)).text) == json.loads(DONE)


@pytest.mark.parametrize("hours", [5, -5])
async def test_a_call_whose_process_lives_is_nobody_elses_through_a_step_of_the_clock(
    tmp_path: Path, upstream: Hostile, hours: int
) -> None:
    """A repeat would be allowed here, so a takeover would be seen as a second request."""
    gate, clock = Gate(), Clock(datetime.now(UTC))
    upstream.script("/export", gate.step(), answer(200, b'"twice"', JSON))
    async with gateway(tmp_path, **settings()) as world, worker(world, clock) as mine, worker(world, clock) as other:
        id = await begun(world, upstream, clock, mine)
        clock.step(timedelta(hours=hours))
        await mine.look()  # by a change of another call, before the next beat
        await other.look()
        for _ in range(4):
            await mine.beat()
            clock.at += LEASE / 3
            await other.look()
            await mine.look()
        clock.step(timedelta(hours=-hours))
        await other.look()
        await mine.beat()
        gate.open.set()
        await mine.drain(10)
        clock.at = datetime.now(UTC)
        assert json.loads((await ended(world, id)).text) == json.loads(DONE)
    assert len(upstream.received) == 1


@pytest.mark.parametrize("hours", [5, -5])
async def test_a_dead_process_s_call_is_taken_over_one_lease_after_a_step_of_the_clock(
    tmp_path: Path, upstream: Hostile, hours: int
) -> None:
    """Also where its lease lies hours ahead by the clock that was set back."""
    gate, clock = Gate(), Clock(datetime.now(UTC))
    upstream.script("/export", gate.step(), answer(200, DONE, JSON))
    async with gateway(tmp_path, **settings()) as world, worker(world, clock) as dead, worker(world, clock) as other:
        id = await begun(world, upstream, clock, dead)
        clock.at += LEASE  # both run for longer than a lease, so what holds right after a start doesn't any more
        await dead.beat()
        clock.step(timedelta(hours=hours))
        await other.look()
        assert await claims(world, id) == 1
        clock.at += LEASE
        await other.look()
        await other.drain(10)
        assert json.loads((await ended(world, id)).text) == json.loads(DONE)
        assert len(upstream.received) == 2
        assert len(keys(upstream.received)) == 1


async def test_after_a_crash_a_write_is_not_repeated_against_a_changed_integration(
    tmp_path: Path, upstream: Hostile
) -> None:
    gate, clock = Gate(), Clock(datetime.now(UTC))
    upstream.script("/export", gate.step(), answer(200, DONE, JSON))
    async with gateway(tmp_path, **settings()) as world, worker(world, clock) as dead, worker(world, clock) as other:
        id = await begun(world, upstream, clock, dead)
        changed = {"integration": "clinic", "display_name": "Clinic two"}
        assert "Clinic two" in await world.call("update_integration", **changed)
        clock.at += LEASE
        await other.look()
        assert "It MAY have been carried out" in (await ended(world, id)).text
    assert len(upstream.received) == 1


async def test_a_call_that_needs_approval_is_sent_once_approved_and_never_again_after_a_crash(
    tmp_path: Path, upstream: Hostile
) -> None:
    gate, clock = Gate(), Clock(datetime.now(UTC))
    upstream.script("/export", gate.step(), answer(200, DONE, JSON))
    async with gateway(tmp_path, **settings()) as world, worker(world, clock) as dead, worker(world, clock) as other:
        await begins_nothing(world)
        tool = await write(world, upstream, annotations={"idempotentHint": True}, approval_policy="writes")
        first = handle(await world.call(tool))
        clock.at = datetime.now(UTC)
        await dead.look()
        asked = await ended(world, first)
        assert asked.text.startswith("Not sent: a person must approve this call first")
        assert upstream.received == []
        [waiting] = await world.app.approval_admin.list(world.owner)
        await world.app.approval_admin.approve(world.owner, waiting.id)
        second = handle(await world.call(tool))
        await dead.look()
        await arrived(upstream)
        clock.at += LEASE
        await other.look()
        assert "It MAY have been carried out" in (await ended(world, second)).text
    assert len(upstream.received) == 1


async def test_a_call_whose_process_was_killed_is_ended_by_another_with_the_same_key(
    tmp_path: Path, upstream: Hostile
) -> None:
    gate = Gate()
    upstream.script("/export", gate.step(), answer(200, DONE, JSON))
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream, annotations={"idempotentHint": True})
    env = {
        "INTEGRATIONS_MCP_ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8",
        "INTEGRATIONS_MCP_QUEUE_WAIT": "0",
        "INTEGRATIONS_MCP_WORKSPACE": "acme",
    }
    with running(tmp_path, "stdio", env=env) as process:
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        process.write(_line("initialize", hello, 1) + _line("notifications/initialized", {}))
        await anyio.to_thread.run_sync(process.json_line)
        process.write(_line("tools/call", {"name": tool, "arguments": {}}, 2))
        while (told := await anyio.to_thread.run_sync(process.json_line)).get("id") != 2:
            pass  # that the list changed
        id = handle(told["result"]["content"][0]["text"])
        await arrived(upstream)
        process.send(signal.SIGKILL)
        await anyio.to_thread.run_sync(process.end)
    async with gateway(tmp_path, **settings()) as world:
        still = await world.app.toolbox.call(world.owner, "get_result", {"result_id": id})
        assert still.text.startswith("Still running")
        async with worker(world, Clock(datetime.now(UTC) + LEASE)) as next_one:
            await next_one.look()
            assert json.loads((await ended(world, id)).text) == json.loads(DONE)
    assert len(upstream.received) == 2
    assert len(keys(upstream.received)) == 1


def _line(method: str, params: dict[str, Any], id: int | None = None) -> str:
    message = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(message if id is None else {**message, "id": id}) + "\n"


async def test_the_history_of_a_background_call_names_the_request_that_brought_it(
    tmp_path: Path, upstream: Hostile
) -> None:
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream)
        upstream.script("/w", answer(200, b'"done"', JSON))
        context = CallContext(request_id="req_of_mine")
        id = handle((await world.app.toolbox.call(world.owner, tool, {"report": "r"}, context)).text)
        await ended(world, id)
        call = await world.app.background.find("acme", id)
        assert call is not None
        assert call.request_id == "req_of_mine"
        [row] = await world.app.history.calls("acme", CallQuery(10, request_id="req_of_mine"))
        assert (row.call_id, row.tool) == (id, tool)


async def test_an_operator_lists_shows_and_cancels_calls(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path, **settings()) as world:
        await begins_nothing(world)
        tool = await write(world, upstream)
        id = handle(await world.call(tool, report="secret-report"))

    async def shell(*words: str) -> Any:
        return await anyio.to_thread.run_sync(lambda: run(tmp_path, "calls", *words, "--workspace", "acme"))

    listed, shown = await asyncio.gather(shell("list", "--json"), shell("show", id))
    [row] = json.loads(listed.stdout)
    assert (row["call_id"], row["tool"], row["caller"], row["state"]) == (id, tool, "local", "accepted")
    assert "secret-report" not in listed.stdout + shown.stdout
    assert f"call_id      {id}\n" in shown.stdout
    cancelled = await shell("cancel", id)
    assert (cancelled.returncode, cancelled.stderr) == (0, f"cancelled {id}; it had not begun\n")
    again, absent, wrong = await asyncio.gather(
        shell("cancel", id), shell("cancel", "c_nobody"), shell("list", "--state", "gone")
    )
    assert (again.returncode, again.stderr) == (1, f"{id} has ended already: cancelled\n")
    assert (absent.returncode, wrong.returncode) == (1, 2)
    assert "There is no background call c_nobody" in absent.stderr
    async with gateway(tmp_path, **settings()) as world:
        told = await world.call("get_result", result_id=id)
    assert told == f"Call {id} of {tool} was cancelled before it began. Nothing was sent. [cancelled]"
    assert upstream.received == []
