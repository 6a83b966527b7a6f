"""Upstreams that ask the user while they carry out a call: real SDK servers and clients of both eras, and clients that can't be asked."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from tests.mcp_upstreams import asking
from tests.world import World, gateway, http, listening, served
from tools.history import CallQuery
from tools.kinds.mcp.questions import Interview
from tools.masking import Masker

pytestmark = pytest.mark.anyio
MODERN, LEGACY = "2026-07-28", "legacy"
ERAS = pytest.mark.parametrize("client_era", [MODERN, LEGACY])
ACCEPT = types.ElicitResult(action="accept", content={"name": "Ada", "age": 36, "tags": ["a", "b"], "ok": True})


@asynccontextmanager
async def worlds(home: Path, era: str, transport: str = "http", **more: Any) -> AsyncGenerator[World, None]:
    """A gateway with the asking server behind it, which speaks one era only."""
    asking.heard.clear()
    asking.cancelled.clear()
    app = asking.app(era)
    config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
    async with listening(app, config) as url, gateway(home) as world:
        where = {"mcp_transport": transport, "mcp_url": url + ("/sse" if transport == "sse" else "/mcp")}
        await world.create({"name": "up", "display_name": "Up", "protocol": "mcp", **where, **more})
        yield world


@asynccontextmanager
async def client(world: World, url: str, mode: Any, answer: Any) -> AsyncGenerator[Client, None]:
    async with http(url, await world.key("agent")) as door:
        wire = streamable_http_client(f"{url}/mcp", http_client=door)
        async with Client(wire, mode=mode, elicitation_callback=answer) as made:
            yield made


def answering(result: types.ElicitResult, asked: list[types.ElicitRequestFormParams]) -> Any:
    async def answer(context: Any, params: Any) -> types.ElicitResult:
        asked.append(params)
        return result

    return answer


def text(result: Any) -> str:
    return result.content[0].text


@pytest.mark.parametrize(
    ("upstream_era", "client_era", "transport"),
    [
        (LEGACY, LEGACY, "http"),
        (LEGACY, LEGACY, "sse"),
        (MODERN, MODERN, "http"),
        (MODERN, LEGACY, "http"),
    ],
)
async def test_the_user_is_asked_and_his_answer_goes_back_as_it_is(
    tmp_path: Path, upstream_era: str, client_era: str, transport: str
) -> None:
    asked: list[types.ElicitRequestFormParams] = []
    results = [ACCEPT, types.ElicitResult(action="decline"), types.ElicitResult(action="cancel")]

    async def answer(context: Any, params: Any) -> types.ElicitResult:
        asked.append(params)
        return results[len(asked) - 1]

    async with worlds(tmp_path, upstream_era, transport) as world, served(world) as url:
        async with client(world, url, client_era, answer) as mcp:
            for n, result in enumerate(results):
                done = await mcp.call_tool("up_ask", {"n": n})
                assert not done.is_error, text(done)
                assert text(done) == f"{n}: {result.action}"
        assert asking.heard == [(r.action, r.content) for r in results]
        for question in asked:
            assert question.message == "[up] The MCP server behind this integration asks:\n\nWho are you?"
            assert question.requested_schema == asking.FORM
        assert len(asked) == len(results)
        assert "Ada" not in str(await world.app.history.calls("acme", CallQuery(limit=100)))


@pytest.mark.parametrize("upstream_era", [LEGACY, MODERN])
@ERAS
async def test_a_client_that_shows_no_forms_makes_the_upstream_ask_nobody(
    tmp_path: Path, upstream_era: str, client_era: str
) -> None:
    async with worlds(tmp_path, upstream_era) as world, served(world) as url:  # noqa: SIM117
        async with client(world, url, client_era, None) as mcp:
            refused = await mcp.call_tool("up_ask", {"n": 1})
    assert refused.is_error
    assert asking.heard == []
    if upstream_era == MODERN:
        assert "asks for input from the user, and the caller's client can't be asked here" in text(refused)


@pytest.mark.parametrize(("upstream_era", "client_era"), [(LEGACY, LEGACY), (MODERN, MODERN), (MODERN, LEGACY)])
async def test_a_second_question_follows_the_first_with_the_upstreams_own_state(
    tmp_path: Path, upstream_era: str, client_era: str
) -> None:
    asked: list[Any] = []
    asking.states.clear()
    async with worlds(tmp_path, upstream_era) as world, served(world) as url:  # noqa: SIM117
        async with client(world, url, client_era, answering(ACCEPT, asked)) as mcp:
            assert text(await mcp.call_tool("up_twice", {"n": 2})) == "2: accept"
    assert asking.heard == [("accept", ACCEPT.content)] * 2
    if upstream_era == MODERN:
        assert asking.states == [None, "0", "1"]


async def test_a_state_that_is_not_the_calls_own_is_refused_as_the_clients_fault(tmp_path: Path) -> None:
    """By a protocol error: no model could mend it."""
    asking.states.clear()
    async with worlds(tmp_path, MODERN) as world, served(world) as url:  # noqa: SIM117
        async with client(world, url, MODERN, answering(ACCEPT, [])) as mcp:
            asked = await mcp.session.call_tool("up_ask", {"n": 1}, allow_input_required=True)
            assert isinstance(asked, types.InputRequiredResult)
            for arguments, state in (({"n": 1}, f"{asked.request_state}x"), ({"n": 2}, asked.request_state), ({}, "0")):
                with pytest.raises(MCPError, match="requestState: isn't one that this tool gave you") as refused:
                    await mcp.session.call_tool("up_ask", arguments, request_state=state, allow_input_required=True)
                assert refused.value.error.code == types.INVALID_PARAMS
    assert asking.states == [None]


@pytest.mark.parametrize(("upstream_era", "client_era"), [(LEGACY, LEGACY), (MODERN, MODERN), (MODERN, LEGACY)])
async def test_a_question_is_cleaned_and_what_could_not_be_answered_then_is_not_asked(
    tmp_path: Path, upstream_era: str, client_era: str
) -> None:
    asked: list[Any] = []
    async with worlds(tmp_path, upstream_era) as world, served(world) as url:  # noqa: SIM117
        async with client(world, url, client_era, answering(types.ElicitResult(action="decline"), asked)) as mcp:
            await mcp.call_tool("up_hidden", {})
            (question,) = asked
            assert "Well? xxx" in question.message
            assert len(question.message) < 4200
            assert question.requested_schema["properties"] == {"a": {"type": "string", "title": "A"}}
            for tool in ("up_hidden_value", "up_url", "up_samples"):
                assert (await mcp.call_tool(tool, {})).is_error, tool
    assert len(asked) == 1


@pytest.mark.parametrize(("upstream_era", "client_era"), [(LEGACY, LEGACY), (MODERN, MODERN)])
async def test_an_upstream_cannot_show_our_credential_to_the_user(
    tmp_path: Path, upstream_era: str, client_era: str
) -> None:
    asked: list[Any] = []
    auth = {"type": "bearer_token", "bearer_token_value": {"value": "hunter2-hunter2"}}
    async with worlds(tmp_path, upstream_era, auth=auth) as world, served(world) as url:  # noqa: SIM117
        async with client(world, url, client_era, answering(types.ElicitResult(action="decline"), asked)) as mcp:
            await mcp.call_tool("up_leaks", {})
    assert len(asked) == 1
    assert "hunter2" not in str(asked)
    assert "right?" in asked[0].message


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_client_that_leaves_while_its_user_thinks_ends_the_call_at_the_upstream(
    tmp_path: Path, transport: str
) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def answer(context: Any, params: Any) -> types.ElicitResult:
        asked.set()
        await gone.wait()
        return ACCEPT

    async with worlds(tmp_path, LEGACY, transport) as world, served(world) as url:  # noqa: SIM117
        async with client(world, url, LEGACY, answer) as mcp:
            call = asyncio.ensure_future(mcp.call_tool("up_ask", {}))
            await asked.wait()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            async with asyncio.timeout(20):
                while asking.cancelled != ["ask"]:  # noqa: ASYNC110 - at the far end of a socket
                    await asyncio.sleep(0.02)
            gone.set()
            # The next one is asked his own question only.
            assert text(await mcp.call_tool("up_ask", {"n": 3})) == "3: accept"
    assert asking.heard == [("accept", ACCEPT.content)]


async def test_questions_reach_the_client_of_the_call_that_they_belong_to(tmp_path: Path) -> None:
    """Two clients in one warm session of an upstream, and one that can't be asked beside them."""
    both = asyncio.Barrier(2)

    def named(name: str) -> Any:
        async def answer(context: Any, params: Any) -> types.ElicitResult:
            await both.wait()
            return types.ElicitResult(action="accept", content={"name": name})

        return answer

    async with worlds(tmp_path, LEGACY) as world, served(world) as url:  # noqa: SIM117
        async with (
            client(world, url, LEGACY, named("Ada")) as ada,
            client(world, url, LEGACY, named("Bob")) as bob,
            client(world, url, LEGACY, None) as mute,
        ):
            found = await asyncio.gather(*(c.call_tool("up_ask", {"n": n}) for n, c in enumerate((ada, bob, mute))))
    assert [text(r) for r in found[:2]] == ["0: accept", "1: accept"]
    assert found[2].is_error
    assert sorted(content["name"] for _, content in asking.heard if content) == ["Ada", "Bob"]


async def test_the_calls_time_stands_still_while_the_user_thinks() -> None:
    class Thinking:
        asks_now, answers, state = True, None, None

        async def ask(self, message: str, schema: Any) -> dict[str, Any]:
            left.append(deadline.when())
            return {"action": "decline"}

    class Never:
        def seal(self, state: str) -> str:
            raise AssertionError

        open = seal

    left: list[float | None] = []
    deadline = asyncio.timeout(1000)
    async with deadline:
        began = deadline.when()
        interview = Interview(Thinking(), "up", Masker, deadline, Never())
        assert await interview.answer({"message": "?", "requestedSchema": asking.FORM}) == {"action": "decline"}
        now = deadline.when()
        assert left == [None]
        assert began is not None
        assert now is not None
        assert now >= began
