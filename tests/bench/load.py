"""What the long runs share: a served gateway on a core of its own, an upstream, and a client that costs little.

Everything listens on loopback and ends with its block.
"""

import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import psutil

from tests.bench.bench_upstream import ANSWER
from tests.processes import SCRIPT, environment

SERVER_CORE, LOAD_CORE = 0, 1
METRICS_TOKEN = "bench-figures-0123456789"
LIST_OF_ITEMS = json.dumps([{"id": i, "name": f"item {i}", "text": "x" * 80} for i in range(200)]).encode()
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
}


def head(status: int, body: bytes, kind: str = "application/json") -> bytes:
    return (
        b"HTTP/1.1 %d X\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (status, kind.encode(), len(body)) + body
    )


ANSWERS = {
    b"/item": ANSWER,
    b"/many": head(200, LIST_OF_ITEMS),
    b"/fail": head(500, b'{"error": "the system has a fault"}'),
    b"/gone": head(404, b'{"error": "no such item"}'),
    b"/text": head(200, b"not JSON {", "application/json"),
}


class _Upstream(asyncio.Protocol):
    """Answers GETs by the first part of their path; /wait/MS waits as long."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        if not data.endswith(b"\r\n\r\n"):
            return
        target = data.split(b" ", 2)[1]
        kind = target[:5]
        if kind == b"/wait":
            seconds = int(target.split(b"/")[2]) / 1000
            asyncio.get_running_loop().call_later(seconds, self._answer)
        else:
            self.transport.write(ANSWERS[kind])

    def _answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(ANSWER)


def _serve_upstream(pipe: Connection) -> None:
    pin(LOAD_CORE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(_Upstream, "127.0.0.1", 0, backlog=2048)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    import uvloop

    uvloop.run(run())


@contextmanager
def upstream() -> Generator[int]:
    """The upstream as a process of its own; gives its port."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_serve_upstream, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join(10)


def pin(core: int) -> None:
    """This process on one core, where the machine has several and says which."""
    if hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > core:
        os.sched_setaffinity(0, {core})


def settings(home: Path, **more: str) -> dict[str, str]:
    """The environment of a gateway that may reach the upstream."""
    given = {
        "INTEGRATIONS_MCP_ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8",
        "INTEGRATIONS_MCP_METRICS_TOKEN": METRICS_TOKEN,
        "INTEGRATIONS_MCP_LOG_LEVEL": "warning",
        "INTEGRATIONS_MCP_WORKSPACE": "acme",
        **more,
    }
    return environment(home, given)


def shell(home: Path, *arguments: str) -> str:
    done = subprocess.run(
        [SCRIPT, *arguments], env=settings(home), capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments[:2])}: {done.stderr[-500:]}")
    return done.stdout


def load(home: Path, integrations: list[dict[str, Any]]) -> None:
    """Writes integrations as an operator does."""
    file = home / "integrations.json"
    file.write_text(json.dumps(integrations))
    shell(home, "load", str(file))


def new_key(home: Path, role: str = "agent") -> str:
    return json.loads(shell(home, "keys", "create", "--workspace", "acme", "--role", role, "--json"))["api_key"]


@dataclass
class Gateway:
    """One `integrations-mcp serve`."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def rss(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    @property
    def cpu_s(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def figures(self) -> dict[str, float]:
        """What /metrics says, added up over labels but the connections' state."""
        request = f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {METRICS_TOKEN}\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as sock:
            sock.sendall(request.encode())
            text = b"".join(iter(lambda: sock.recv(1 << 16), b"")).decode()
        found: dict[str, float] = {}
        for name, labels, value in re.findall(r"^([a-z_]+)(\{.*\})? (\S+)\r?$", text, re.MULTILINE):
            state = re.search(r'state="(\w+)"', labels)
            key = f"{name} {state[1]}" if state else name
            found[key] = found.get(key, 0.0) + float(value)
        return found


