"""A soak: many calls of every kind against one served gateway; memory, tasks, descriptors and pool entries must not grow.

    python -m tests.bench.soak_calls [calls] [connections]

1,000,000 calls on 32 connections by default: plain, shaped, cut and failing ones, old sessions, tools/list. Every answer is looked
at. The figures after the first tenth are held against those at the end; exit code 1 where they differ too much.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.bench_calls import SHAPING
from tests.bench.load import (
    LOAD_CORE,
    Ask,
    Gateway,
    Tally,
    call,
    drive,
    endpoint,
    integration,
    listing,
    load,
    new_key,
    pin,
    serving,
    session_of,
    upstream,
    verdict,
)

GROWTH = 1.05
SPREAD = 3
"""Tasks and descriptors that may be there more at one moment than at another."""


def endpoints() -> list[dict[str, object]]:
    return [
        endpoint("plain", "/item/{id}"),
        endpoint("shaped", "/item/{id}", **SHAPING),
        endpoint("many", "/many", max_result_length=2_000),
        endpoint("fail", "/fail/{id}"),
        endpoint("gone", "/gone/{id}"),
        endpoint("text", "/text/{id}"),
    ]


def mix(key: str, sessions: list[str]) -> list[Ask]:
    """100 requests in an order that spreads each kind."""
    item, bad = b"item 12345", b'"isError":true'

    def plain(n: int) -> Ask:
        return call("plain", key, "bench_plain", {"id": n}, item)

    def old(n: int) -> Ask:
        return call("2025-11-25", key, "bench_plain", {"id": n}, item, sessions[n % len(sessions)])

    kinds: list[tuple[int, Callable[[int], Ask]]] = [
        (46, plain),
        (20, old),
        (15, lambda n: call("shaped", key, "bench_shaped", {"id": n}, b"12345 item 12345: alpha")),
        (4, lambda _: listing(key)),
        (2, lambda _: call("cut", key, "bench_many", {}, b"get_result")),
        (3, lambda n: call("status 500", key, "bench_fail", {"id": n}, bad)),
        (3, lambda n: call("status 404", key, "bench_gone", {"id": n}, bad)),
        (3, lambda n: call("not JSON", key, "bench_text", {"id": n}, bad)),
        (2, lambda _: call("bad arguments", key, "bench_plain", {"id": "x"}, bad)),
        (2, lambda _: call("no such tool", key, "bench_nothing", {}, b"")),
    ]
    placed = [((i + 0.5) / share, make(i)) for share, make in kinds for i in range(share)]
    return [ask for _, ask in sorted(placed, key=lambda pair: pair[0])]


async def calls(port: int, connections: int, asks: list[Ask], count: int) -> Tally:
    left = count

    def take() -> Ask | None:
        nonlocal left
        left -= 1
        return asks[left % len(asks)] if left >= 0 else None

    return await drive(port, connections, take)


def measured(gateway: Gateway) -> dict[str, float]:
    """At rest: what is written behind is written, idle connections to us are closed."""
    until = time.monotonic() + 30
    found = gateway.figures()
    while time.monotonic() < until and found["integrations_mcp_history_rows_waiting"] > 0:
        time.sleep(0.2)
        found = gateway.figures()
    return {
        "RSS MB": gateway.rss / 1e6,
        "tasks": found["integrations_mcp_tasks"],
        "descriptors": found["process_open_fds"],
        "connections to the upstream": sum(
            v for n, v in found.items() if n.startswith("integrations_mcp_upstream_con")
        ),
        "CPU ms a call": gateway.cpu_s * 1000,
    }


def main() -> int:
    given = [int(argument.replace("_", "")) for argument in sys.argv[1:]]
    count, connections = (*given, *(1_000_000, 32)[len(given) :])
    import uvloop

    with tempfile.TemporaryDirectory() as name, upstream() as port:
        home = Path(name)
        pin(LOAD_CORE)
        load(home, [integration("bench", port, endpoints())])
        key = new_key(home)
        with serving(home) as gateway:
            asks = mix(key, [session_of(gateway.port, key) for _ in range(8)])
            moments: list[dict[str, float]] = []
            faults: list[str] = []
            began = gateway.cpu_s
            done = wrong = 0
            for part in range(10):
                tally = uvloop.run(calls(gateway.port, connections, asks, count // 10))
                done += tally.count
                wrong += tally.wrong
                faults += tally.faults
                moments.append(found := measured(gateway))
                found["CPU ms a call"] = (found["CPU ms a call"] - began * 1000) / done
                shown = ", ".join(f"{n} {v:.2f}" for n, v in found.items())
                print(f"{done:9,} calls, {tally.rate:6.0f}/s, p99 {tally.percentile(0.99):.1f} ms: {shown}", flush=True)
                if part in (0, 9):
                    for kind, ms in tally.ms.items():
                        p50, p99 = tally.percentile(0.5, kind), tally.percentile(0.99, kind)
                        print(f"          {len(ms):9,} {kind}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    first, last = moments[0], moments[-1]
    for fault in faults[:5]:
        print("fault:", fault)
    ratio = last["RSS MB"] / first["RSS MB"]
    rows = [
        (
            f"{done:,} of {count // 10 * 10:,} calls, {len(faults)} wrong answers",
            done == count // 10 * 10 and not faults,
        ),
        (
            f"RSS {first['RSS MB']:.1f} MB after a tenth, {last['RSS MB']:.1f} MB at the end: x {ratio:.3f}",
            ratio <= GROWTH,
        ),
    ]
    pool, most = "connections to the upstream", connections
    rows.append((f"{pool}: {first[pool]:.0f}, {last[pool]:.0f}; one for each that calls is enough", last[pool] <= most))
    own = [moment["descriptors"] - moment[pool] for moment in (first, last)]
    rows.append((f"other descriptors: {own[0]:.0f}, {own[1]:.0f}", own[1] <= own[0] + SPREAD))
    rows.append((f"tasks: {first['tasks']:.0f}, {last['tasks']:.0f}", last["tasks"] <= first["tasks"] + SPREAD))
    return verdict(rows)


if __name__ == "__main__":
    sys.exit(main())
