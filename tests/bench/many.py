"""Many endpoints and many workspaces: what they cost a call, a list and the memory.

    python -m tests.bench.many [rounds] [seconds of a round] [endpoints | workspaces]

Servers with 10, 1,000 and 10,000 endpoints in one workspace, with one workspace of 20 endpoints and with 1,000 of them, all on one
core; their rounds take turns (8 of 3 s by default: about 5 minutes). Prints each figure beside what it should be; exit code 1 where one isn't.
"""

import asyncio
import itertools
import json
import multiprocessing
import shutil
import socket
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench.load import (
    LOAD_CORE,
    Ask,
    Gateway,
    Tally,
    call,
    drive,
    endpoint,
    integration,
    lasting,
    listing,
    load,
    new_key,
    pin,
    post,
    serving,
    upstream,
    verdict,
)

CONNECTIONS = 16
WORKSPACES = 1_000
OF_EACH = 20
MARKER = b"item 12345"
SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "description": "Which one."},
        "fields": {"type": "string", "description": "Names of fields, with commas between."},
        "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20, "description": "How many."},
        "sort": {"type": "string", "enum": ["asc", "desc"], "description": "Which order."},
    },
    "required": ["id"],
}


def several(count: int, port: int) -> list[dict[str, Any]]:
    """Integrations with `count` endpoints, at most 1,000 each."""
    text = "Returns one resource of the service with its fields and links. Used for what lists and calls cost."
    found: list[dict[str, Any]] = []
    for begin in range(0, count, 1_000):
        made = [
            endpoint(f"get_{i}", f"/item/{i}/{{id}}", description=text, input_schema=SCHEMA)
            for i in range(begin, min(count, begin + 1_000))
        ]
        found.append(integration(f"r{begin // 1_000}", port, made))
    return found


def tool(i: int) -> str:
    return f"r{i // 1_000}_get_{i}"


def fill_workspaces(home: Path, port: int, count: int) -> None:
    """Workspaces of OF_EACH endpoints and a key each, written by the product's own functions; keys into keys.json."""
    from tests.world import gateway
    from tools.callers import local_caller
    from tools.parsing import parse_create

    async def run() -> None:
        keys: dict[str, str] = {}
        (body,) = several(OF_EACH, port)
        async with gateway(home) as world:
            for i in range(count):
                name = f"ws{i}"
                await world.app.admin.create(local_caller(name), parse_create(body))
                keys[name] = (await world.app.keys.create(name, role="agent")).api_key
        (home / "keys.json").write_text(json.dumps(keys))

    asyncio.run(run())


def workspaces(home: Path, port: int, count: int) -> list[str]:
    """Their keys. In a process of its own, so that what it imports and keeps isn't the load's."""
    filling = multiprocessing.get_context("spawn").Process(target=fill_workspaces, args=(home, port, count))
    filling.start()
    filling.join(600)
    if filling.exitcode != 0:
        raise RuntimeError("the workspaces couldn't be written")
    return list(json.loads((home / "keys.json").read_text()).values())


def a_call(key: str, i: int) -> Ask:
    return call(tool(i), key, tool(i), {"id": 12345, "limit": 5}, MARKER)


def rates(gateways: list[tuple[Gateway, list[Ask]]], rounds: int, seconds: float) -> list[list[Tally]]:
    """One list of rounds for each server; they take turns."""
    import uvloop

    def once(gateway: Gateway, asks: list[Ask], seconds: float) -> Tally:
        return uvloop.run(drive(gateway.port, CONNECTIONS, lasting(seconds, asks)))

    for gateway, asks in gateways:  # each tool once: what is compiled at its first call is compiled
        left = iter(asks)
        uvloop.run(drive(gateway.port, CONNECTIONS, lambda left=left: next(left, None)))
        once(gateway, asks, 1)
    found: list[list[Tally]] = [[] for _ in gateways]
    for _ in range(rounds):
        for n, (gateway, asks) in enumerate(gateways):
            found[n].append(once(gateway, asks, seconds))
    return found


