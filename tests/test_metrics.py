"""/metrics: what happened is what is counted, only the operator reads it, labels are bounded, and workers add up."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from anyio import to_thread
from prometheus_client.parser import text_string_to_metric_families

from server.metrics import MOST_SERIES, Metrics
from server.metrics_text import FAMILIES, text_of
from server.worker_figures import Slot
from tests.processes import running
from tests.upstreams import Hostile, answer, drop, silence
from tests.world import World, gateway, http, served
from tools.history import CallRecord

pytestmark = pytest.mark.anyio
TOKEN = "the operator's own 7f3a"
JSON = {"Content-Type": "application/json"}
NOW = {"Retry-After": "0"}
Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def figures(text: str) -> Figures:
    """As Prometheus's own parser reads them; every family is typed and explained."""
    found: Figures = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type != "unknown"
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def of(found: Figures, name: str, **labels: str) -> float:
    """The sum of what has these labels."""
    return sum(v for (n, own), v in found.items() if n == name and labels.items() <= dict(own).items())


async def scrape(client: httpx2.AsyncClient) -> Figures:
    got = await client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert got.status_code == 200, got.text
    assert got.headers["content-type"].startswith("text/plain; version=0.0.4")
    return figures(got.text)


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with gateway(tmp_path, metrics_token=TOKEN, queue_wait=0, grace_seconds=0) as world:
        yield world


async def shop(world: World, base_url: str) -> None:
    retry = {"max_retries": 2, "retry_on_status": [503]}
    endpoints: list[dict[str, Any]] = [
        {"name": n, "description": "d", "method": "GET", "path": f"/{n}", "retry_config": retry}
        for n in ("good", "flaky", "gone", "lost")
    ]
    endpoints.append({"name": "slow", "description": "d", "path": "/slow", "result_delivery": "queue"})
    await world.create({"name": "shop", "display_name": "Shop", "base_url": base_url, "endpoints": endpoints})


async def test_calls_attempts_and_retries_are_counted_as_they_happened(world: World, upstream: Hostile) -> None:
    upstream.script("/good", answer(200, b"1", JSON))
    upstream.script("/flaky", answer(503, headers=NOW), answer(503, headers=NOW), answer(200, b"1", JSON))
    upstream.script("/gone", answer(404), answer(410))
    upstream.script("/lost", drop)
    await shop(world, upstream.url)
    for tool in ("shop_lost", "shop_good", "shop_good", "shop_flaky", "shop_gone", "shop_gone", "shop_nothing"):
        await world.call(tool)
    async with served(world) as url, http(url, "-") as client:
        found = await scrape(client)
    assert len(upstream.received) == of(found, "integrations_mcp_upstream_attempts_total", integration="shop") == 10
    assert of(found, "integrations_mcp_upstream_attempts_total", status="5xx") == 2
    assert of(found, "integrations_mcp_upstream_attempts_total", status="none") == 3
    assert of(found, "integrations_mcp_upstream_retries_total") == 4
    calls = "integrations_mcp_calls_total"
    shop_is = {"workspace": "acme", "integration": "shop", "protocol": "rest"}
    assert of(found, calls, code="ok", **shop_is) == 3
    assert of(found, calls, code="upstream_4xx", **shop_is) == 2
    assert of(found, calls, code="answer_lost", **shop_is) == 1
    assert of(found, calls, code="unknown_tool", integration="", workspace="") == 1
    assert of(found, "integrations_mcp_call_duration_seconds_count", **shop_is) == 6
    assert of(found, "integrations_mcp_call_duration_seconds_bucket", le="+Inf", **shop_is) == 6
    assert of(found, "integrations_mcp_upstream_connections", state="idle") >= 1
    assert of(found, "integrations_mcp_catalog_builds_total") >= 1
    assert of(found, "integrations_mcp_catalogs_kept") >= 1
    assert of(found, "integrations_mcp_tasks") >= 1
    assert of(found, "integrations_mcp_registry_up") == of(found, "integrations_mcp_workers") == 1
    assert of(found, "process_resident_memory_bytes") > 10_000_000


async def test_background_calls_show_how_many_wait_and_how_long(world: World, upstream: Hostile) -> None:
    upstream.script("/slow", silence)
    await shop(world, upstream.url)
    await world.call("shop_slow")
    await upstream.until(lambda: len(upstream.received) == 1)
    async with served(world) as url, http(url, "-") as client:
        found = await scrape(client)
    assert of(found, "integrations_mcp_background_calls", state="running") == 1
    assert of(found, "integrations_mcp_background_calls", state="accepted") == 0
    assert of(found, "integrations_mcp_background_oldest_seconds") > 0


