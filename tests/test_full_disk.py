"""A gateway whose disk is full: calls go on, what must be kept is refused in words, and when there is room all is as before."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.processes import cannot, run, running
from tests.upstreams import Hostile, answer
from tests.world import World, gateway, http, served
from tools.outcome import Outcome

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
JSON = {"Content-Type": "application/json"}


@dataclass
class Disk:
    """A file system of 8 MB of its own."""

    path: Path

    def fill(self) -> None:
        with (self.path / "filler").open("ab", buffering=0) as file:
            size = 65536
            while size:
                try:
                    file.write(b"x" * size)
                except OSError:
                    size //= 2

    def free(self) -> None:
        (self.path / "filler").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if sys.platform != "linux":
        cannot("a small file system is mounted on Linux only")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        cannot(f"a small file system can't be mounted (as root it could): {made.stderr.strip()}")
    try:
        yield Disk(tmp_path)
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        server.script("/x", answer(200, json.dumps(list(range(500))).encode(), JSON))
        yield server


def shop(url: str, name: str = "shop", **more: Any) -> dict[str, Any]:
    n = {"type": "object", "properties": {"n": {"type": "integer"}}}
    rows = [
        {"name": "read", "method": "GET"},
        {"name": "write", "method": "POST"},
        {"name": "long", "method": "GET", "max_result_length": 200},
        {"name": "export", "method": "POST", "result_delivery": "queue"},
    ]
    endpoints = [{"description": "Does.", "path": "/x", "input_schema": n, **row} for row in rows]
    return {"name": name, "display_name": "Shop", "base_url": url, "endpoints": endpoints, **more}


async def called(world: World, tool: str, **arguments: Any) -> Outcome:
    return await world.app.toolbox.call(world.owner, tool, arguments)


async def test_calls_go_on_and_what_must_be_kept_is_refused_and_nothing_is_half_there(
    disk: Disk, upstream: Hostile
) -> None:
    secret = {"type": "bearer_token", "bearer_token_value": {"value": "canary-0123456789"}}
    async with (
        gateway(disk.path / "home", queue_wait=0) as world,
        served(world) as url,
        http(url, await world.key()) as client,
    ):
        await world.create(shop(upstream.url))
        for tool in ("shop_read", "shop_long"):
            assert not (await called(world, tool)).is_error
        disk.fill()

        for tool in ("shop_read", "shop_write"):
            assert not (await called(world, tool)).is_error
        long = await called(world, "shop_long")
        assert (long.is_error, long.result_id, long.text.startswith("[Showing")) == (False, None, True)
        sent = len(upstream.received)
        refused = await called(world, "shop_export", n=1)
        assert refused.error is not None
        assert (refused.error.code, refused.error.sent, len(upstream.received)) == ("storage_unavailable", "no", sent)
        created = await client.post("/v1/acme/integrations", json=shop(upstream.url, "other", auth=secret))
        changed = await client.put("/v1/acme/integrations/shop", json={"display_name": "Other"})
        for answered in (created, changed):
            assert (answered.status_code, answered.headers["retry-after"]) == (503, "5")
            assert "the disk is full" in answered.json()["detail"]
        assert [i["display_name"] for i in (await client.get("/v1/acme/integrations")).json()["items"]] == ["Shop"]
        assert (await client.get("/v1/acme/calls")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200

        disk.free()
        assert (await client.post("/v1/acme/integrations", json=shop(upstream.url, "other"))).status_code == 201
        with anyio.fail_after(20):
            accepted = await called(world, "shop_export", n=1)
            assert accepted.error is None
            await upstream.until(lambda: len(upstream.received) > sent)
        told = (await client.get("/v1/acme/calls?limit=100")).json()["items"]
        assert {"shop_read", "shop_write", "shop_long", "shop_export"} <= {row["tool"] for row in told}
        assert world.app.history.ever_dropped == 0
        await world.app.writer.sweep()
        assert await world.app.secrets.paths("/gw") == []


def test_commands_say_that_the_disk_is_full(disk: Disk) -> None:
    home = disk.path / "home"
    home.mkdir()
    assert run(home, "keys", "create").returncode == 0
    disk.fill()
    assert "the disk is full" in run(home, "keys", "create").stderr
    found = run(home, "doctor")
    assert (found.returncode, "a full disk refuses every write" in found.stdout) == (1, True)
    with running(home, "serve", "--port", "0") as started:
        out, err = started.rest()
    assert (out, "the disk is full" in err) == ("", True)
    disk.free()
    assert run(home, "keys", "create").returncode == 0


def test_a_backup_to_a_full_disk_leaves_no_part_of_a_file(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> None:
    home, file = tmp_path_factory.mktemp("home"), disk.path / "b.backup"
    assert run(home, "keys", "create").returncode == 0
    disk.fill()
    told = run(home, "backup", str(file)).stderr
    assert "b.backup can't be written: no space left on device. Nothing was left there." in told
    assert [p.name for p in disk.path.iterdir()] == ["filler"]
    disk.free()
    assert run(home, "backup", str(file)).returncode == 0
