"""What `Upstream.send` costs beside bare aiohttp: CPU of one GET of 2 KB on loopback over keep-alive.

    python -m tests.bench.bench_upstream [rounds] [calls]

The server is a process of its own, so that the CPU time counted here is the client's alone; the candidates take turns.
"""

import asyncio
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import aiohttp

from tools.address_guard import NetworkPolicy
from tools.upstream import Request, Retry, Upstream

ITEM = {"id": 12345, "name": "item 12345", "tags": ["alpha", "bravo", "charlie"], "text": "x" * 1973}
BODY = json.dumps(ITEM, separators=(",", ":")).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


class _Server(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self.transport.write(ANSWER)


def serve(pipe: Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


async def microseconds(call: Callable[[], Awaitable[bytes]], calls: int) -> float:
    started = time.process_time()
    for _ in range(calls):
        assert len(await call()) == len(BODY)
    return (time.process_time() - started) / calls * 1e6


async def run(port: int, rounds: int, calls: int) -> None:
    url = f"http://127.0.0.1:{port}/patients/1?x=1"
    headers = (("Accept", "application/json"), ("Authorization", "Bearer abcdefgh"))
    request = Request("GET", url, headers)
    retry = Retry(2, frozenset({429, 503}))
    upstream = Upstream(NetworkPolicy(allow_private=True))
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def bare() -> bytes:
            async with session.get(url, headers=headers) as response:
                return await response.read()

        async def ours() -> bytes:
            return (await upstream.send(request, pool="bench", retry=retry)).body

        candidates = {"aiohttp": bare, "upstream": ours}
        results: dict[str, list[float]] = {name: [] for name in candidates}
        for call in candidates.values():
            await microseconds(call, 300)
        for _ in range(rounds):
            for name, call in candidates.items():
                results[name].append(await microseconds(call, calls))
    await upstream.aclose()
    for name, values in results.items():
        print(f"{name:10} {statistics.median(values):6.1f} us  (best {min(values):.1f})")


def main() -> None:
    rounds, calls = (int(argument) for argument in (*sys.argv[1:], "7", "2000")[:2])
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        try:
            import uvloop

            uvloop.run(run(ours.recv(), rounds, calls))
        except ImportError:
            asyncio.run(run(ours.recv(), rounds, calls))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
