"""Programs of MCP upstreams end with everything that they started: at a stop, a fault, and when the gateway itself is killed."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.launching import Launcher
from tests.mcp_upstreams import lowlevel
from tests.world import World, gateway

pytestmark = pytest.mark.anyio
SMALL = Path(__file__).parent / "mcp_upstreams" / "small.py"
LOWLEVEL = str(Path(lowlevel.__file__))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World, None]:
    async with gateway(tmp_path, stdio_allow=(f"{sys.executable} *",)) as made:
        yield made


async def connect(world: World, *arguments: str, **more: Any) -> Any:
    body = {"name": "up", "display_name": "Up", "protocol": "mcp", "mcp_transport": "stdio"}
    return await world.create({**body, "mcp_command": sys.executable, "mcp_args": list(arguments), **more})


def alive(marker: str) -> list[int]:
    """Processes whose command line has `marker`."""
    found: list[int] = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(marker in a for a in process.info["cmdline"] or ()):
            found.append(process.info["pid"])
    return found


async def none_left(marker: str) -> None:
    async with asyncio.timeout(10):
        while alive(marker):  # noqa: ASYNC110 - there is no event for the end of others' processes
            await asyncio.sleep(0.02)


async def test_a_program_that_dies_in_a_call_is_told_as_unknown_and_started_anew(world: World) -> None:
    await connect(world, LOWLEVEL)
    outcome = await world.app.toolbox.call(world.owner, "up_dies", {})
    assert outcome.error is not None
    assert outcome.error.code == "outcome_unknown"
    assert await world.call("up_add", a=1, b=2) == '{"sum":3}'


async def test_a_hung_program_costs_the_deadline_and_no_more(world: World) -> None:
    endpoint = {"name": "slow", "description": "x", "path": "slow_write", "timeout_seconds": 0.3}
    await connect(world, LOWLEVEL, endpoints=[endpoint])
    outcome = await world.app.toolbox.call(world.owner, "up_slow", {"seconds": 60})
    assert outcome.error is not None
    assert outcome.error.full_code == "upstream_timeout_unknown"


async def test_six_megabytes_on_stderr_block_nobody(world: World) -> None:
    await connect(world, LOWLEVEL)
    assert await world.call("up_noisy") == "said a lot"


async def test_a_server_that_dies_of_the_new_probe_is_spoken_to_in_the_old_way(world: World) -> None:
    await connect(world, str(SMALL), "dies-of-the-probe")
    assert await world.call("up_echo", text="hi") == "hi"


async def test_one_bad_tool_is_left_out_and_named_and_the_others_stay(world: World) -> None:
    await connect(world, str(SMALL), "bad-tools")
    page, _ = await world.app.toolbox.page(world.owner, None)
    assert [e["name"] for e in page if e["name"].startswith("up_")] == ["up_echo"]
    health = await world.app.admin.health(world.owner)
    assert "left out" in health["integrations"][0]["message"]


async def test_an_integration_that_is_deleted_takes_its_process_along(world: World, tmp_path: Path) -> None:
    marker = f"marker-{tmp_path.name}"
    await connect(world, str(SMALL), "plain", marker)
    assert alive(marker)
    await world.app.admin.delete(world.owner, "up")
    await none_left(marker)


async def test_nothing_is_left_of_many_starts_and_stops() -> None:
    launch = Launcher({"PATH": "/usr/bin:/bin"})
    marker = f"many-{os.getpid()}"
    me = psutil.Process()

    async def once() -> None:
        child = await launch(sys.executable, ["-S", "-I", "-c", "import sys; sys.stdin.read()", marker], {})
        await child.stop()

    await once()
    before = me.num_fds(), len(asyncio.all_tasks())
    for _ in range(25):
        await asyncio.gather(*(once() for _ in range(8)))
    await none_left(marker)
    fds, tasks = me.num_fds(), len(asyncio.all_tasks())
    assert fds <= before[0]  # fewer: what tests before this one left is closed when it is collected
    assert tasks <= before[1]


STRAYS = """
import os, subprocess, sys, time
if os.fork() == 0:
    os.setsid()
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]])
    time.sleep(600)
print("up", flush=True)
sys.stdin.read()
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the reaper needs Linux")
async def test_what_left_its_group_is_ended_too() -> None:
    marker = f"stray-{os.getpid()}"
    child = await Launcher({"PATH": "/usr/bin:/bin"})(sys.executable, ["-c", STRAYS, marker], {})
    assert await child.stdout.readline() == b"up\n"
    async with asyncio.timeout(10):
        while len(alive(marker)) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await child.stop()
    await none_left(marker)


@pytest.mark.skipif(sys.platform != "linux", reason="the reaper needs Linux")
async def test_kill_9_of_the_gateway_leaves_no_child() -> None:
    marker = f"killed-{os.getpid()}"
    script = textwrap.dedent(f"""
        import asyncio, os, sys
        from server.launching import Launcher
        async def main():
            child = await Launcher(os.environ)(sys.executable, ["-c", {STRAYS!r}, {marker!r}], {{}})
            await child.stdout.readline()
            print("ready", flush=True)
            await asyncio.sleep(600)
        asyncio.run(main())
    """)
    gateway_ = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
    )
    try:
        assert gateway_.stdout is not None
        assert await asyncio.to_thread(gateway_.stdout.readline) == b"ready\n"
        assert alive(marker)
    finally:
        gateway_.send_signal(signal.SIGKILL)
        gateway_.communicate()
    await none_left(marker)


async def test_a_program_that_is_not_there_is_refused_before_anything_runs() -> None:
    with pytest.raises(OSError, match="no such program"):
        await Launcher({})("/nowhere/at/all", [], {})


async def test_a_failed_start_is_told_at_once_and_not_tried_for_every_caller(world: World) -> None:
    await connect(world, "-c", "raise SystemExit(3)")
    integration = await world.app.registry.get("acme", "up")
    health = await world.app.admin.health(world.owner)
    assert health["integrations"][0]["status"] == "unreachable"
    assert integration.upstream_tools is None


async def test_a_server_that_refuses_to_list_its_tools_stops_no_write_and_health_says_so(world: World) -> None:
    await connect(world, str(SMALL), "no-list")
    health = await world.app.admin.health(world.owner)
    assert "no tools today" in health["integrations"][0]["message"]


async def test_an_endpoint_of_an_upstream_that_was_never_enabled_is_tested_all_the_same(world: World) -> None:
    endpoint = {"name": "say", "description": "x", "path": "echo", "result_template": "{{ txt }}"}
    gone = {"name": "gone", "description": "x", "path": "eccho"}
    await connect(world, str(SMALL), "plain", enabled=False, endpoints=[endpoint, gone])
    assert (await world.app.admin.test(world.owner, "up", "say", {"text": "hi"})).error is not None
    call = world.app.toolbox.call
    found = await call(
        world.owner, "test_integration_endpoint", {"tool": "up_say", "params": {"text": '{"text": "hi"}'}}
    )
    assert found.structured is not None
    fix = found.structured["problems"][0]["fix"]
    assert fix["arguments"]["patch"] == {"result_template": "{{ text }}"}
    missing = await call(world.owner, "test_integration_endpoint", {"tool": "up_gone"})
    assert 'update_endpoint {"integration":"up","endpoint":"gone","patch":{"path":"echo"}}' in missing.text
