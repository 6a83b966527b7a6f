"""2,000 starts and stops of stdio MCP upstreams through the gateway's own parts: what is left is counted.

`python -m tests.bench.bench_cycles [CYCLES]`. Each cycle: an integration's session is opened, one tool is called, the session ends.
"""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.mcp_upstreams import lowlevel
from tests.world import gateway

SMALL = str(Path(lowlevel.__file__).with_name("small.py"))
SIDE_BY_SIDE = 8


def counted(marker: str) -> tuple[int, int, int, float]:
    """(programs and reapers, descriptors, tasks, MB of this process)"""
    me = psutil.Process()
    left = [p for p in me.children(recursive=True) if any(marker in word for word in p.cmdline())]
    return len(left), me.num_fds(), len(asyncio.all_tasks()), me.memory_info().rss / 2**20


async def main(cycles: int) -> None:
    marker = f"cycles-{os.getpid()}"
    with tempfile.TemporaryDirectory() as home:
        async with gateway(Path(home), stdio_allow=(f"{sys.executable} *",)) as world:
            for n in range(SIDE_BY_SIDE):
                body = {"name": f"up{n}", "display_name": "Up", "protocol": "mcp", "mcp_transport": "stdio"}
                await world.create(
                    {**body, "mcp_command": sys.executable, "mcp_args": ["-S", "-I", SMALL, "plain", marker]}
                )
            sessions = world.app.gateway._mcp  # pyright: ignore[reportPrivateUsage]

            sessions.on_change = lambda _: None  # reading the list of each new connection would open the next one

            async def once(n: int) -> None:
                integration = await world.app.registry.get("acme", f"up{n}")
                assert await world.call(f"up{n}_echo", text="hi") == "hi"
                sessions.forget(integration.id)
                while sessions.count() > SIDE_BY_SIDE:
                    await asyncio.sleep(0.005)

            async def ended() -> None:
                while sessions.count():
                    await asyncio.sleep(0.01)
                await asyncio.sleep(2)

            await asyncio.gather(*(once(n) for n in range(SIDE_BY_SIDE)))
            await ended()
            before, started = counted(marker), time.monotonic()
            for _ in range(cycles // SIDE_BY_SIDE):
                await asyncio.gather(*(once(n) for n in range(SIDE_BY_SIDE)))
            took = time.monotonic() - started
            await ended()
            after = counted(marker)
    print("                processes  descriptors  tasks  MB")
    for name, row in (("before", before), ("after", after)):
        print(f"{name:15} {row[0]:9} {row[1]:12} {row[2]:6} {row[3]:4.0f}")
    print(f"{cycles} cycles in {took:.0f} s, {took / cycles * 1000:.0f} ms each, {SIDE_BY_SIDE} side by side")
    sys.exit(after[:3] > before[:3] or after[0] > 0)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else 2000))
