"""A slow system beside a fast one, in one workspace under the default limits: does the fast one's p99 move?

    python -m tests.bench.neighbours [rounds] [seconds of a round]

The fast system answers in 5 ms and is called on 16 connections; the slow one in 30 s, with 64 calls open all the time. Rounds
without and with the slow one take turns (8 of each, 10 s by default: about 4 minutes). Exit code 1 where the fast one's p99, as the
median of the rounds, is a quarter higher beside the slow one.
"""

import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

from tests.bench.load import (
    LOAD_CORE,
    Ask,
    Tally,
    call,
    drive,
    endpoint,
    integration,
    load,
    new_key,
    pin,
    serving,
    upstream,
    verdict,
)

FAST, SLOW = 16, 64
MOVED = 1.25
SLOW_MS = 30_000


async def rounds(port: int, fast: Ask, slow: Ask, count: int, seconds: float) -> tuple[list[Tally], list[Tally]]:
    alone: list[Tally] = []
    beside: list[Tally] = []
    await _fast(port, fast, 2)
    for _ in range(count):
        alone.append(await _fast(port, fast, seconds))
        open_calls = asyncio.ensure_future(drive(port, SLOW, lambda: slow))
        await asyncio.sleep(1)  # all of them are open
        beside.append(await _fast(port, fast, seconds))
        open_calls.cancel()
        await asyncio.gather(open_calls, return_exceptions=True)
        await asyncio.sleep(1)  # the slow system's connections are closed
    return alone, beside


async def _fast(port: int, ask: Ask, seconds: float) -> Tally:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    return await drive(port, FAST, lambda: ask if loop.time() < until else None)


def main() -> int:
    given = [float(argument) for argument in sys.argv[1:]]
    count, seconds = (*given, *(8.0, 10.0)[len(given) :])
    import uvloop

    with tempfile.TemporaryDirectory() as name, upstream() as fast_port, upstream() as slow_port:
        home = Path(name)
        pin(LOAD_CORE)
        fast = integration("fast", fast_port, [endpoint("get", "/wait/5")])
        slow = integration("slow", slow_port, [endpoint("get", f"/wait/{SLOW_MS}", timeout_seconds=60)])
        load(home, [fast, slow])
        key = new_key(home)
        marker = b"item 12345"
        asks = call("fast", key, "fast_get", {}, marker), call("slow", key, "slow_get", {}, marker)
        with serving(home) as gateway:
            alone, beside = uvloop.run(rounds(gateway.port, *asks, int(count), seconds))
    print("round   alone: calls/s, p50, p99 ms   beside: calls/s, p50, p99 ms")
    for n, pair in enumerate(zip(alone, beside, strict=True)):
        print(f"{n + 1:5}", *(f"{t.rate:13.0f} {t.percentile(0.5):7.2f} {t.percentile(0.99):7.2f}" for t in pair))
    p99s = [statistics.median(t.percentile(0.99) for t in tallies) for tallies in (alone, beside)]
    wrong = sum(t.wrong for t in (*alone, *beside))
    for fault in [f for t in (*alone, *beside) for f in t.faults][:5]:
        print("fault:", fault)
    return verdict(
        [
            (f"{sum(t.count for t in (*alone, *beside)):,} fast calls, {wrong} wrong answers", not wrong),
            (
                f"p99 of the fast system: {p99s[0]:.2f} ms alone, {p99s[1]:.2f} ms beside {SLOW} open calls of the slow one: "
                f"x {p99s[1] / p99s[0]:.2f}",
                p99s[1] < MOVED * p99s[0],
            ),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
