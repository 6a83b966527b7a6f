"""Replicas on one PostgreSQL behind nginx, round robin, while everything is changed and restarted under them.

    python -m tests.bench.soak_replicas [minutes]

Calls of three kinds, edits, key rotations, replicas ended by SIGTERM and kill -9, restarts of the database. Prints what failed and
whether it may: calls in flight at a kill -9; edits and background calls while the database is down (with a reason); background calls
whose key was revoked before they were sent. Needs PostgreSQL and nginx (Debian's packages) and a few hundred megabytes. Everything
listens on loopback and ends with the script.
"""

import asyncio
import collections
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.postgres import Postgres
from tests.processes import SCRIPT, environment
from tests.upstreams import Hostile

REPLICAS = 3
CALLERS = 12
PACE_S = 0.04
STALE_S = 1.0
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "soak", "version": "1"},
}
NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log warn; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream gateway {{ {servers} }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://gateway; proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 90s; proxy_connect_timeout 2s;
      proxy_set_header Host $http_host; proxy_set_header Connection "";
    }}
  }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Replica:
    """One `integrations-mcp serve` on a port of its own, started again and again."""

    home: Path
    port: int
    env: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    rss: list[list[int]] = field(default_factory=list[list[int]])

    def start(self) -> None:
        out = (self.home / f"replica-{self.port}.log").open("ab")
        command = [SCRIPT, "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, env=self.env, cwd=self.home, stdout=out, stderr=out, stdin=subprocess.DEVNULL
        )
        self.rss.append([])

    def measure(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.rss[-1].append(psutil.Process(self.process.pid).memory_info().rss)

    async def ready(self, http: aiohttp.ClientSession) -> None:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with http.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
                        if answer.status == 200:
                            return
                if self.process is not None and self.process.poll() is not None:
                    self.start()  # as a supervisor does: it ends where the database is away at its start
                await asyncio.sleep(0.05)


@dataclass
class Log:
    """What happened, by kind; `excused` are moments (from, to) in which a kind of failure may happen."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter[str])
    faults: list[str] = field(default_factory=list[str])
    kills: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    outages: list[list[float]] = field(default_factory=list[list[float]])
    revoked: list[float] = field(default_factory=list[float])
    acknowledged: list[tuple[float, int]] = field(default_factory=lambda: [(0.0, 0)])

    def in_flight_at_a_kill(self, began: float, ended: float) -> bool:
        return any(began <= until and ended >= at for at, until in self.kills)

    def during_an_outage(self, began: float, ended: float) -> bool:
        return any(began <= end + 5 and ended >= start for start, end in self.outages)

    def fault(self, what: str) -> None:
        self.counts["FAULTS"] += 1
        if len(self.faults) < 400:
            self.faults.append(what)


class Soak:
    def __init__(self, http: aiohttp.ClientSession, url: str, replicas: list[Replica], postgres: Postgres) -> None:
        self.http, self.url, self.replicas, self.postgres = http, url, replicas, postgres
        self.log, self.key, self.key_id, self.version = Log(), "", "", 0
        self.ids = itertools.count(1)

    async def rpc(self, tool: str, arguments: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        params = {"name": tool, "arguments": arguments, "_meta": META}
        body = {"jsonrpc": "2.0", "id": next(self.ids), "method": "tools/call", "params": params}
        headers = {
            "Authorization": f"Bearer {self.key}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/call",
            "Mcp-Name": tool,
        }
        async with self.http.post(f"{self.url}/mcp", json=body, headers=headers) as answer:
            text = await answer.text()
            if text.startswith("event:") or "\ndata:" in text:
                text = text.rpartition("data: ")[2]
            return answer.status, json.loads(text) if text.startswith("{") else {"text": text[:200]}

    async def caller(self, number: int, until: float) -> None:
        kinds = ["read", "read", "write", "read", "export"] if number % 3 == 0 else ["read", "read", "write"]
        for kind in itertools.cycle(kinds):
            began = time.monotonic()
            if began >= until:
                return
            try:
                status, message = await self.rpc(f"sy_{kind}", {"id": "1"})
                failure = None if status == 200 else f"HTTP {status} {str(message)[:150]}"
            except (TimeoutError, aiohttp.ClientError, OSError) as e:
                failure, message = f"{type(e).__name__} {e}", {}
            ended = time.monotonic()
            self.judge(kind, began, ended, failure, message)
            await asyncio.sleep(PACE_S)

    def judge(self, kind: str, began: float, ended: float, failure: str | None, message: dict[str, Any]) -> None:
        log = self.log
        result = message.get("result", {})
        text = result.get("content", [{}])[0].get("text", "") if result else ""
        if failure is None and (not result or result.get("isError")):
            failure = text or str(message)[:200]
        if failure is None:
            log.counts[kind] += 1
            self.freshness(began, text)
        elif log.in_flight_at_a_kill(began, ended):
            log.counts[f"{kind}: in flight at a kill -9"] += 1
        elif kind == "export" and log.during_an_outage(began, ended) and "storage_unavailable" in failure:
            log.counts["export: refused while the database is down"] += 1
        elif kind == "export" and "revoked" in failure and any(began <= at <= ended for at in log.revoked):
            # Its replica was killed; until another took it over, its caller's key had ended.
            log.counts["export: not sent, its caller's key was revoked meanwhile"] += 1
        else:
            log.fault(f"{kind} at {began:.1f}-{ended:.1f}: {failure[:300]}")

    def freshness(self, began: float, text: str) -> None:
        """The upstream echoes its path, which each edit changes."""
        seen = (
            int(text.rpartition("/v")[2].partition("/")[0].partition('"')[0].partition("?")[0] or -1)
            if "/v" in text
            else None
        )
        if seen is None:
            return
        due = max(version for at, version in self.log.acknowledged if at + STALE_S <= began or version == 0)
        if seen < due:
            late = began - next(at for at, version in self.log.acknowledged if version == due)
            if self.log.during_an_outage(began - STALE_S, began):
                self.log.counts["answered from the snapshot while the database is down"] += 1
            else:
                self.log.fault(f"stale: v{seen} {late:.2f} s after v{due}")

    async def editor(self, until: float) -> None:
        while (began := time.monotonic()) < until:
            version = self.version + 1
            headers = {"Authorization": f"Bearer {self.key}"}
            try:
                async with self.http.put(
                    f"{self.url}/v1/acme/integrations/sy", json=body_of(version)[1], headers=headers
                ) as answer:
                    status, retry = answer.status, answer.headers.get("Retry-After")
                    said = (await answer.text())[:200]
            except (aiohttp.ClientError, OSError) as e:
                status, retry, said = 0, None, f"{type(e).__name__} {e}"
            ended = time.monotonic()
            if status == 200:
                self.version = version
                self.log.acknowledged.append((ended, version))
                self.log.counts["edit"] += 1
            elif self.log.in_flight_at_a_kill(began, ended):
                self.log.counts["edit: in flight at a kill -9"] += 1
                self.version = version  # it may have been written
            elif status == 503 and retry and self.log.during_an_outage(began, ended):
                self.log.counts["edit: 503 with Retry-After while the database is down"] += 1
            else:
                self.log.fault(f"edit at {began:.1f}: {status} Retry-After {retry} {said}")
            await asyncio.sleep(1)

    async def shell(self, *arguments: str) -> str:
        """`integrations-mcp ARGUMENTS --json` on the shared registry."""
        replica = self.replicas[0]
        command = [SCRIPT, *arguments, "--workspace", "acme", "--json"]
        done = await asyncio.to_thread(
            subprocess.run, command, env=replica.env, capture_output=True, text=True, check=False, cwd=replica.home
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments[:2])}: {done.stderr[:300]}")
        return done.stdout

    async def new_key(self) -> None:
        made = json.loads(await self.shell("keys", "create", "--role", "owner"))
        self.key, self.key_id = made["api_key"], made["key_id"]

    async def rotator(self, until: float) -> None:
        """The callers' key is rotated; the old one must be refused everywhere a second later."""
        while time.monotonic() < until:
            await asyncio.sleep(20)
            if self.log.outages and time.monotonic() < self.log.outages[-1][1] + 6:
                continue
            old, old_id = self.key, self.key_id
            try:
                await self.new_key()
                print(f"new key {time.monotonic():.1f}", flush=True)
                await asyncio.sleep(2)  # calls with the old one have ended
                self.log.revoked.append(time.monotonic())
                await self.shell("keys", "revoke", old_id)
            except RuntimeError as e:
                self.log.fault(str(e))
                continue
            await asyncio.sleep(STALE_S + 0.2)
            for replica in self.replicas:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with self.http.get(
                        f"http://127.0.0.1:{replica.port}/v1/acme/integrations",
                        headers={"Authorization": f"Bearer {old}"},
                    ) as answer:
                        if answer.status != 401 and not self.log.during_an_outage(
                            time.monotonic() - 1, time.monotonic()
                        ):
                            self.log.fault(f"an ended key is still {answer.status} at {replica.port}")
            self.log.counts["key rotation"] += 1

    async def restarter(self, until: float) -> None:
        for replica, number in zip(
            itertools.cycle(self.replicas), itertools.cycle([signal.SIGTERM, signal.SIGKILL]), strict=False
        ):
            await asyncio.sleep(20)
            if time.monotonic() >= until:
                return
            if self.log.outages and time.monotonic() < self.log.outages[-1][1] + 3:
                continue
            assert replica.process is not None
            at = time.monotonic()
            if number == signal.SIGKILL:
                self.log.kills.append((at, at + 0.2))
            replica.process.send_signal(number)
            await asyncio.to_thread(replica.process.wait, 40)
            self.log.counts[f"replica ended by {number.name}"] += 1
            replica.start()
            await replica.ready(self.http)
            print(f"replica {replica.port} {number.name} {at:.1f} ready {time.monotonic():.1f}", flush=True)

    async def database_breaker(self, until: float, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            if time.monotonic() + 20 >= until:
                return
            at = time.monotonic()
            self.log.outages.append([at, float("inf")])
            await asyncio.to_thread(self.postgres.stop)
            await asyncio.sleep(3)
            await asyncio.to_thread(self.postgres.start)
            self.log.outages[-1][1] = time.monotonic()
            self.log.counts["database restart"] += 1
            print(f"database away {at:.1f} to {time.monotonic():.1f}", flush=True)

    async def watcher(self, until: float) -> None:
        while time.monotonic() < until:
            for replica in self.replicas:
                replica.measure()
            await asyncio.sleep(5)


def body_of(version: int, base_url: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """(create, update) with endpoints whose path tells the version."""
    common = {"description": "d", "retry_config": {"max_retries": 0}}
    endpoints = [
        {"name": "read", "method": "GET", "path": f"/read/{{id}}/v{version}", **common},
        {"name": "write", "method": "POST", "path": f"/write/{{id}}/v{version}", **common},
        {"name": "export", "method": "POST", "path": "/export/{id}", "result_delivery": "queue", **common},
    ]
    return {"name": "sy", "display_name": "S", "base_url": base_url, "endpoints": endpoints}, {"endpoints": endpoints}


@contextlib.asynccontextmanager
async def balanced(folder: Path, replicas: list[Replica]) -> AsyncGenerator[str, None]:
    port = free_port()
    servers = " ".join(f"server 127.0.0.1:{r.port} max_fails=1 fail_timeout=1s;" for r in replicas)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, servers=servers, port=port))
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert nginx is not None, "nginx is not installed"
    process = subprocess.Popen([nginx, "-c", folder / "nginx.conf", "-p", folder], stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


async def main(minutes: float) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "pg").mkdir()
        postgres = Postgres(folder / "pg")
        postgres.start()
        postgres_url = f"postgresql://gw@127.0.0.1:{postgres.port}/postgres"
        env = {
            "INTEGRATIONS_MCP_DATABASE_URL": postgres_url,
            "INTEGRATIONS_MCP_SECRET_KEY": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "INTEGRATIONS_MCP_WORKSPACE": "acme",
            "INTEGRATIONS_MCP_ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8",
            "INTEGRATIONS_MCP_LOG_LEVEL": "warning",
        }
        replicas = [Replica(folder, free_port(), environment(folder, env)) for _ in range(REPLICAS)]
        timeout = aiohttp.ClientTimeout(total=100)
        connector = aiohttp.TCPConnector(force_close=True)
        async with Hostile() as upstream, aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
            for replica in replicas:
                replica.start()
            try:
                await asyncio.gather(*(replica.ready(http) for replica in replicas))
                async with balanced(folder, replicas) as url:
                    soak = Soak(http, url, replicas, postgres)
                    hosts = json.dumps([url.removeprefix("http://")])
                    for replica in replicas:  # nginx hands the Host header on
                        replica.env["INTEGRATIONS_MCP_ALLOWED_HOSTS"] = hosts
                        assert replica.process is not None
                        replica.process.terminate()
                        replica.process.wait(40)
                        replica.start()
                    await asyncio.gather(*(replica.ready(http) for replica in replicas))
                    await soak.new_key()
                    async with http.post(
                        f"{url}/v1/acme/integrations",
                        json=body_of(0, upstream.url)[0],
                        headers={"Authorization": f"Bearer {soak.key}"},
                    ) as answer:
                        assert answer.status == 201, await answer.text()
                    await asyncio.sleep(1.5)
                    until = time.monotonic() + minutes * 60
                    async with asyncio.TaskGroup() as tasks:
                        for number in range(CALLERS):
                            tasks.create_task(soak.caller(number, until))
                        tasks.create_task(soak.editor(until))
                        tasks.create_task(soak.rotator(until))
                        tasks.create_task(soak.restarter(until))
                        tasks.create_task(soak.database_breaker(until, max(30.0, minutes * 60 / 4)))
                        tasks.create_task(soak.watcher(until))
                    keys = [
                        dict(r.headers).get("Idempotency-Key")
                        for r in upstream.received
                        if r.path.startswith("/export")
                    ]
                    soak.log.counts["exports that reached the upstream"] = len(keys)
                    soak.log.counts["of them doubled"] = len(keys) - len(set(keys))
            finally:
                for replica in replicas:
                    if replica.process is not None:
                        replica.process.kill()
                        replica.process.wait()
                postgres.stop()
        for what, count in sorted(soak.log.counts.items()):
            print(f"{count:8} {what}")
        longest = max((life for replica in replicas for life in replica.rss), key=len)
        print(
            f"longest life of a replica: {len(longest) * 5} s, RSS {longest[min(2, len(longest) - 1)] >> 20} MB then {longest[-1] >> 20} MB"
        )
        for line in soak.log.faults[:40]:
            print("FAULT", line)
        return 1 if soak.log.counts["FAULTS"] else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 20)))