async def test_nobody_but_the_operator_reads_them(world: World) -> None:
    async with served(world) as url, http(url, await world.key("owner")) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            got = await client.get("/metrics", headers=headers)
            assert (got.status_code, got.headers["www-authenticate"]) == (401, "Bearer")
            assert "integrations_mcp_calls" not in got.text
        # A key of a workspace isn't one of the operator's; guessing ends soon.
        statuses = [(await client.get("/metrics")).status_code for _ in range(30)]
        assert set(statuses) == {401, 429}
        assert (await client.post("/metrics")).status_code == 405
        # Asked by address, as Prometheus does: the Host header is no name of ours, the token says who it is.
        right = {"Authorization": f"Bearer {TOKEN}", "Host": "10.0.0.7:8080"}
        assert (await client.get("/metrics", headers=right)).status_code == 200


async def test_without_a_token_there_is_no_such_page(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world, served(world) as url, http(url, await world.key("owner")) as client:
        assert (await client.get("/metrics")).status_code == 404


def record(number: int) -> CallRecord:
    return CallRecord(
        at=None,  # type: ignore[arg-type] - not looked at
        workspace=f'w"{number}\n\\',
        caller="key_1",
        caller_kind="key",
        call_id="c",
        tool=f"a-tenant's-tool-{number}",
        integration=f"i_{number}",
        status=200,
        error_code=f"upstream_{400 + number % 200}",
        ms=12.0,
        attempts=1,
        bytes=1,
        answers=((200, 12.0),),
    )


def test_labels_are_bounded_and_a_name_can_not_break_a_line() -> None:
    metrics = Metrics(lambda workspace, id: (f"n{id}", "rest"))
    for number in range(MOST_SERIES + 50):
        metrics.call(record(number))
    text = text_of(metrics.samples()).decode()
    assert "a-tenant's-tool" not in text
    found = figures(text)
    calls = [dict(own) for (name, own) in found if name == "integrations_mcp_calls_total"]
    assert len({c["integration"] for c in calls}) == MOST_SERIES + 1
    assert {c["code"] for c in calls} == {"upstream_4xx", "upstream_5xx"}
    assert of(found, "integrations_mcp_calls_total", integration="_other") == 50
    assert of(found, "integrations_mcp_calls_total", workspace='w"7\n\\') == 1


def test_a_worker_that_takes_another_ones_place_goes_on_with_its_counters(tmp_path: Path) -> None:
    def worker(calls: int, running: int) -> Slot:
        metrics = Metrics(lambda workspace, id: ("shop", "rest"))
        metrics.requests_running = running
        for _ in range(calls):
            metrics.call(record(1))
        return Slot(tmp_path, metrics)

    def sums(slot: Slot) -> tuple[float, float]:
        found = figures(text_of(slot.all_workers()).decode())
        return of(found, "integrations_mcp_calls_total"), of(found, "integrations_mcp_http_requests_running")

    first, second = worker(3, 5), worker(4, 7)
    second.write()
    assert sums(first) == (7, 12)
    second.close()
    third = worker(2, 1)
    assert sums(third) == (9, 6)
    assert sums(first) == (9, 6)
    assert len(list(tmp_path.glob("*.json"))) == 2
    for slot in (first, third):
        slot.close()


@pytest.mark.slow
async def test_the_figures_of_all_workers_add_up(tmp_path: Path) -> None:
    env = {
        "INTEGRATIONS_MCP_METRICS_TOKEN": TOKEN,
        "INTEGRATIONS_MCP_WORKSPACE": "acme",
        "INTEGRATIONS_MCP_ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8",
    }
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "shop_good", "arguments": {}}}
    accept = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
    with (
        anyio.fail_after(60),
        running(tmp_path, "serve", "--port", "0", "--json", "--workers", "2", env=env) as process,
    ):
        async with Hostile() as upstream, gateway(tmp_path) as world:
            upstream.script("/good", answer(200, b"1", JSON))
            await shop(world, upstream.url)
            url, key = process.json_line()["url"], await world.key()

            # A connection of its own for each request, so that both workers get some.
            alone = {"Authorization": f"Bearer {key}", "Connection": "close"}
            async with httpx2.AsyncClient(base_url=url, headers=alone, trust_env=False, timeout=30) as client:

                async def one() -> None:
                    assert (await client.post("/mcp", json=call, headers=accept)).status_code == 200

                await one()
                while of(await scrape(client), "integrations_mcp_workers") < 2:
                    pass
                await asyncio.gather(*(one() for _ in range(39)))
                # Another worker's figures come once a second.
                while of(found := await scrape(client), "integrations_mcp_calls_total") < 40:
                    pass
            assert of(found, "integrations_mcp_calls_total") == 40
            assert of(found, "integrations_mcp_call_duration_seconds_count", integration="shop") == 40
        process.send()
        assert await to_thread.run_sync(process.end) == 0


def test_every_figure_is_in_the_page_on_operating() -> None:
    page = (Path(__file__).parent.parent / "docs" / "operating.md").read_text("utf-8")
    assert {name for name in FAMILIES if f"`{name}`" not in page} == set()
