"""What a call does at the far end: attempts, keys and redirects (rules F1, F2, F5, H1), and what the agent is told of it."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.upstreams import Hostile, answer, drop, silence
from tests.world import World, gateway
from tools.call import CallContext
from tools.callers import Caller, local_caller

pytestmark = pytest.mark.anyio
JSON = {"Content-Type": "application/json"}
NO_WAIT = {"Retry-After": "0"}


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with gateway(tmp_path) as world:
        yield world


async def written(world: World, upstream: Hostile, method: str, **fields: Any) -> str:
    """An integration `s` whose endpoint `do` is /x/{id} (or as `fields` say); returns the tool's name."""
    made = {
        "name": "do",
        "description": "d",
        "method": method,
        "path": "/x/{id}",
        "retry_config": {"max_retries": 2, "retry_on_status": [429, 500, 502, 503, 504]},
        **fields,
    }
    reader = {"name": "read", "description": "d", "method": "GET", "path": "/x/{id}"}
    await world.create({"name": "sy", "display_name": "S", "base_url": upstream.url, "endpoints": [made, reader]})
    return "sy_do"


# -- F1: which failures are tried again


@pytest.mark.parametrize(
    ("method", "hint", "first", "attempts", "said"),
    [
        ("GET", None, answer(500, headers=NO_WAIT), 2, "ok"),
        ("PUT", None, answer(502, headers=NO_WAIT), 2, "ok"),
        ("DELETE", None, drop, 2, "ok"),
        ("GET", None, drop, 2, "ok"),
        ("POST", None, answer(503, headers=NO_WAIT), 2, "ok"),
        ("PATCH", None, answer(429, headers=NO_WAIT), 2, "ok"),
        ("POST", None, answer(500, headers=NO_WAIT), 1, "[outcome_unknown]"),
        ("POST", None, answer(502, headers=NO_WAIT), 1, "[outcome_unknown]"),
        ("PATCH", None, answer(504, headers=NO_WAIT), 1, "[outcome_unknown]"),
        ("POST", None, drop, 1, "[outcome_unknown]"),
        ("POST", True, answer(502, headers=NO_WAIT), 2, "ok"),
        ("POST", True, drop, 2, "ok"),
        ("POST", None, answer(404), 1, "[upstream_404]"),
    ],
)
async def test_what_is_tried_again_depends_on_what_may_have_been_done(
    world: World, upstream: Hostile, method: str, hint: bool | None, first: Any, attempts: int, said: str
) -> None:
    tool = await written(world, upstream, method, annotations={"idempotentHint": hint} if hint else None)
    upstream.script("/x/1", first, answer(200, b'"ok"', JSON))
    text = await world.call(tool, id="1")
    assert said in text
    assert len(upstream.received) == attempts
    if "unknown" in said:
        assert "It MAY have been carried out: check with sy_read before you repeat it." in text


async def test_one_idempotency_key_goes_with_every_attempt_and_another_with_the_next_call(
    world: World, upstream: Hostile
) -> None:
    tool = await written(world, upstream, "POST")
    upstream.script("/x/1", answer(503, headers=NO_WAIT), answer(503, headers=NO_WAIT), answer(200, b"1", JSON))
    await world.call(tool, id="1")
    await world.call(tool, id="1")
    keys = [r.header("idempotency-key") for r in upstream.received]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert all(uuid.UUID(k) for k in keys if k)


async def test_reads_and_puts_carry_no_idempotency_key(world: World, upstream: Hostile) -> None:
    await world.call(await written(world, upstream, "PUT"), id="1")
    await world.call("sy_read", id="1")
    assert [r.header("idempotency-key") for r in upstream.received] == [None, None]


# -- F2: the caller's own key


async def run(world: World, tool: str, key: str, caller: Caller | None = None, **arguments: Any) -> Any:
    return await world.app.toolbox.call(caller or world.owner, tool, arguments, CallContext(idempotency_key=key))


async def test_the_same_key_from_the_same_caller_is_the_same_key_upstream(world: World, upstream: Hostile) -> None:
    tool = await written(world, upstream, "POST")
    other = replace(local_caller("acme"), id="somebody else")
    for caller, key in ((world.owner, "mine"), (world.owner, "mine"), (other, "mine"), (world.owner, "next")):
        assert not (await run(world, tool, key, caller, id="1")).is_error
    first, again, others, further = [r.header("idempotency-key") for r in upstream.received]
    assert first == again
    assert len({first, others, further}) == 3
    assert "mine" not in str(first)


async def test_a_key_used_for_other_arguments_is_refused_and_nothing_is_sent(world: World, upstream: Hostile) -> None:
    tool = await written(world, upstream, "POST")
    await run(world, tool, "k", id="1")
    outcome = await run(world, tool, "k", id="2")
    assert outcome.text.startswith("Not sent: 1 argument does not fit sy_do.\n- _meta.idempotency_key: was used")
    assert len(upstream.received) == 1


async def test_a_key_stays_bound_over_a_restart(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path) as world:
        tool = await written(world, upstream, "DELETE")
        await run(world, tool, "k", id="1")
    async with gateway(tmp_path) as world:
        assert (await run(world, tool, "k", id="2")).is_error
        assert not (await run(world, tool, "k", id="1")).is_error


@pytest.mark.parametrize("key", ["", "a b", "x\r\ny", "ü", "k" * 256])
async def test_what_is_no_key_is_refused(world: World, upstream: Hostile, key: str) -> None:
    outcome = await run(world, await written(world, upstream, "POST"), key, id="1")
    assert "_meta.idempotency_key: is 1 to 255 characters" in outcome.text
    assert upstream.received == []