@contextmanager
def serving(home: Path, *options: str, **more: str) -> Generator[Gateway]:
    """`integrations-mcp serve` on SERVER_CORE until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (home / "serve.log").open("ab") as out:
        process = subprocess.Popen(
            [SCRIPT, "serve", "--port", str(port), *options],
            env=settings(home, **more),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            preexec_fn=lambda: pin(SERVER_CORE),
        )
    try:
        _until_ready(port, process, home)
        yield Gateway(port, process)
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_ready(port: int, process: subprocess.Popen[bytes], home: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            if b" 200 " in sock.recv(64):
                return
        time.sleep(0.05)
    raise RuntimeError(f"it didn't start: {(home / 'serve.log').read_text()[-1000:]}")


@dataclass(frozen=True)
class Ask:
    """One request as it goes over the wire, and what its answer must hold."""

    kind: str
    data: bytes
    marker: bytes
    status: int = 200


def call(kind: str, key: str, tool: str, arguments: dict[str, Any], marker: bytes, session: str | None = None) -> Ask:
    """tools/call at 2026-07-28, or in a session of 2025-11-25."""
    return _rpc(kind, key, "tools/call", {"name": tool, "arguments": arguments}, marker, tool, session)


def listing(key: str, marker: bytes = b'"tools"') -> Ask:
    return _rpc("tools/list", key, "tools/list", {}, marker)


def _rpc(
    kind: str, key: str, method: str, params: dict[str, Any], marker: bytes, name: str = "", session: str | None = None
) -> Ask:
    new = session is None
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, **({"_meta": META} if new else {})}}
    own = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method, **({"Mcp-Name": name} if name else {})}
    old = {"MCP-Protocol-Version": "2025-11-25", "Mcp-Session-Id": session or ""}
    return Ask(kind, post("/mcp", key, message, own if new else old), marker)


def post(path: str, key: str, body: Any, headers: dict[str, str], method: str = "POST") -> bytes:
    data = json.dumps(body, separators=(",", ":")).encode()
    shown = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "Authorization": f"Bearer {key}",
        "Content-Length": str(len(data)),
        **headers,
    }
    lines = "".join(f"{n}: {v}\r\n" for n, v in shown.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + data


def session_of(port: int, key: str) -> str:
    """A session of 2025-11-25, initialized."""
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(post("/mcp", key, message, {"Connection": "close"}))
        answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
        found = re.search(rb"(?i)mcp-session-id: (\S+)", answer)
        if found is None:
            raise RuntimeError(f"no session: {answer[:300]!r}")
    session = found[1].decode()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        sock.sendall(post("/mcp", key, told, {"Connection": "close", "Mcp-Session-Id": session}))
        while sock.recv(1 << 16):
            pass
    return session


@dataclass
class Tally:
    """What came back: milliseconds by kind, and what was wrong."""

    ms: "dict[str, array[float]]" = field(default_factory=lambda: defaultdict(lambda: array("d")))
    faults: list[str] = field(default_factory=list[str])
    wrong: int = 0
    seconds: float = 0.0

    @property
    def count(self) -> int:
        return sum(map(len, self.ms.values()))

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    def percentile(self, share: float, kind: str | None = None) -> float:
        ordered = sorted(v for name, values in self.ms.items() if kind in (None, name) for v in values)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Loop(asyncio.Protocol):
    """A closed loop on one connection: the next request goes when the answer is in."""

    def __init__(self, take: Callable[[], Ask | None], tally: Tally, ended: "asyncio.Future[None]") -> None:
        self._take, self._tally, self._ended = take, tally, ended
        self._got = bytearray()
        self._ask: Ask | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by class
        self._next()

    def _next(self) -> None:
        ask = self._take()
        if ask is None:
            self._ask = None
            self._transport.close()
            return
        self._ask, self._began, self._size = ask, time.perf_counter(), -1
        self._transport.write(ask.data)

    def data_received(self, data: bytes) -> None:
        got = self._got
        got += data
        if self._size < 0:
            end = got.find(b"\r\n\r\n")
            if end < 0:
                return
            at = got.lower().find(b"content-length:", 0, end)
            self._size = end + 4 + int(got[at + 15 : got.index(b"\r", at)]) if at >= 0 else 0
        if len(got) < self._size or (self._size == 0 and not got.endswith(b"0\r\n\r\n")):
            return
        tally, ask = self._tally, self._ask
        assert ask is not None
        tally.ms[ask.kind].append((time.perf_counter() - self._began) * 1000)
        if not got.startswith(b"HTTP/1.1 %d " % ask.status) or ask.marker not in got:
            self._fault(f"{ask.kind}: {bytes(got[:900])!r}")
        del got[:]
        self._next()

    def _fault(self, text: str) -> None:
        self._tally.wrong += 1
        if len(self._tally.faults) < 5:
            self._tally.faults.append(text)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ask is not None:
            self._fault(f"{self._ask.kind}: the connection ended before the answer: {exc}")
        if not self._ended.done():
            self._ended.set_result(None)


async def drive(port: int, connections: int, take: Callable[[], Ask | None], most_s: float = 3600) -> Tally:
    """`connections` closed loops until `take` gives None to each; cancelled, the clients leave. Raises TimeoutError after `most_s`."""
    loop, tally = asyncio.get_running_loop(), Tally()
    ends = [loop.create_future() for _ in range(connections)]
    began = time.perf_counter()
    opened: list[asyncio.BaseTransport] = []
    try:
        for end in ends:
            opened.append((await loop.create_connection(lambda end=end: Loop(take, tally, end), "127.0.0.1", port))[0])
        _, left = await asyncio.wait(ends, timeout=most_s)
        if left:
            raise TimeoutError(f"{len(left)} of {connections} connections wait for an answer after {most_s} s")
    finally:
        for transport in opened:
            transport.close()
    tally.seconds = time.perf_counter() - began
    return tally


def lasting(seconds: float, asks: "list[Ask]") -> Callable[[], Ask | None]:
    """These requests in turn, for a time."""
    until, count = time.perf_counter() + seconds, len(asks)
    n = -1

    def take() -> Ask | None:
        nonlocal n
        n += 1
        return asks[n % count] if time.perf_counter() < until else None

    return take


def endpoint(name: str, path: str, **more: Any) -> dict[str, Any]:
    """A GET without retries; `{id}` is an integer."""
    schema = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
    made: dict[str, Any] = {"name": name, "description": f"Gets {name}.", "method": "GET", "path": path}
    if "{id}" in path:
        made["input_schema"] = schema
    return {**made, "retry_config": {"max_retries": 0}, **more}


def integration(name: str, port: int, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
    auth = {"type": "api_key_header", "api_key_value": {"value": "bench-secret-0123456789"}}
    url = f"http://127.0.0.1:{port}"
    return {"name": name, "display_name": name.title(), "base_url": url, "auth": auth, "endpoints": endpoints}


def verdict(rows: list[tuple[str, bool]]) -> int:
    """Prints each line with its verdict; the exit code."""
    for text, good in rows:
        print(f"{'ok  ' if good else 'NOT '} {text}", flush=True)
    good = all(good for _, good in rows)
    print("VERDICT: reached" if good else "VERDICT: not reached")
    return 0 if good else 1
