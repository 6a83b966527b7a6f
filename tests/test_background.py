"""Queue endpoints from an agent's side: one upstream write however often it is called, answers that outlive everything (rules F2, H4)."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from server.auth import caller_of
from tests.upstreams import Hostile, Received, Step, answer, silence
from tests.world import World, gateway, http, served
from tools.call import CallContext
from tools.callers import Caller
from tools.outcome import Outcome

pytestmark = pytest.mark.anyio
JSON = {"Content-Type": "application/json"}
REFS = {"type": "object", "properties": {"report": {"type": "string"}}, "additionalProperties": False}
DONE = b'{"report": "r1", "rows": 3}'


class Gate:
    """An upstream that answers when the test opens it."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    def step(self, status: int = 200, body: bytes = DONE) -> Step:
        async def held(request: Received, writer: asyncio.StreamWriter) -> bool:
            await self.open.wait()
            return await answer(status, body, JSON)(request, writer)

        return held


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


@pytest.fixture
def gate(upstream: Hostile) -> Gate:
    gate = Gate()
    upstream.script("/export", gate.step())
    return gate


async def write(world: World, upstream: Hostile, **fields: Any) -> str:
    """An integration whose endpoint is run in the background; the tool's name."""
    endpoint = {
        "name": "export",
        "description": "Exports.",
        "method": "POST",
        "path": "/export",
        "input_schema": REFS,
        "result_delivery": "queue",
        **fields,
    }
    await world.create({"name": "clinic", "display_name": "Clinic", "base_url": upstream.url, "endpoints": [endpoint]})
    return "clinic_export"


def settings(**more: Any) -> dict[str, Any]:
    """Nobody waits: a call that hasn't ended is told to be running at once."""
    return {"queue_wait": 0, "grace_seconds": 0, **more}


def handle(text: str) -> str:
    found = re.search(r'get_result \{"result_id":"(c_\w+)"\}', text)
    assert found is not None, text
    return found[1]


async def arrived(upstream: Hostile, count: int = 1) -> None:
    await upstream.until(lambda: len(upstream.received) >= count)


async def ended(world: World, id: str, caller: Caller | None = None) -> Outcome:
    """The call's answer, as soon as there is one."""
    with anyio.fail_after(10):
        async for _ in world.app.background.changes():
            outcome = await world.app.toolbox.call(caller or world.owner, "get_result", {"result_id": id})
            if not outcome.text.startswith("Still running"):
                return outcome
    raise AssertionError("never ended")


async def begins_nothing(world: World) -> None:
    """What is accepted from here on is left to others."""
    assert world.app.worker is not None
    await world.app.worker.drain(0)


def keys(requests: Sequence[Received]) -> set[str | None]:
    return {r.header("idempotency-key") for r in requests}


# -- the conversation


async def test_a_quick_answer_is_given_as_any_other(tmp_path: Path, upstream: Hostile) -> None:
    upstream.script("/export", answer(200, DONE, JSON))
    async with gateway(tmp_path) as world:
        tool = await write(world, upstream)
        outcome = await world.app.toolbox.call(world.owner, tool, {"report": "r1"})
    assert json.loads(outcome.text) == json.loads(DONE)
    assert not outcome.is_error
    assert outcome.status == 200


async def test_a_slow_call_is_accepted_with_a_handle_and_goes_on(tmp_path: Path, upstream: Hostile, gate: Gate) -> None:
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream)
        outcome = await world.app.toolbox.call(world.owner, tool, {"report": "r1"})
        id = handle(outcome.text)
        assert not outcome.is_error
        assert re.fullmatch(
            rf"Accepted: the export is running \(call {id}, since \d\d:\d\d:\d\d UTC\) and goes on if you stop waiting. Do NOT call "
            rf"clinic_export again, that would start a second one. For the answer: get_result "
            rf'\{{"result_id":"{id}"\}} \(waits up to 40 s each time; done calls are kept 24 hours\).',
            outcome.text,
        )
        await arrived(upstream)
        still = await world.app.toolbox.call(world.owner, "get_result", {"result_id": id})
        assert re.fullmatch(
            r"Still running after \d+ s \(attempt 1\). Call get_result again, or do something else first.", still.text
        )
        assert not still.is_error
        gate.open.set()
        done = await ended(world, id)
        assert json.loads(done.text) == json.loads(DONE)
        again = await world.app.toolbox.call(world.owner, "get_result", {"result_id": id})
        assert again.text == done.text


