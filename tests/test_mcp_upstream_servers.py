"""Real MCP servers behind the gateway, against a direct client: server-everything, -filesystem, -memory, and every SDK's."""

import asyncio
import contextlib
import os
import re
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from server.listening import bind
from tests.mcp_upstreams import lowlevel
from tests.mcp_upstreams.nodeservers import NodeServers, node_servers
from tests.oldworld import environment_of, old_client
from tests.world import World, gateway, http, served
from tools.outcome import Outcome
from tools.parsing import parse_update

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.node]
FAST = str(Path(__file__).parent / "mcp_upstreams" / "fastserver.py")
SDKS = Path(FAST).parent / "sdks"


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


def content(outcome: Outcome) -> list[dict[str, Any]]:
    """What goes on to the client."""
    assert outcome.passed_on is not None, outcome.text
    return outcome.passed_on["content"]


CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("echo", {"message": "hello"}),
    ("get-sum", {"a": 2, "b": 3}),
    ("get-tiny-image", {}),
    ("get-structured-content", {"location": "New York"}),
    ("get-annotated-message", {"messageType": "error", "includeImage": True}),
    ("get-resource-reference", {"resourceType": "Text", "resourceId": 1}),
    ("get-resource-links", {"count": 3}),
)
ASKS = "trigger-elicitation-request"
"""Shown to clients only that can be asked."""


@pytest.mark.parametrize("transport", ["stdio", "sse", "http"])
async def test_server_everything_arrives_unchanged_but_for_the_name(
    servers: NodeServers, tmp_path: Path, transport: str
) -> None:
    asked: list[Any] = []

    async def answer(context: Any, params: Any) -> types.ElicitResult:
        asked.append(plain(params))
        return types.ElicitResult(action="accept", content={"name": "Ada", "integer": 7, "check": True})

    async with everything(servers, transport) as (how, target), opened(tmp_path, servers.node) as world:
        await world.create({"name": "every", "display_name": "Every", "protocol": "mcp", **how})
        key = await world.key()
        async with (
            served(world) as ours,
            http(ours, key) as client,
            Client(target, mode="legacy", elicitation_callback=answer) as direct,
        ):
            wire = streamable_http_client(ours + "/mcp", http_client=client)
            async with Client(wire, mode="legacy", elicitation_callback=answer) as through:
                theirs = {t.name: t for t in (await direct.list_tools()).tools}
                listed = {t.name: t for t in (await through.list_tools()).tools}
                if transport == "stdio":
                    del theirs[ASKS]  # docs/mcp-upstreams.md, "Questions to the user"
                assert {f"every_{name}" for name in theirs} - {"every_trigger-url-elicitation"} <= set(listed)
                assert ASKS in theirs or transport == "stdio"
                for name, tool in theirs.items():
                    if (
                        name == "trigger-url-elicitation"
                    ):  # for clients that visit URLs, which the direct one says it does
                        continue
                    assert listed[f"every_{name}"].description == tool.description
                called = 0
                for name, arguments in CALLS:
                    if name not in theirs:
                        continue
                    expected = plain(await direct.call_tool(name, arguments))
                    got = plain(await through.call_tool(f"every_{name}", arguments))
                    for result in (expected, got):
                        result.pop("_meta", None)
                        for block in result["content"]:
                            if resource := block.get("resource"):  # the server's clock went on between the two calls
                                resource["text"] = re.sub(
                                    r"created at [\d:]+ [AP]M", "created at TIME", resource["text"]
                                )
                    if "Time" not in str(expected) and "current time" not in str(expected):
                        assert got == expected, name
                    called += 1
                assert called >= 6
                if transport != "stdio":
                    expected = plain(await direct.call_tool(ASKS, {}))
                    got = plain(await through.call_tool(f"every_{ASKS}", {}))
                    assert got["content"] == expected["content"]
                    first, second = asked
                    assert second["requestedSchema"] == first["requestedSchema"]
                    assert second["message"].endswith(first["message"])


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


@dataclass(frozen=True)
class Sdk:
    """How a server by this SDK is started (before the words of a transport) and which transports it has."""

    words: tuple[str, ...]
    transports: tuple[str, ...]
    versions: frozenset[str]
    slash: str | None = None


