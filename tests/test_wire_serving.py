"""`serve` as a process: it drains when asked to end, on every kind of wire; workers; a taken port; a free one."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx2
import psutil
import pytest
from anyio import to_thread
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from tests.processes import run, running
from tests.upstreams import Hostile, Received, answer, silence
from tests.world import World, gateway, http

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

Kind = Literal["modern", "session", "sse", "modern workers", "stateless workers"]
KINDS: tuple[Kind, ...] = ("modern", "session", "sse", "modern workers", "stateless workers")
LOOPBACK = {"INTEGRATIONS_MCP_ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8", "INTEGRATIONS_MCP_WORKSPACE": "acme"}


def arguments(kind: Kind) -> list[str]:
    return ["serve", "--port", "0", "--json", *(["--workers", "2"] if kind.endswith("workers") else [])]


@asynccontextmanager
async def connected(kind: Kind, url: str, key: str) -> AsyncGenerator[Client]:
    async with AsyncExitStack() as stack:
        if kind == "sse":
            transport: Any = sse_client(f"{url}/sse", {"Authorization": f"Bearer {key}"})
        else:
            client = await stack.enter_async_context(http(url, key))
            transport = streamable_http_client(f"{url}/mcp", http_client=client)
        yield await stack.enter_async_context(Client(transport, mode="auto" if kind.startswith("modern") else "legacy"))


async def shop(world: World, base_url: str, name: str = "shop") -> None:
    get = [{"name": n, "description": f"Gets {n}.", "method": "GET", "path": f"/{n}"} for n in ("slow", "never")]
    await world.create({"name": name, "display_name": name, "base_url": base_url, "endpoints": get})


async def until_ready(url: str) -> None:
    """The listening socket takes connections from the start, so one request that waits is enough."""
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
        assert (await client.get(f"{url}/readyz")).status_code == 200


@pytest.mark.parametrize("kind", KINDS)
async def test_a_running_call_ends_before_the_process_does(tmp_path: Path, kind: Kind) -> None:
    go = asyncio.Event()

    async def slow(request: Received, writer: asyncio.StreamWriter) -> bool:
        await go.wait()
        return await answer(200, b"done", {"Content-Type": "text/plain"})(request, writer)

    results: list[Any] = []
    with anyio.fail_after(50), running(tmp_path, *arguments(kind), env=LOOPBACK) as process:
        async with Hostile() as upstream, gateway(tmp_path) as world:
            upstream.script("/slow", slow)
            await shop(world, upstream.url)
            url = process.json_line()["url"]
            await until_ready(url)
            async with connected(kind, url, await world.key()) as client, anyio.create_task_group() as tasks:
                await client.list_tools()  # else the client does so after the call, when nobody answers any more

                async def call() -> None:
                    results.append(await client.call_tool("shop_slow", {}))

                tasks.start_soon(call)
                await upstream.until(lambda: len(upstream.received) == 1)
                process.send(signal.SIGTERM)
                await refuses_connections(url)
                assert process.process.poll() is None
                go.set()
            code = await to_thread.run_sync(process.end)
    assert [b.text for b in results[0].content] == ["done"]
    assert code == 0


async def refuses_connections(url: str) -> None:
    """Waits until the process has heard the signal: it takes no new connections."""
    where = httpx2.URL(url)
    while True:
        try:
            stream = await anyio.connect_tcp(where.host, where.port or 0)
        except OSError:
            return
        await stream.aclose()
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("kind", ["modern", "modern workers"])
async def test_a_listen_stream_is_closed_on_purpose(tmp_path: Path, kind: Kind) -> None:
    with anyio.fail_after(50), running(tmp_path, *arguments(kind), env=LOOPBACK) as process:
        async with gateway(tmp_path) as world:
            url = process.json_line()["url"]
            await until_ready(url)
            async with (
                connected(kind, url, await world.key()) as client,
                client.listen(tools_list_changed=True) as subscription,
            ):
                process.send(signal.SIGTERM)
                # A stream that just breaks raises SubscriptionLost here.
                assert [event async for event in subscription] == []
            code = await to_thread.run_sync(process.end)
    assert code == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_call_that_never_ends_is_given_up_after_the_grace_time(
    tmp_path: Path, kind: Kind, number: signal.Signals
) -> None:
    env = {**LOOPBACK, "INTEGRATIONS_MCP_GRACE_SECONDS": "1"}
    with anyio.fail_after(50), running(tmp_path, *arguments(kind), env=env) as process:
        async with Hostile() as upstream, gateway(tmp_path) as world:
            upstream.script("/never", silence)
            await shop(world, upstream.url)
            url = process.json_line()["url"]
            await until_ready(url)
            key = await world.key()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(never, kind, url, key)
                await upstream.until(lambda: len(upstream.received) == 1)
                process.send(number)
                code = await to_thread.run_sync(process.end)
                tasks.cancel_scope.cancel()
            await upstream.until(lambda: upstream.open == 0)
    assert code == 0


async def never(kind: Kind, url: str, key: str) -> None:
    """A call whose connection breaks under it, however the client tells that."""
    try:
        async with connected(kind, url, key) as client:
            await client.call_tool("shop_never", {})
    except Exception:
        await anyio.sleep_forever()


async def test_two_workers_serve_and_both_see_a_new_integration(tmp_path: Path) -> None:
    with anyio.fail_after(50), running(tmp_path, *arguments("modern workers"), env=LOOPBACK) as process:
        async with gateway(tmp_path) as world:
            url = process.json_line()["url"]
            await until_ready(url)
            key = await world.key("agent")
            workers = [
                p for p in psutil.Process(process.process.pid).children() if "spawn_main" in " ".join(p.cmdline())
            ]
            assert len(workers) == 2
            seen: dict[int, list[str]] = {}
            await shop(world, "http://127.0.0.1:9")
            # Workers take connections as they come: a new one each time reaches both soon.
            while len(seen) < 2:
                async with connected("modern workers", url, key) as client:
                    names = [t.name for t in (await client.list_tools()).tools]
                    pid = worker_of(workers, url)
                    if "shop_slow" in names and pid is not None:
                        seen[pid] = names
            process.send()
            code = await to_thread.run_sync(process.end)
    assert code == 0
    assert all(names == ["get_result", "shop_never", "shop_slow"] for names in seen.values())


def worker_of(workers: list[psutil.Process], url: str) -> int | None:
    """The worker that holds a connection to the server's port just now."""
    port = httpx2.URL(url).port
    for worker in workers:
        if any(c.status == "ESTABLISHED" and c.laddr.port == port for c in worker.net_connections("tcp")):
            return worker.pid
    return None