async def test_get_result_waits_for_the_end(tmp_path: Path, upstream: Hostile, gate: Gate) -> None:
    async with gateway(tmp_path, **settings(queue_wait=30)) as world:
        tool = await write(world, upstream)
        calling = asyncio.ensure_future(world.app.toolbox.call(world.owner, tool, {}))
        await arrived(upstream)
        gate.open.set()
        with anyio.fail_after(10):
            assert json.loads((await calling).text) == json.loads(DONE)


async def test_the_same_call_while_it_runs_is_the_same_call_and_one_write(
    tmp_path: Path, upstream: Hostile, gate: Gate
) -> None:
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream)
        calls = [world.app.toolbox.call(world.owner, tool, {"report": "r1"}) for _ in range(8)]
        ids = {handle(outcome.text) for outcome in await asyncio.gather(*calls)}
        assert len(ids) == 1
        gate.open.set()
        await ended(world, ids.pop())
        assert len(upstream.received) == 1


async def test_other_arguments_another_caller_or_a_call_that_has_ended_are_other_calls(
    tmp_path: Path, upstream: Hostile, gate: Gate
) -> None:
    gate.open.set()
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream)
        other = caller_of((await world.app.keys.create("acme", role="owner")).row)
        made = [(world.owner, "r1"), (world.owner, "r2"), (other, "r1")]
        ids = [handle((await world.app.toolbox.call(c, tool, {"report": r})).text) for c, r in made]
        for id, (caller, _) in zip(ids, made, strict=True):
            await ended(world, id, caller)
        ids.append(handle((await world.app.toolbox.call(world.owner, tool, {"report": "r1"})).text))
        await ended(world, ids[-1])
        assert len(set(ids)) == 4
        assert len(keys(upstream.received)) == len(upstream.received) == 4


async def test_a_caller_who_stops_waiting_stops_nothing(tmp_path: Path, upstream: Hostile, gate: Gate) -> None:
    async with gateway(tmp_path, **settings(queue_wait=30)) as world:
        tool = await write(world, upstream)
        calling = asyncio.ensure_future(world.app.toolbox.call(world.owner, tool, {}))
        await arrived(upstream)
        calling.cancel()
        await asyncio.wait([calling])
        again = asyncio.ensure_future(world.app.toolbox.call(world.owner, tool, {}))
        gate.open.set()
        with anyio.fail_after(10):
            assert json.loads((await again).text) == json.loads(DONE)
        assert len(upstream.received) == 1


async def test_arguments_that_do_not_fit_are_refused_at_once(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream)
        outcome = await world.app.toolbox.call(world.owner, tool, {"raport": "r1"})
    assert outcome.error is not None
    assert outcome.error.code == "invalid_arguments"
    assert "did you mean report?" in outcome.text
    assert upstream.received == []


async def test_an_upstreams_refusal_is_the_answer_as_it_would_be_at_once(tmp_path: Path, upstream: Hostile) -> None:
    upstream.script("/export", answer(404, b'{"error": "no such report"}', JSON))
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream)
        outcome = await ended(world, handle((await world.app.toolbox.call(world.owner, tool, {})).text))
    assert outcome.is_error
    assert outcome.text.startswith("The clinic's server answered 404 Not Found to export")
    assert outcome.passed_on is not None
    assert outcome.passed_on["_meta"]["dev.integrations-mcp/error"]["code"] == "upstream_404"