def sdk(name: str) -> Sdk:
    """Skips the test in one line where it can't be installed."""
    match name:
        case "TypeScript 1.32":
            made = node_servers()
            return Sdk((made.node, made.own("server_v1.mjs")), ("stdio", "http"), frozenset({"2025-11-25"}))
        case "TypeScript 2.4":
            made = node_servers()
            return Sdk((made.node, made.own("server_v2.mjs")), ("stdio", "http"), frozenset({"2026-07-28"}))
        case "fastmcp 4":
            words = (str(environment_of("fastmcp4", SDKS / "fastmcp4.txt")), FAST)
            return Sdk(words, ("stdio", "http"), frozenset({"2026-07-28"}))
        case "mcp 1.30":
            return Sdk((str(old_client().python), FAST), ("stdio", "sse", "http"), frozenset({"2025-11-25"}))
        case "mcp 1.8.1":
            words = (str(environment_of("mcp181", SDKS / "mcp181.txt")), FAST)
            return Sdk(words, ("stdio", "sse", "http"), frozenset({"2024-11-05", "2025-03-26"}), "http")
        case _:
            words = (str(environment_of("mcp121", SDKS / "mcp121.txt")), FAST)
            return Sdk(words, ("stdio", "sse"), frozenset({"2024-11-05"}))


@asynccontextmanager
async def connected(world: World, made: Sdk) -> AsyncGenerator[None]:
    """Integrations named by their transport, over servers that are started at once."""
    python, *arguments = made.words
    async with contextlib.AsyncExitStack() as stack:
        urls: dict[str, str] = {}
        for transport in made.transports:
            if transport != "stdio":
                port = free_port()
                stack.enter_context(process([*made.words, transport, str(port)], {"PATH": os.environ["PATH"]}))
                urls[transport] = f"http://127.0.0.1:{port}/{'sse' if transport == 'sse' else 'mcp'}"
        await asyncio.gather(*(answers(url) for url in urls.values()))
        for transport in made.transports:
            body = {"name": transport, "display_name": "x", "protocol": "mcp", "mcp_transport": transport}
            if transport == "stdio":
                await world.create({**body, "mcp_command": python, "mcp_args": [*arguments, "stdio"]})
            else:
                await world.create({**body, "mcp_url": urls[transport]})
        if slash := made.slash:  # it redirects /mcp to /mcp/, which isn't followed: health says what to write
            health = await world.app.admin.health(world.owner)
            said = next(row["message"] for row in health["integrations"] if row["name"] == slash)
            assert said.endswith(f"to {urls[slash]}/: give that as mcp_url")
            await world.app.admin.update(world.owner, slash, parse_update({"mcp_url": urls[slash] + "/"}, slash))
        yield


@pytest.mark.parametrize(
    "name", ["mcp 1.2.1", "mcp 1.8.1", "mcp 1.30", "fastmcp 4", "TypeScript 1.32", "TypeScript 2.4"]
)
async def test_a_server_by_each_sdk_is_listed_and_called_over_its_transports(tmp_path: Path, name: str) -> None:
    made = sdk(name)
    async with opened(tmp_path, made.words[0]) as world, connected(world, made):
        page, _ = await world.app.toolbox.page(world.owner, None)
        listed = {e["name"]: e for e in page}
        for transport in made.transports:
            integration = await world.app.registry.get("acme", transport)
            assert integration.upstream_tools is not None
            version = integration.upstream_tools.protocol_version
            # A program that starts for longer than the probe waits is spoken to in the old way.
            assert version in made.versions or (transport == "stdio" and version == "2025-11-25")
            add = listed[f"{transport}_add"]
            assert add["description"] == "Adds two numbers."
            assert set(add["inputSchema"]["properties"]) == {"a", "b"}
            call = world.app.toolbox.call
            added = await call(world.owner, f"{transport}_add", {"a": 2, "b": 3})
            assert [b["text"] for b in content(added)] == ["5"]
            picture = content(await call(world.owner, f"{transport}_picture", {}))
            assert [(b["type"], b["mimeType"], b["data"]) for b in picture] == [("image", "image/png", lowlevel.PIXEL)]
            failed = await call(world.owner, f"{transport}_fails", {})
            assert failed.is_error
            assert "no such thing" in failed.text


async def test_a_server_that_was_restarted_is_found_again_by_the_next_call(tmp_path: Path) -> None:
    python, port = str(old_client().python), free_port()
    url, words = f"http://127.0.0.1:{port}/mcp", [str(python), FAST, "http", str(port)]
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
