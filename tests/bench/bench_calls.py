"""What one tools/call costs inside the gateway: CPU of the ASGI application and of the pipeline alone, upstream on loopback.

    python -m tests.bench.bench_calls [rounds] [calls]

The upstream is a process of its own, so that the CPU time counted here is the gateway's. For calls/s of the served gateway beside
other servers see docs/performance.md.
"""

import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from server.serving import Serving
from tests.bench.bench_upstream import serve
from tests.world import gateway

SIDE_BY_SIDE = 16
SHAPING = {
    "response_filter": ["id", "name", "tags"],
    "response_mapping": {"id": "id", "name": "name", "tags": "tags"},
    "result_template": "{{ id }} {{ name }}: {{ tags | join(', ') }}",
}


def integration(port: int) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
    plain = {"description": "Gets one item.", "method": "GET", "path": "/item/{id}", "input_schema": schema}
    return {
        "name": "bench",
        "display_name": "Bench",
        "base_url": f"http://127.0.0.1:{port}",
        "auth": {"type": "api_key_header", "api_key_value": {"value": "bench-secret-0123456789"}},
        "endpoints": [{"name": "plain", **plain}, {"name": "shaped", **plain, **SHAPING}],
    }


async def microseconds(call: Callable[[], Awaitable[object]], calls: int) -> float:
    """CPU of one call while SIDE_BY_SIDE of them run at a time."""

    async def some() -> None:
        for _ in range(calls // SIDE_BY_SIDE):
            await call()

    started = time.process_time()
    await asyncio.gather(*(some() for _ in range(SIDE_BY_SIDE)))
    return (time.process_time() - started) / (calls // SIDE_BY_SIDE * SIDE_BY_SIDE) * 1e6


def request(tool: str, key: str) -> tuple[dict[str, Any], bytes]:
    """(ASGI scope, body) of a call at protocol 2026-07-28."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": tool, "arguments": {"id": 12345}, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    headers = {
        "host": "localhost",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "authorization": f"Bearer {key}",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": tool,
    }
    rows = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": "POST", "path": "/mcp", "headers": rows, "client": ("127.0.0.1", 1)}, body


async def run(port: int, rounds: int, calls: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        async with gateway(Path(home)) as world:
            await world.create(integration(port))
            key = await world.key("agent")
            caller = await world.app.keys.caller(key, "bench")
            serving = Serving(world.app.settings, app=world.app)
            forever = asyncio.Event()
            async with serving.opened():

                def through_http(tool: str) -> Callable[[], Awaitable[object]]:
                    scope, body = request(tool, key)

                    async def call() -> None:
                        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

                        async def receive() -> dict[str, Any]:
                            message = next(messages, None)
                            if message is None:
                                await forever.wait()  # the client stays
                            return message or {}

                        async def send(message: Any) -> None:
                            assert message.get("status", 200) == 200

                        await serving(dict(scope), receive, send)

                    return call

                candidates: dict[str, Callable[[], Awaitable[object]]] = {
                    "pipeline": lambda: world.app.toolbox.call(caller, "bench_plain", {"id": 12345}),
                    "pipeline, shaped": lambda: world.app.toolbox.call(caller, "bench_shaped", {"id": 12345}),
                    "ASGI": through_http("bench_plain"),
                    "ASGI, shaped": through_http("bench_shaped"),
                }
                results: dict[str, list[float]] = {name: [] for name in candidates}
                for call in candidates.values():
                    await microseconds(call, 320)
                for _ in range(rounds):
                    for name, call in candidates.items():
                        results[name].append(await microseconds(call, calls))
    for name, values in results.items():
        print(f"{name:18} {statistics.median(values):6.1f} us  (best {min(values):.1f})")


def main() -> None:
    rounds, calls = (int(argument) for argument in (*sys.argv[1:], "5", "2000")[:2])
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        import uvloop

        uvloop.run(run(ours.recv(), rounds, calls))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
