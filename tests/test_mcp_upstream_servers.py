"""Real MCP servers behind the gateway, against a direct client: server-everything, -filesystem, -memory, and mcp 1.30."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from server.listening import bind
from tests.mcp_upstreams.nodeservers import NodeServers, node_servers
from tests.oldworld import old_client
from tests.world import World, gateway, http, served

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.node]
OLD = str(Path(__file__).parent / "mcp_upstreams" / "fastserver130.py")


@pytest.fixture(scope="module")
def servers() -> NodeServers:
    return node_servers()


def free_port() -> int:
    with bind("127.0.0.1", 0) as sock:
        return sock.getsockname()[1]


@contextlib.contextmanager
def process(words: list[str], env: dict[str, str]) -> Iterator[None]:
    running = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        running.kill()
        running.wait()


async def answers(url: str) -> None:
    async with asyncio.timeout(30), httpx2.AsyncClient(trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx2.TransportError):
                async with client.stream("GET", url):
                    return
            await asyncio.sleep(0.1)


@asynccontextmanager
async def everything(servers: NodeServers, transport: str) -> AsyncGenerator[tuple[dict[str, Any], Any]]:
    """(how the gateway connects, what a direct client connects to)."""
    script = servers.script("everything")
    if transport == "stdio":
        yield (
            {"mcp_transport": "stdio", "mcp_command": servers.node, "mcp_args": [script]},
            StdioServerParameters(command=servers.node, args=[script]),
        )
        return
    port = free_port()
    words = [servers.node, "--require", servers.bind127, script, {"http": "streamableHttp"}.get(transport, transport)]
    with process(words, {"PORT": str(port), "PATH": os.environ["PATH"]}):
        url = f"http://127.0.0.1:{port}/{'sse' if transport == 'sse' else 'mcp'}"
        await answers(url)
        yield {"mcp_transport": transport, "mcp_url": url}, sse_client(url) if transport == "sse" else url


@asynccontextmanager
async def opened(home: Path, *allow: str) -> AsyncGenerator[World]:
    async with gateway(home, stdio_allow=allow) as world:
        yield world


def plain(model: Any) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("echo", {"message": "hello"}),
    ("get-sum", {"a": 2, "b": 3}),
    ("get-tiny-image", {}),
    ("get-structured-content", {"location": "New York"}),
    ("get-annotated-message", {"messageType": "error", "includeImage": True}),
    ("get-resource-reference", {"resourceType": "Text", "resourceId": 1}),
    ("get-resource-links", {"count": 3}),
)


@pytest.mark.parametrize("transport", ["stdio", "sse", "http"])
async def test_server_everything_arrives_unchanged_but_for_the_name(
    servers: NodeServers, tmp_path: Path, transport: str
) -> None:
    async with everything(servers, transport) as (how, target), opened(tmp_path, servers.node) as world:
        await world.create({"name": "every", "display_name": "Every", "protocol": "mcp", **how})
        key = await world.key()
        async with served(world) as ours, http(ours, key) as client, Client(target, mode="legacy") as direct:  # noqa: SIM117
            async with Client(streamable_http_client(ours + "/mcp", http_client=client)) as through:
                theirs = {t.name: t for t in (await direct.list_tools()).tools}
                listed = {t.name: t for t in (await through.list_tools()).tools}
                assert {f"every_{name}" for name in theirs} <= set(listed)
                for name, tool in theirs.items():
                    assert listed[f"every_{name}"].description == tool.description
                called = 0
                for name, arguments in CALLS:
                    if name not in theirs:
                        continue
                    expected = plain(await direct.call_tool(name, arguments))
                    got = plain(await through.call_tool(f"every_{name}", arguments))
                    for result in (expected, got):
                        result.pop("_meta", None)
                    if "Time" not in str(expected) and "current time" not in str(expected):
                        assert got == expected, name
                    called += 1
                assert called >= 6


async def test_no_variable_of_the_gateway_leaks_into_server_everything(servers: NodeServers, tmp_path: Path) -> None:
    async with everything(servers, "stdio") as (how, _), opened(tmp_path, servers.node) as world:
        await world.create({"name": "every", "display_name": "Every", "protocol": "mcp", **how})
        text = await world.call("every_get-env")
        assert '"PATH"' in text
        leaked = {name for name in os.environ if f'"{name}"' in text}
        assert leaked <= {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"}


async def test_server_filesystem_reads_what_it_wrote_and_nothing_outside(servers: NodeServers, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    async with opened(tmp_path / "home", servers.node) as world:
        how = {"mcp_transport": "stdio", "mcp_command": servers.node}
        args = [servers.script("filesystem"), str(shared)]
        await world.create({"name": "files", "display_name": "Files", "protocol": "mcp", **how, "mcp_args": args})
        await world.call("files_write_file", path=str(shared / "a.txt"), content="written")
        assert (shared / "a.txt").read_text() == "written"
        assert await world.call("files_read_text_file", path=str(shared / "a.txt")) == "written"
        outside = await world.app.toolbox.call(world.owner, "files_read_text_file", {"path": "/etc/hostname"})
        assert outside.is_error
        assert "denied" in outside.text


async def test_server_memory_remembers_between_calls(servers: NodeServers, tmp_path: Path) -> None:
    async with opened(tmp_path / "home", servers.node) as world:
        how = {"mcp_transport": "stdio", "mcp_command": servers.node, "mcp_args": [servers.script("memory")]}
        env = {"MEMORY_FILE_PATH": str(tmp_path / "memory.json")}
        await world.create({"name": "mem", "display_name": "Mem", "protocol": "mcp", **how, "mcp_env": env})
        entity = {"name": "Ann", "entityType": "person", "observations": ["likes tea"]}
        await world.call("mem_create_entities", entities=[entity])
        assert "likes tea" in await world.call("mem_search_nodes", query="Ann")


@pytest.mark.parametrize("transport", ["stdio", "sse", "http"])
async def test_a_server_of_mcp_1_30_is_listed_and_called(tmp_path: Path, transport: str) -> None:
    python = str(old_client().python)
    async with opened(tmp_path, python) as world:
        body = {"name": "old", "display_name": "Old", "protocol": "mcp", "mcp_transport": transport}
        if transport == "stdio":
            await world.create({**body, "mcp_command": python, "mcp_args": [OLD, "stdio"]})
            assert "5" in await world.call("old_add", a=2, b=3)
            return
        port = free_port()
        with process([python, OLD, transport, str(port)], {"PATH": os.environ["PATH"]}):
            url = f"http://127.0.0.1:{port}/{'sse' if transport == 'sse' else 'mcp'}"
            await answers(url)
            await world.create({**body, "mcp_url": url})
            assert "5" in await world.call("old_add", a=2, b=3)


async def test_a_server_that_was_restarted_is_found_again_by_the_next_call(tmp_path: Path) -> None:
    python, port = str(old_client().python), free_port()
    url, words = f"http://127.0.0.1:{port}/mcp", [str(python), OLD, "http", str(port)]
    async with opened(tmp_path, python) as world:
        with process(words, {"PATH": os.environ["PATH"]}):
            await answers(url)
            await world.create(
                {"name": "old", "display_name": "Old", "protocol": "mcp", "mcp_transport": "http", "mcp_url": url}
            )
            assert "5" in await world.call("old_add", a=2, b=3)
        with process(words, {"PATH": os.environ["PATH"]}):
            await answers(url)
            assert "5" in await world.call("old_add", a=2, b=3)
