"""The official MCP conformance suite against the gateway, at both revisions; and by content, what its ticks don't look at."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from anyio import create_task_group, to_thread
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from starlette.types import ASGIApp, Receive, Scope, Send

from server.serving import Serving, config_of
from tests.conformance.asking_server import HANDSHAKE, MODERN
from tests.conformance.fixtures import BUSY_ANSWERS, CONTENT, ERROR, MIXED, integrations, upstream
from tests.mcp_upstreams import asking
from tests.nodetools import node_env
from tests.world import gateway, listening
from tools.parsing import parse_update

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HERE = Path(__file__).parent


class WithKey:
    """Adds the API key to every request, since the suite can't send headers of its own."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app, self._header = app, (b"authorization", b"Bearer " + api_key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], self._header]}
        await self._app(scope, receive, send)


def lasting(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1)


@asynccontextmanager
async def fixture_gateway(home: Path) -> AsyncGenerator[str, None]:
    """The URL of /mcp of a gateway that shows the suite's fixture tools to everybody."""
    async with AsyncExitStack() as holding, gateway(home) as world:

        async def change_tools() -> None:
            json_one = await world.app.registry.get("acme", "json")
            changed = {"display_name": f"JSON {json_one.version}"}
            await world.app.admin.update(world.owner, "json", parse_update(changed, "json"))

        base = await holding.enter_async_context(listening(upstream(change_tools)))
        servers = [
            await holding.enter_async_context(listening(served, lasting(served)))
            for served in (asking.app("legacy", HANDSHAKE), asking.app("modern", MODERN))
        ]
        for body in integrations(base, *servers):
            await world.create(body)
        serving = Serving(world.app.settings, app=world.app)
        app = WithKey(serving, await world.key("agent"))
        async with listening(app, config_of(app, world.app.settings)) as url:
            yield f"{url}/mcp"


@pytest.mark.node
@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
async def test_the_official_suite_finds_only_what_is_expected(tmp_path: Path, revision: str) -> None:
    tools = node_env()
    expected = HERE / f"expected-failures-{revision}.yaml"
    async with fixture_gateway(tmp_path) as url:
        command = ("server", "--url", url, "--requirements", revision, "--expected-failures", str(expected))
        output = ("--output-dir", str(tmp_path / "results"))
        done = await to_thread.run_sync(partial(tools.run, tools.conformance, *command, *output, timeout=240))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.node
def test_the_suites_auth_scenarios_are_for_clients_and_issuers_alone() -> None:
    """The gateway is neither: it is the resource server, which tests/test_access_tokens*.py and tests/security cover. Once the
    suite has such a scenario for servers, this fails, and the scenario belongs into the run above."""
    tools = node_env()
    servers, _, others = tools.run(tools.conformance, "list").stdout.partition("Client scenarios")
    assert "server-initialize" in servers
    assert "auth/metadata-default" in others
    assert [line for line in servers.splitlines() if "auth" in line.lower()] == []


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_the_fixture_tools_answer_with_their_content(tmp_path: Path, mode: str) -> None:
    told: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append(done)

    async with (
        fixture_gateway(tmp_path) as url,
        httpx2.AsyncClient(trust_env=False) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        names = {t.name for t in (await client.list_tools()).tools}
        assert names >= CONTENT.keys()
        for name, block in CONTENT.items():
            arguments = {"name": "A", "email": "a@b.c"} if name == "json_schema_2020_12_tool" else {}
            result: Any = await client.call_tool(name, arguments, progress_callback=progress)
            assert [b.model_dump(mode="json", by_alias=True, exclude_none=True) for b in result.content] == [block]
            assert not result.is_error
            if name == "test_tool_with_progress":
                assert told == [float(n + 1) for n in range(BUSY_ANSWERS + 1)]
            told.clear()
        mixed: Any = await client.call_tool("test_multiple_content_types", {})
        assert [b.model_dump(mode="json", by_alias=True, exclude_none=True) for b in mixed.content] == MIXED
        failed: Any = await client.call_tool("test_error_handling", {})
    assert failed.is_error
    assert len(failed.content) == 1
    assert ERROR in failed.content[0].text


@pytest.mark.node
async def test_the_tasks_scenarios_find_only_what_is_expected(tmp_path: Path) -> None:
    """Not run: tasks-mrtr-input and tasks-mrtr-composition (no task asks its client for input), tasks-status-notifications
    (the suite skips it itself).
    """
    tools, expected = node_env(), str(HERE / "expected-failures-tasks.yaml")
    scenarios = (
        "lifecycle",
        "capability-negotiation",
        "wire-fields",
        "request-headers",
        "dispatch-and-envelope",
        "request-state-removal",
        "required-task-error",
    )
    failed: dict[str, str] = {}
    async with fixture_gateway(tmp_path) as url, create_task_group() as group:

        async def check(name: str) -> None:
            command = ("server", "--url", url, "--scenario", f"tasks-{name}", "--expected-failures", expected)
            # The suite waits for the end of a task in real seconds: what a loaded machine missed is asked once more.
            for attempt in ("first", "again"):
                output = ("--output-dir", str(tmp_path / name / attempt))
                done = await to_thread.run_sync(partial(tools.run, tools.conformance, *command, *output, timeout=120))
                if done.returncode == 0:
                    failed.pop(name, None)
                    return
                failed[name] = done.stdout[-3000:] + done.stderr[-1000:]

        for name in scenarios:
            group.start_soon(check, name)
    assert failed == {}