async def test_a_long_answer_is_cut_and_read_on_by_the_same_handle(tmp_path: Path, upstream: Hostile) -> None:
    rows = [{"id": n, "name": f"name {n}"} for n in range(200)]
    upstream.script("/export", answer(200, json.dumps(rows).encode(), JSON))
    async with gateway(tmp_path, **settings(result_budget=1000)) as world:
        tool = await write(world, upstream)
        id = handle((await world.app.toolbox.call(world.owner, tool, {})).text)
        first = await ended(world, id)
        assert first.text.startswith("[Showing items 0-")
        assert f'get_result {{"result_id":"{id}","from":' in first.text
        found = await world.call("get_result", result_id=id, find="name 177")
        assert '"name 177"' in found


async def test_parts_of_a_short_answer_can_be_asked_for(tmp_path: Path, upstream: Hostile) -> None:
    upstream.script("/export", answer(200, b"alpha\nbeta\ngamma", {"Content-Type": "text/plain"}))
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream)
        id = handle((await world.app.toolbox.call(world.owner, tool, {})).text)
        await ended(world, id)
        found = await world.call("get_result", result_id=id, find="beta")
    assert "beta" in found
    assert "alpha" not in found


@pytest.mark.parametrize("who", ["another caller", "another workspace"])
async def test_a_call_is_its_callers_alone(tmp_path: Path, upstream: Hostile, who: str) -> None:
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream)
        id = handle((await world.app.toolbox.call(world.owner, tool, {})).text)
        await ended(world, id)
        other = replace(world.owner, id="key_2") if who == "another caller" else replace(world.owner, workspace="beta")
        told = await world.app.toolbox.call(other, "get_result", {"result_id": id})
        never = await world.app.toolbox.call(other, "get_result", {"result_id": "c_" + "x" * 12})
    assert told.text.replace(id, "ID") == never.text.replace("c_" + "x" * 12, "ID")
    assert told.text.startswith(f"No call {id} any more (done calls are kept 24 hours).")


# -- Idempotency-Key


async def test_a_callers_own_key_gives_the_same_call_also_when_it_has_ended(tmp_path: Path, upstream: Hostile) -> None:
    context = CallContext(idempotency_key="order-7")
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream)
        first = await world.app.toolbox.call(world.owner, tool, {"report": "r1"}, context)
        done = await ended(world, handle(first.text))
        again = await world.app.toolbox.call(world.owner, tool, {"report": "r1"}, context)
        other = await world.app.toolbox.call(world.owner, tool, {"report": "r2"}, context)
    assert again.text == done.text
    assert other.error is not None
    assert other.error.status == 422
    assert "was used for other arguments before" in other.text
    assert len(upstream.received) == 1


async def test_a_key_that_is_none_is_refused(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream)
        outcome = await world.app.toolbox.call(world.owner, tool, {}, CallContext(idempotency_key="two words"))
    assert outcome.error is not None
    assert outcome.error.code == "invalid_arguments"
    assert upstream.received == []


# -- permissions at the time it runs (rules H4, J14)


async def test_a_call_whose_key_was_revoked_before_it_ran_is_refused(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream)
        made = await world.app.keys.create("acme", role="agent")
        await world.app.keys.revoke("acme", made.row.id)
        caller = caller_of(made.row)  # as a process that has not heard of it yet
        outcome = await ended(world, handle((await world.app.toolbox.call(caller, tool, {})).text), caller)
    assert outcome.is_error
    assert outcome.text == (
        "Not sent: the API key that made this call was revoked before it ran. Repeating will not help: tell the user. [not_allowed]"
    )
    assert upstream.received == []


async def test_a_call_whose_caller_no_longer_sees_the_tool_is_refused(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream)
        row = (await world.app.keys.create("acme", role="agent", tools=["clinic_other"])).row
        before = replace(caller_of(row), tools=None)  # as it was when the call was accepted
        outcome = await ended(world, handle((await world.app.toolbox.call(before, tool, {})).text), before)
    assert outcome.is_error
    assert outcome.text.startswith("Not sent: there is no tool clinic_export")
    assert upstream.received == []


# -- cancel


