"""Real clients of every kind list and call the demo's tools over every wire; what they got is compared, not only that they got it."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from tests.nodetools import node_env
from tests.oldworld import old_client
from tests.processes import SCRIPT, environment, run, running

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TOOL, ARGUMENTS = "clinic_search_patients", {"family": "Solo"}
CONFIG = Path(__file__).parent.parent / "claude_desktop_config.example.json"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def demo(home: Path) -> Iterator[dict[str, Any]]:
    """What a running demo said: mcp_url, sse_url, api_key and so on."""
    with running(home, "demo", "--json", "--port", "0") as process:
        yield process.json_line()


@pytest.fixture(scope="module")
def expected(home: Path, demo: dict[str, Any]) -> dict[str, Any]:
    """The tools and the call's text as the shell's own commands give them, from the same registry."""
    env = {
        "INTEGRATIONS_MCP_HOME": str(home / "demo"),
        "INTEGRATIONS_MCP_WORKSPACE": "demo",
        "INTEGRATIONS_MCP_ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8",
    }
    tools = json.loads(run(home, "tools", "--json", env=env).stdout)["tools"]
    called = json.loads(run(home, "call", TOOL, "--args", json.dumps(ARGUMENTS), "--json", env=env).stdout)
    assert called["ok"]
    assert {p["name"] for p in json.loads(called["text"])["patients"]} >= {"Leia Solo", "Jaina Solo"}
    return {"tools": tools, "text": called["text"]}


def header(demo: dict[str, Any]) -> str:
    return f"Authorization: Bearer {demo['api_key']}"


def check(seen: dict[str, Any], expected: dict[str, Any]) -> None:
    """`seen` is {tools, result} in the wire's spelling."""
    assert [t["name"] for t in seen["tools"]] == [t["name"] for t in expected["tools"]]
    by_name = {t["name"]: t for t in seen["tools"]}
    for tool in expected["tools"]:
        assert by_name[tool["name"]]["description"] == tool["description"]
        assert by_name[tool["name"]]["inputSchema"] == tool["inputSchema"]
        assert by_name[tool["name"]]["annotations"] == tool["annotations"]
    assert seen["result"]["content"] == [{"type": "text", "text": expected["text"]}]
    assert not seen["result"].get("isError", False)


