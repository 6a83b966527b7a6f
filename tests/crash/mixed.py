"""kill -9 of replicas at random moments in a mixed load of edits, calls and background calls; then what is left is counted.

    python -m tests.crash.mixed sqlite|postgresql [moments] [seed]

Two servers share one new registry (they start at once, so they race for making it); each is killed and started again and again
while clients edit integrations, call tools and queue calls through both. What a client saw acknowledged is held against what the
registry and the upstream have in the end. Prints one JSON object; the exit code is 1 when something was lost or doubled.
"""

import asyncio
import json
import random
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.app import open_app
from server.settings import Settings
from tests import postgres
from tests.processes import SCRIPT, environment
from tests.world import listening
from tools.callers import local_caller
from tools.parsing import parse_create

EACH = 3
"""Clients of each kind."""
UNANSWERED = (httpx2.HTTPError,)
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "crash", "version": "1"},
}


@dataclass
class Upstream:
    """What arrived, by logical call: the Idempotency-Key of each request. One that honours keys has done one thing a key."""

    requests: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def app(self) -> Starlette:
        chance = random.Random(1)

        async def do(request: Request) -> Response:
            n = (await request.json())["n"]
            self.requests[n].append(request.headers["idempotency-key"])
            await asyncio.sleep(chance.uniform(0, 0.1))
            return JSONResponse({"done": n})

        return Starlette(routes=[Route("/do", do, methods=["POST"])])


class Replica:
    """A server process that can be killed and started again on its port."""

    def __init__(self, home: Path, database: str) -> None:
        self._command = [str(SCRIPT), "serve", "--json", "--home", str(home), "--database", database]
        self._env = environment(
            home,
            {
                "INTEGRATIONS_MCP_ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8",
                "INTEGRATIONS_MCP_QUEUE_WAIT": "0",
                "INTEGRATIONS_MCP_LOG_LEVEL": "error",
            },
        )
        self.url = ""
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        port = self.url.rpartition(":")[2] or "0"
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            "--port",
            port,
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(120):
            line = await self._process.stdout.readline()
        self.url = json.loads(line)["url"]

        async def ready() -> bool:
            assert self._process is not None
            if self._process.returncode is not None:
                raise RuntimeError(f"a server ended by itself with {self._process.returncode}")
            try:
                async with httpx2.AsyncClient(base_url=self.url, trust_env=False) as client:
                    return (await client.get("/readyz")).status_code == 200
            except UNANSWERED:
                return False

        if not await until(ready, 120):
            raise RuntimeError("a server didn't become ready")

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@dataclass
class Load:
    """The clients, and what they were told."""

    replicas: list[Replica]
    key: str
    chance: random.Random
    stop: bool = False
    told: dict[str, list[int]] = field(default_factory=dict)
    """By integration: the last acknowledged edit, and those since then of which nobody knows."""
    created: list[str] = field(default_factory=list)
    answered: dict[str, str] = field(default_factory=dict)
    accepted: dict[str, str] = field(default_factory=dict)
    unanswered: int = 0

    async def send(self, method: str, path: str, body: Any, **headers: str) -> httpx2.Response:
        url = self.chance.choice(self.replicas).url
        client = httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30)
        async with client:
            more = {"Authorization": f"Bearer {self.key}", **headers}
            return await client.request(method, path, json=body, headers=more)

    async def tool(self, name: str, arguments: dict[str, Any], key: str | None = None) -> str | None:
        """What the agent sees; None: no answer, or a server that is just going."""
        meta = META if key is None else {**META, "idempotency_key": key}
        params = {"name": name, "arguments": arguments, "_meta": meta}
        headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": name}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        try:
            answer = await self.send("POST", "/mcp", body, **headers, Accept="application/json, text/event-stream")
            if answer.status_code != 200:
                return None
            result = answer.json()["result"]
        except (*UNANSWERED, ValueError, KeyError):
            self.unanswered += 1
            return None
        return str(result["content"][0]["text"])

    async def edit(self, name: str) -> None:
        last = 0
        for n in range(1, sys.maxsize):
            if self.stop:
                return
            try:
                answer = await self.send("PUT", f"/v1/acme/integrations/{name}", {"display_name": f"{n}"})
                done = answer.status_code == 200
            except UNANSWERED:
                done, self.unanswered = False, self.unanswered + 1
            if done:
                last, self.told[name] = n, [n]
            else:
                self.told.setdefault(name, [last]).append(n)
                await asyncio.sleep(0.05)

    async def create(self, prefix: str) -> None:
        n = 0
        while not self.stop:
            n += 1
            name = f"{prefix}_{n}"
            body = {"name": name, "display_name": name, "base_url": "https://api.example"}
            try:
                if (await self.send("POST", "/v1/acme/integrations", body)).status_code == 201:
                    self.created.append(name)
            except UNANSWERED:
                self.unanswered += 1
            await asyncio.sleep(0.3)

    async def call(self, tool: str, kind: str) -> None:
        """Each call again and again with its key until it is answered, as a client that wants it done."""
        while not self.stop:
            n, key, text = f"{kind}-{uuid.uuid4().hex[:12]}", uuid.uuid4().hex, None
            while text is None and not self.stop:
                text = await self.tool(tool, {"n": n}, key)
                if text is None:
                    await asyncio.sleep(0.05)
            if text is not None and kind == "now":
                self.answered[n] = text
            elif text is not None and '{"result_id":"' in text:
                self.accepted[n] = text.partition('{"result_id":"')[2].partition('"')[0]