def ratio(many: list[Tally], one: list[Tally]) -> float:
    """Median of the rounds, each against the one beside it."""
    return statistics.median(a.rate / b.rate for a, b in zip(many, one, strict=True))


class Lister:
    """Lists over one blocking connection: reading a megabyte through an event loop would cost more than what is measured."""

    def __init__(self, gateway: Gateway) -> None:
        self._sock = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._space = memoryview(bytearray(1 << 24))

    def milliseconds(self, ask: bytes, marker: bytes = b'"tools"') -> float:
        began = time.perf_counter()
        self._sock.sendall(ask)
        got, size = 0, None
        while size is None or got < size:
            read = self._sock.recv_into(self._space[got:])
            if not read:
                raise RuntimeError("the connection ended")
            got += read
            if size is None and (end := bytes(self._space[: min(got, 4096)]).find(b"\r\n\r\n")) >= 0:
                head = bytes(self._space[:end]).lower()
                at = head.index(b"content-length:")
                size = end + 4 + int(head[at + 15 :].split(b"\r", 1)[0])
        took = (time.perf_counter() - began) * 1000
        if marker not in bytes(self._space[:2000]) or b" 200 " not in bytes(self._space[:20]):
            raise RuntimeError(f"not a list: {bytes(self._space[:300])!r}")
        self.size = got
        return took


def lists(gateway: Gateway, key: str, count: int = 300) -> tuple[float, int]:
    """(p50 ms, bytes) of the first page."""
    lister, ask = Lister(gateway), listing(key).data
    lister.milliseconds(ask)
    return statistics.median(lister.milliseconds(ask) for _ in range(count)), lister.size


def first_lists(gateway: Gateway, owner: str, key: str, changed: str, count: int = 9) -> float:
    """Median ms of the first list after a change of one integration's display name."""
    lister, writer, ask = Lister(gateway), Lister(gateway), listing(key).data
    took: list[float] = []
    for n in range(count):
        body = {"display_name": f"Changed {n}"}
        writer.milliseconds(post(f"/v1/acme/integrations/{changed}", owner, body, {}, "PUT"), b"HTTP")
        took.append(lister.milliseconds(ask))
    return statistics.median(took)


def main() -> int:
    given = [float(argument) for argument in sys.argv[1:3]]
    rounds, seconds = (*given, *(8.0, 3.0)[len(given) :])
    parts = sys.argv[3:] or ["endpoints", "workspaces"]
    pin(LOAD_CORE)
    rows: list[tuple[str, bool]] = []
    if "endpoints" in parts:
        rows += many_endpoints(int(rounds), seconds)
    if "workspaces" in parts:
        rows += many_workspaces(int(rounds), seconds)
    return verdict(rows)