async def through(client: Client) -> dict[str, Any]:
    """Lists every page and calls the tool, with mcp 2.3."""
    async with client:
        if client.mode != "2026-07-28":  # a pinned version asks for nothing first, so there are no instructions
            assert "Clinic" in (client.instructions or "")
        tools, page = [], await client.list_tools()
        tools += page.tools
        while page.next_cursor is not None:
            page = await client.list_tools(cursor=page.next_cursor)
            tools += page.tools
        result = await client.call_tool(TOOL, ARGUMENTS)
    return {
        "tools": [t.model_dump(mode="json", by_alias=True, exclude_none=True) for t in tools],
        "result": result.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


@pytest.mark.parametrize("mode", ["auto", "legacy", "2026-07-28"])
async def test_mcp_2_3_lists_and_calls_over_http(demo: dict[str, Any], expected: dict[str, Any], mode: str) -> None:
    headers = {"Authorization": f"Bearer {demo['api_key']}"}
    async with httpx2.AsyncClient(headers=headers, trust_env=False) as http:
        client = Client(streamable_http_client(demo["mcp_url"], http_client=http), mode=mode)
        check(await through(client), expected)


async def test_mcp_2_3_lists_and_calls_over_sse(demo: dict[str, Any], expected: dict[str, Any]) -> None:
    transport = sse_client(demo["sse_url"], {"Authorization": f"Bearer {demo['api_key']}"})
    check(await through(Client(transport, mode="legacy")), expected)


@pytest.mark.parametrize("mode", ["auto", "legacy", "2026-07-28"])
async def test_mcp_2_3_lists_and_calls_over_stdio(tmp_path: Path, expected: dict[str, Any], mode: str) -> None:
    server = StdioServerParameters(command=str(SCRIPT), args=["stdio", "--demo"], env=environment(tmp_path))
    check(await through(Client(stdio_client(server), mode=mode)), expected)


async def test_the_example_for_claude_desktop_starts_as_it_stands(tmp_path: Path, expected: dict[str, Any]) -> None:
    (server,) = json.loads(CONFIG.read_text("utf-8"))["mcpServers"].values()
    # The SDK finds the command on its own process's PATH, so env, which only the child sees, does the finding here.
    parameters = StdioServerParameters(
        command="/usr/bin/env", args=[server["command"], *server["args"]], env=environment(tmp_path)
    )
    check(await through(Client(stdio_client(parameters), mode="legacy")), expected)


def wire_arguments(transport: str, demo: dict[str, Any], home: Path) -> Sequence[str]:
    """The command line of the old Python client and of both TypeScript ones, up to the stdio command."""
    call = ["--tool", TOOL, "--arguments", json.dumps(ARGUMENTS)]
    if transport == "stdio":
        env = [part for name, value in environment(home).items() for part in ("--env", f"{name}={value}")]
        return ["--transport", "stdio", *env, *call, "--", str(SCRIPT), "stdio", "--demo"]
    url = demo["mcp_url"] if transport == "http" else demo["sse_url"]
    return ["--transport", transport, "--url", url, "--header", header(demo), *call]


def answer_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert "Clinic" in seen["instructions"]
    return seen


@pytest.mark.parametrize("transport", ["http", "sse", "stdio"])
def test_mcp_1_30_lists_and_calls(
    demo: dict[str, Any], expected: dict[str, Any], tmp_path: Path, transport: str
) -> None:
    check(answer_of(old_client().run(*wire_arguments(transport, demo, tmp_path))), expected)


@pytest.mark.node
@pytest.mark.parametrize("transport", ["http", "sse", "stdio"])
def test_typescript_1_32_lists_and_calls(
    demo: dict[str, Any], expected: dict[str, Any], tmp_path: Path, transport: str
) -> None:
    tools = node_env()
    done = tools.run(tools.script("list_and_call.mjs"), *wire_arguments(transport, demo, tmp_path))
    check(answer_of(done), expected)


@pytest.mark.node
@pytest.mark.parametrize(
    ("transport", "era", "spoken"),
    [
        ("http", "2026-07-28", "2026-07-28"),
        ("http", "auto", "2026-07-28"),
        ("http", "legacy", "2025-11-25"),
        ("sse", "legacy", "2025-11-25"),
        ("stdio", "2026-07-28", "2026-07-28"),
        ("stdio", "legacy", "2025-11-25"),
    ],
)
def test_typescript_2_4_lists_and_calls(
    demo: dict[str, Any], expected: dict[str, Any], tmp_path: Path, transport: str, era: str, spoken: str
) -> None:
    tools = node_env()
    script = tools.script("list_and_call_v2.mjs")
    seen = answer_of(tools.run(script, "--era", era, *wire_arguments(transport, demo, tmp_path)))
    assert seen["version"] == spoken
    check(seen, expected)


def inspector_arguments(transport: str, demo: dict[str, Any], home: Path) -> Sequence[str]:
    if transport == "stdio":
        env = [part for name, value in environment(home).items() for part in ("-e", f"{name}={value}")]
        return ["--cli", *env, str(SCRIPT), "stdio", "--demo", "--transport", "stdio"]
    url = demo["mcp_url"] if transport == "http" else demo["sse_url"]
    return ["--cli", url, "--transport", transport, "--header", header(demo)]


@pytest.mark.node
@pytest.mark.parametrize("transport", ["http", "sse", "stdio"])
def test_the_inspector_finds_nothing_to_say_about_the_list_and_calls(
    demo: dict[str, Any], expected: dict[str, Any], tmp_path: Path, transport: str
) -> None:
    tools = node_env()
    target = inspector_arguments(transport, demo, tmp_path)
    listed = tools.run(tools.inspector, *target, "--method", "tools/list", "--strict")
    assert (listed.returncode, "arning" in listed.stderr) == (0, False), listed.stderr
    argument = ("--tool-arg", *(f"{name}={value}" for name, value in ARGUMENTS.items()))
    called = tools.run(tools.inspector, *target, "--method", "tools/call", "--tool-name", TOOL, *argument)
    assert called.returncode == 0, called.stderr
    check({"tools": json.loads(listed.stdout)["tools"], "result": json.loads(called.stdout)}, expected)