def test_a_taken_port_is_told_with_what_to_do(tmp_path: Path) -> None:
    with running(tmp_path, "serve", "--port", "0", "--json") as first:
        port = str(httpx2.URL(first.json_line()["url"]).port)
        for workers in ("1", "2"):
            second = run(tmp_path, "serve", "--port", port, "--workers", workers)
            assert second.returncode == 1
            assert second.stdout == ""
            assert second.stderr.strip().splitlines() == [
                f"integrations-mcp: port {port} on 127.0.0.1 is taken: choose another with --port, or 0 for a free one"
            ]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_json_is_one_line_and_nothing_else_on_stdout(tmp_path: Path, workers: str) -> None:
    with running(tmp_path, "serve", "--port", "0", "--json", "--workers", workers) as process:
        said = process.json_line()
        assert httpx2.get(f"{said['url']}/readyz", trust_env=False, timeout=30).status_code == 200
        process.send()
        out, err = process.rest()
    assert process.process.returncode == 0
    assert out == ""
    assert said == {
        "url": said["url"],
        "mcp_url": f"{said['url']}/mcp",
        "sse_url": f"{said['url']}/sse",
        "rest_url": f"{said['url']}/v1",
    }
    assert "Traceback" not in err


def test_without_json_the_port_that_was_picked_is_said(tmp_path: Path) -> None:
    with running(tmp_path, "serve", "--port", "0") as process:
        line = process.error_line()
        url = line.split("listening on ")[1].split(" ")[0]
        assert httpx2.get(f"{url}/healthz", trust_env=False, timeout=30).json() == {"status": "ok"}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_database_that_cannot_be_opened_is_a_sentence(tmp_path: Path, workers: str) -> None:
    (tmp_path / "registry.db").write_text("not a database, " * 100)
    done = run(tmp_path, "serve", "--port", "0", "--workers", workers)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "registry.db" in done.stderr
    assert "listening on" not in done.stderr