async def until(true: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if await true():
            return True
        await asyncio.sleep(0.2)
    return False


async def run(database: str, home: Path, moments: int, seed: int) -> dict[str, Any]:
    """`database` is the URL of a new registry. The figures; `wrong` names whatever was lost or doubled."""
    upstream, chance = Upstream(), random.Random(seed)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(listening(upstream.app()))
        replicas = [Replica(home, database), Replica(home, database)]
        for replica in replicas:
            stack.push_async_callback(replica.kill)
        await asyncio.gather(*(replica.start() for replica in replicas))
        load = Load(replicas, await prepared(database, home, url), random.Random(seed + 1))
        clients = [asyncio.ensure_future(load.edit(f"edited{n}")) for n in range(EACH)]
        clients += [asyncio.ensure_future(load.create(f"made{n}")) for n in range(EACH)]
        for tool, kind in (("up_now", "now"), ("up_later", "later"), ("up_once", "once")):
            clients += [asyncio.ensure_future(load.call(tool, kind)) for _ in range(EACH)]
        began = time.monotonic()
        left = iter(range(moments))

        async def torment(victim: Replica) -> None:
            for _ in left:
                await asyncio.sleep(chance.uniform(0.1, 2.5))
                await victim.kill()
                await victim.start()

        await asyncio.gather(*(torment(replica) for replica in replicas))
        load.stop = True
        await asyncio.gather(*clients)
        seconds = time.monotonic() - began
        wrong, ends = await judged(load, upstream)
    return {
        "moments": moments,
        "seconds": round(seconds),
        "edits": sum(told[0] for told in load.told.values()),
        "created": len(load.created),
        "calls answered": len(load.answered),
        "background calls accepted": len(load.accepted),
        "how they ended": ends,
        "requests without an answer": load.unanswered,
        "requests upstream": sum(map(len, upstream.requests.values())),
        "wrong": wrong,
    }


async def prepared(database: str, home: Path, upstream: str) -> str:
    """Writes the integrations; the key of the clients."""
    body = {"type": "object", "properties": {"n": {"type": "string"}}, "required": ["n"]}
    do = {"description": "Does.", "method": "POST", "path": "/do", "input_schema": body, "timeout_seconds": 20}
    later = {**do, "result_delivery": "queue"}
    endpoints = [
        {**do, "name": "now", "annotations": {"idempotentHint": True}},
        {**later, "name": "later", "annotations": {"idempotentHint": True}},
        {**later, "name": "once"},
    ]
    settings = Settings(
        home=home, database_url=database, workspace="acme", log_level="error", allow_private_networks="127.0.0.0/8"
    )
    async with open_app(settings) as app:
        owner = local_caller("acme")
        up = {"name": "up", "display_name": "Up", "base_url": upstream, "endpoints": endpoints}
        await app.admin.create(owner, parse_create(up))
        for n in range(EACH):
            edited = {"name": f"edited{n}", "display_name": "0", "base_url": "https://api.example"}
            await app.admin.create(owner, parse_create(edited))
        return (await app.keys.create("acme", role="owner")).api_key


async def judged(load: Load, upstream: Upstream) -> tuple[list[str], dict[str, int]]:
    """What is wrong; and how many background calls ended how."""
    wrong: list[str] = []
    for name, may_be in load.told.items():
        found = (await load.send("GET", f"/v1/acme/integrations/{name}", None)).json()["display_name"]
        if found not in {str(n) for n in may_be}:
            wrong.append(f"{name}: {found!r} is none of {may_be}")
    for name in load.created:
        if (await load.send("GET", f"/v1/acme/integrations/{name}", None)).status_code != 200:
            wrong.append(f"{name} was acknowledged and isn't there")
    ends: dict[str, int] = defaultdict(int)
    for n, id in load.accepted.items():
        text: str | None = None

        async def has_ended(id: str = id) -> bool:
            nonlocal text
            text = await load.tool("get_result", {"result_id": id})
            return text is not None and not text.startswith("Still running")

        if not await until(has_ended, 120):
            wrong.append(f"{n} was accepted and never ended: {text}")
            continue
        end = "done" if text and n in text else "may have been carried out" if text and "MAY have" in text else "other"
        ends[f"{n.partition('-')[0]}: {end}"] += 1
        if end == "other" or (end != "done" and n.startswith("later")):
            wrong.append(f"{n} ended with {text}")
        if end == "done" and n not in upstream.requests:
            wrong.append(f"{n} is done and never came to the upstream")
    for n, text in load.answered.items():
        if n not in text and "[sent_before]" not in text and "MAY have" not in text:
            wrong.append(f"{n} was answered with {text}")
    for n, keys in upstream.requests.items():
        if len(set(keys)) > 1:
            wrong.append(f"{n} came with {len(set(keys))} keys")
        if n.startswith("once") and len(keys) > 1:
            wrong.append(f"{n} was sent {len(keys)} times")
    return wrong, dict(ends)


@asynccontextmanager
async def new_registry(kind: str, home: Path) -> AsyncGenerator[str, None]:
    server = postgres.running() if kind == "postgresql" else nullcontext()
    with server as running:
        yield running.fresh_url() if running is not None else f"sqlite:///{home}/registry.db"


async def main(kind: str, moments: int, seed: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        async with new_registry(kind, home) as database:
            figures = await run(database, home, moments, seed)
    print(json.dumps({"database": kind, **figures}, indent=1))
    return 1 if figures["wrong"] else 0


if __name__ == "__main__":
    kind, moments, seed, *_ = (*sys.argv[1:], *("sqlite", "200", "7")[len(sys.argv) - 1 :])
    sys.exit(asyncio.run(main(kind, int(moments), int(seed))))