async def test_a_call_that_is_cancelled_while_it_runs_is_cut_off(tmp_path: Path, upstream: Hostile) -> None:
    upstream.script("/export", silence)
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream)
        id = handle((await world.app.toolbox.call(world.owner, tool, {})).text)
        await arrived(upstream)
        assert await world.app.background.cancel("acme", id, datetime.now(UTC))
        await upstream.until(lambda: upstream.open == 0)
        outcome = await ended(world, id)
        fresh = handle((await world.app.toolbox.call(world.owner, tool, {})).text)
    assert outcome.is_error
    assert outcome.text == (
        f"Call {id} of clinic_export was cancelled while it ran. It MAY have been carried out: read the record before you repeat it. "
        "[cancelled]"
    )
    assert fresh != id


# -- restarts


async def test_a_call_accepted_by_a_process_that_ended_is_run_by_the_next(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream)
        await begins_nothing(world)
        id = handle((await world.app.toolbox.call(world.owner, tool, {})).text)
    assert upstream.received == []
    async with gateway(tmp_path, **settings()) as world:
        assert json.loads((await ended(world, id)).text)["method"] == "POST"
    assert len(upstream.received) == 1


@pytest.mark.parametrize(("hint", "sent", "said"), [(True, 2, "rows"), (None, 1, "It MAY have been carried out")])
async def test_a_write_cut_off_by_a_restart_is_repeated_with_its_key_only_where_the_endpoint_may(
    tmp_path: Path, upstream: Hostile, hint: bool | None, sent: int, said: str
) -> None:
    gate = Gate()
    upstream.script("/export", gate.step(), answer(200, DONE, JSON))
    annotations = {} if hint is None else {"annotations": {"idempotentHint": hint}}
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream, **annotations)
        id = handle((await world.app.toolbox.call(world.owner, tool, {})).text)
        await arrived(upstream)
    async with gateway(tmp_path, **settings()) as world:
        outcome = await ended(world, id)
    assert said in outcome.text
    assert outcome.is_error is (hint is None)
    assert len(upstream.received) == sent
    assert len(keys(upstream.received)) == 1


async def test_a_running_call_may_end_while_the_gateway_is_stopped(
    tmp_path: Path, upstream: Hostile, gate: Gate
) -> None:
    async with gateway(tmp_path, **settings(grace_seconds=30)) as world:
        tool = await write(world, upstream)
        id = handle((await world.app.toolbox.call(world.owner, tool, {})).text)
        await arrived(upstream)
        gate.open.set()
    async with gateway(tmp_path, **settings()) as world:
        assert json.loads((await ended(world, id)).text) == json.loads(DONE)
    assert len(upstream.received) == 1


# -- over the wire


async def test_the_wire_gives_handle_and_answer_as_any_tools_result(
    tmp_path: Path, upstream: Hostile, gate: Gate
) -> None:
    async with gateway(tmp_path, **settings()) as world, served(world) as url, http(url, await world.key()) as client:
        tool = await write(world, upstream)

        async def called(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            meta = {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            }
            params = {"name": name, "arguments": arguments, "_meta": meta}
            headers = {
                "accept": "application/json, text/event-stream",
                "mcp-protocol-version": "2026-07-28",
                "mcp-method": "tools/call",
                "mcp-name": name,
            }
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            return (await client.post("/mcp", json=body, headers=headers)).json()["result"]

        first = await called(tool, {"report": "r1"})
        id = handle(first["content"][0]["text"])
        assert (first["isError"], first["_meta"]["dev.integrations-mcp/call"]["call_id"]) == (False, id)
        await arrived(upstream)
        gate.open.set()
        with anyio.fail_after(10):
            async for _ in world.app.background.changes():
                row = await world.app.background.find("acme", id)
                if row is not None and not row.is_open:
                    break
        done = await called("get_result", {"result_id": id})
    assert json.loads(done["content"][0]["text"]) == json.loads(DONE)
    assert (done["resultType"], done["isError"]) == ("complete", False)
    call = done["_meta"]["dev.integrations-mcp/call"]
    assert (call["call_id"], call["http_status"], call["attempts"]) == (id, 200, 1)