@pytest.mark.parametrize(
    ("method", "steps", "fields", "code"),
    [
        ("DELETE", (drop, answer(404)), {}, "probably_done"),
        ("DELETE", (answer(502, headers=NO_WAIT), answer(410)), {}, "probably_done"),
        ("PUT", (drop, answer(412)), {"headers": {"If-Match": '"1"'}}, "probably_done"),
        ("PUT", (drop, answer(412)), {}, "upstream_412"),
        ("DELETE", (answer(404),), {}, "upstream_404"),
        ("GET", (drop, answer(404)), {}, "upstream_404"),
        ("DELETE", (answer(503, headers=NO_WAIT), answer(404)), {}, "upstream_404"),
    ],
)
async def test_a_write_whose_first_attempt_was_probably_done_is_told_so(
    world: World, upstream: Hostile, method: str, steps: tuple[Any, ...], fields: dict[str, Any], code: str
) -> None:
    tool = await written(world, upstream, method, **fields)
    upstream.script("/x/1", *steps)
    assert f"[{code}]" in await world.call(tool, id="1")


# -- deadline, cancellation, progress, rings


async def test_a_write_without_an_answer_may_have_been_done(world: World, upstream: Hostile) -> None:
    tool = await written(world, upstream, "POST", timeout_seconds=0.2)
    upstream.script("/x/1", silence)
    text = await world.call(tool, id="1")
    assert text.startswith("No answer from the sy's server within 0.2 s after the request was sent. It MAY have been")


async def test_a_cancelled_call_closes_the_upstreams_connection(world: World, upstream: Hostile) -> None:
    tool = await written(world, upstream, "GET")
    upstream.script("/x/1", silence)
    call = asyncio.ensure_future(world.call(tool, id="1"))
    await upstream.until(lambda: len(upstream.received) == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await upstream.until(lambda: upstream.open == 0)


async def test_progress_tells_of_attempts_and_nothing_that_is_for_operators(world: World, upstream: Hostile) -> None:
    tool = await written(world, upstream, "GET")
    upstream.script("/x/1", drop, answer(503, headers=NO_WAIT), answer(200, b"1", JSON))
    told: list[str] = []
    done = asyncio.Event()

    async def progress(far: float, said: str) -> None:
        told.append(said)
        if far == 3:
            done.set()

    await world.app.toolbox.call(world.owner, tool, {"id": "1"}, CallContext(progress=progress))
    async with asyncio.timeout(5):
        await done.wait()
    assert told == ["attempt 1: no answer", "attempt 2: 503", "attempt 3: 200"]


async def test_gateways_that_call_each_other_in_a_ring_stop(world: World, upstream: Hostile) -> None:
    tool = await written(world, upstream, "GET")
    outcome = await world.app.toolbox.call(world.owner, tool, {"id": "1"}, CallContext(hops=3))
    assert outcome.is_error
    assert upstream.received == []
    await world.app.toolbox.call(world.owner, tool, {"id": "1"}, CallContext(hops=2))
    assert upstream.received[0].header("x-integrations-mcp-hops") == "3"


# -- what the agent sees


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (answer(204), "The sy's server answered 204: done, it sent no content."),
        (answer(200, b"   ", {"Content-Type": "text/plain"}), "The sy's server answered, and the result is empty."),
        (answer(200, b"[]", JSON), "[]"),
        (answer(200, b"null", JSON), "null"),
        (answer(200, "größe".encode("latin-1"), {"Content-Type": "text/plain; charset=iso-8859-1"}), "größe"),
        (answer(200, b'{"n":12345678901234567890123}', JSON), '{"n":12345678901234567890123}'),
        (answer(200, b"\xef\xbb\xbf[1]", JSON), "[1]"),
    ],
)
async def test_an_answer_is_never_an_empty_block(world: World, upstream: Hostile, step: Any, text: str) -> None:
    tool = await written(world, upstream, "GET")
    upstream.script("/x/1", step)
    assert await world.call(tool, id="1") == text


async def test_an_unknown_tool_names_the_nearest_one(world: World, upstream: Hostile) -> None:
    await written(world, upstream, "GET")
    assert "did you mean sy_do?" in await world.call("sy_doo")


async def test_an_operator_gets_the_call_that_shows_every_stage_and_an_agent_doesnt(
    world: World, upstream: Hostile
) -> None:
    tool = await written(world, upstream, "GET")
    upstream.script("/x/1", answer(400, b'{"message": "no"}', JSON))
    last = (await world.call(tool, id="1")).split("\n")[-1]
    assert json.loads(last.removeprefix("Diagnose: test_integration_endpoint ")) == {
        "tool": tool,
        "params": {"id": "1"},
    }
    agent = replace(world.owner, permissions=frozenset({"Integration.execute"}))
    assert "Diagnose" not in (await world.app.toolbox.call(agent, tool, {"id": "1"})).text


async def test_a_long_result_is_cut_and_read_on_by_its_caller_alone(world: World, upstream: Hostile) -> None:
    tool = await written(world, upstream, "GET", max_result_length=2000)
    upstream.script("/x/1", answer(200, json.dumps([{"id": n, "t": "x" * 50} for n in range(100)]).encode(), JSON))
    outcome = await world.app.toolbox.call(world.owner, tool, {"id": "1"})
    assert outcome.text.startswith("[Showing items 0-")
    assert len(outcome.text) < 2400
    more = await world.app.toolbox.call(world.owner, "get_result", {"result_id": outcome.result_id, "from": 90})
    assert '"id":99' in more.text
    other = replace(world.owner, id="other")
    assert (
        "[result_expired]" in (await world.app.toolbox.call(other, "get_result", {"result_id": outcome.result_id})).text
    )