def many_endpoints(rounds: int, seconds: float) -> list[tuple[str, bool]]:
    rows: list[tuple[str, bool]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(upstream())
        homes = {name: folder / name for name in ("10", "1000", "10000")}
        for home in homes.values():
            home.mkdir()
        servers: dict[str, Gateway] = {}
        keys: dict[str, str] = {}
        for count in ("10", "1000", "10000"):
            began = time.perf_counter()
            load(homes[count], several(int(count), port))
            print(f"load of {count} endpoints: {time.perf_counter() - began:.1f} s", flush=True)
            keys[count] = new_key(homes[count])
            keys[f"owner {count}"] = new_key(homes[count], "owner")
            servers[count] = stack.enter_context(serving(homes[count]))
        idle = {name: server.rss / 1e6 for name, server in servers.items()}
        asks = {count: [a_call(keys[count], int(count) // 2)] for count in ("10", "10000")}
        few, lots = rates([(servers[c], asks[c]) for c in ("10", "10000")], rounds, seconds)
        one = ratio(lots, few)
        spread = [a_call(keys["10000"], i) for i in range(0, 10_000, 10)]
        few_again, spread_out = rates([(servers["10"], asks["10"]), (servers["10000"], spread)], rounds, seconds)
        for name, tallies in (("10", few), ("10,000", lots), ("10", few_again), ("10,000, calls to 1,000", spread_out)):
            print(f"{name} endpoints: {[round(t.rate) for t in tallies]} calls/s")
        print(f"calls to 1,000 of 10,000 tools against one of 10: x {ratio(spread_out, few_again):.2f}")
        rows.append((f"call rate with 10,000 endpoints against 10: x {one:.2f} (0.95)", one >= 0.95))
        for count in ("1000", "10000"):
            p50, size = lists(servers[count], keys[count])
            rows.append((f"tools/list, first page of {count}: p50 {p50:.2f} ms, {size / 1e3:.0f} KB (1.5)", p50 <= 1.5))
            first = first_lists(servers[count], keys[f"owner {count}"], keys[count], "r0")
            rows.append((f"first list after a change, {count} endpoints: {first:.1f} ms (60)", first <= 60))
        for count, server in servers.items():
            print(f"RSS with {count} endpoints: {idle[count]:.0f} MB at start, {server.rss / 1e6:.0f} MB at the end")
        wrong = sum(t.wrong for t in itertools.chain(few, lots, few_again, spread_out))
        rows.append((f"{wrong} wrong answers", not wrong))
    return rows


def many_workspaces(rounds: int, seconds: float) -> list[tuple[str, bool]]:
    rows: list[tuple[str, bool]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(upstream())
        single, full = folder / "one", folder / "many"
        single.mkdir()
        full.mkdir()
        began = time.perf_counter()
        one_key, many_keys = workspaces(single, port, 1), workspaces(full, port, WORKSPACES)
        print(f"{WORKSPACES} workspaces written in {time.perf_counter() - began:.1f} s", flush=True)
        server, crowded = stack.enter_context(serving(single)), stack.enter_context(serving(full))
        start = crowded.rss / 1e6
        same = [a_call(one_key[0], i) for i in range(OF_EACH)]
        across = [a_call(key, n % OF_EACH) for n, key in enumerate(many_keys)]
        alone, all_over = rates([(server, same), (crowded, across)], rounds, seconds)
        for name, tallies in (("1 workspace", alone), (f"{WORKSPACES} workspaces", all_over)):
            print(f"{name}: {[round(t.rate) for t in tallies]} calls/s")
        found = ratio(all_over, alone)
        rows.append(
            (f"{WORKSPACES} workspaces of {OF_EACH} endpoints against one: x {found:.2f} (0.85)", found >= 0.85)
        )
        figures = crowded.figures()
        kept, tools = figures["integrations_mcp_catalogs_kept"], figures["integrations_mcp_catalog_tools_kept"]
        print(
            f"RSS: {start:.0f} MB at start, {crowded.rss / 1e6:.0f} MB with {kept:.0f} catalogs of {tools:.0f} tools kept"
        )
        wrong = sum(t.wrong for t in (*alone, *all_over))
        for fault in [f for t in (*alone, *all_over) for f in t.faults][:3]:
            print("fault:", fault)
        rows.append((f"{wrong} wrong answers", not wrong))
        rows += evicted(full, many_keys)
    return rows


def evicted(full: Path, keys: list[str]) -> list[tuple[str, bool]]:
    """The same workspaces where only a tenth of their tools may stay in memory."""
    import uvloop

    home = full.with_name("evicting")
    shutil.copytree(full, home)
    most = WORKSPACES * OF_EACH // 10
    with serving(home, INTEGRATIONS_MCP_CATALOG_TOOLS=str(most)) as gateway:
        for _ in range(2):
            left = iter([a_call(key, 0) for key in keys])
            tally = uvloop.run(drive(gateway.port, CONNECTIONS, lambda left=left: next(left, None)))
        tools = gateway.figures()["integrations_mcp_catalog_tools_kept"]
        text = f"{tools:.0f} tools kept where {most} may be, {tally.wrong} wrong answers, {tally.rate:.0f} calls/s"
        return [(text, tools <= most and not tally.wrong)]


if __name__ == "__main__":
    sys.exit(main())
