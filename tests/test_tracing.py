"""Traces: one from the caller through the gateway to each attempt, sent by OTLP to a receiver that decodes it; off costs nothing."""

import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.mcp_upstreams import lowlevel
from tests.upstreams import Hostile, answer
from tests.world import World, gateway, http, listening, served

pytestmark = pytest.mark.anyio
JSON = {"Content-Type": "application/json"}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
MODERN = "2026-07-28"


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        retried = answer(503, headers={"Retry-After": "0"})
        server.script("/people/p-4711", retried, answer(200, b"1", JSON), answer(404))
        yield server


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "our-gateway")
        yield server


async def shop(world: World, upstream: Hostile) -> None:
    get = {
        "name": "get",
        "description": "d",
        "method": "GET",
        "path": "/people/{id}",
        "input_schema": {"type": "object", "properties": {"id": {"type": "string"}, "q": {"type": "string"}}},
        "retry_config": {"max_retries": 1, "retry_on_status": [503]},
    }
    await world.create({"name": "shop", "display_name": "Shop", "base_url": upstream.url, "endpoints": [get]})


async def call(world: World, meta: Mapping[str, Any], headers: Mapping[str, str], *, fast: bool = True) -> None:
    """As a client of 2026-07-28; what isn't quite plain goes through the SDK."""
    envelope = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        **({} if fast else {"progressToken": 1}),
    }
    params = {"name": "shop_get", "arguments": {"id": "p-4711", "q": "flu"}, "_meta": {**envelope, **meta}}
    own = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MODERN}
    own |= {"Mcp-Method": "tools/call", "Mcp-Name": "shop_get"}
    async with served(world) as url, http(url, await world.key()) as client:
        body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}
        got = await client.post("/mcp", json=body, headers={**own, **headers})
        assert got.status_code == 200, got.text


def spans(collector: Hostile) -> list[Span]:
    found: list[Span] = []
    for request in collector.received:
        if request.path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
                named = {a.key: a.value.string_value for a in resource.resource.attributes}
                assert named["service.name"] == "our-gateway"
                found += [s for scope in resource.scope_spans for s in scope.spans]
    return found


def told(span: Span) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


@pytest.mark.parametrize("fast", [True, False], ids=["fast path", "sdk"])
@pytest.mark.parametrize("place", ["header", "_meta"])
async def test_one_trace_from_the_caller_to_each_attempt(
    tmp_path: Path, upstream: Hostile, collector: Hostile, place: str, fast: bool
) -> None:
    came = {"traceparent": TRACEPARENT, "tracestate": "vendor=secret-of-the-caller", "baggage": "user=alice"}
    other = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    async with gateway(tmp_path) as world:
        await shop(world, upstream)
        # What stands in the message counts before the header of what carried it.
        await call(world, *((came, other) if place == "_meta" else ({}, came)), fast=fast)
    (mine,) = [s for s in spans(collector) if s.kind == Span.SPAN_KIND_SERVER]
    first, second = [s for s in spans(collector) if s.kind == Span.SPAN_KIND_CLIENT]
    assert (mine.trace_id.hex(), mine.parent_span_id.hex()) == (TRACE, PARENT)
    assert mine.name == "tools/call shop_get"
    assert told(mine) | {"integrations_mcp.call_id": "-"} == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "shop_get",
        "integrations_mcp.call_id": "-",
        "jsonrpc.request.id": "7",
        "mcp.method.name": "tools/call",
        "mcp.protocol.version": MODERN,
        "network.transport": "tcp",
    }
    port = int(upstream.url.rpartition(":")[2])
    where = {"http.request.method": "GET", "server.address": "127.0.0.1", "server.port": port}
    where["url.full"] = f"{upstream.url}/people/{{id}}"
    assert told(first) == {**where, "http.response.status_code": 503, "error.type": "503"}
    assert told(second) == {**where, "http.response.status_code": 200, "http.request.resend_count": 1}
    assert {s.parent_span_id for s in (first, second)} == {mine.span_id}
    sent = [r.header("traceparent") for r in upstream.received]
    assert sent == [f"00-{TRACE}-{s.span_id.hex()}-01" for s in (first, second)]
    # A system is told where it stands in the trace, and nothing that the caller's own system keeps there.
    assert all("alice" not in repr(r) and "secret-of" not in repr(r) for r in upstream.received)
    exported = b"".join(r.body for r in collector.received)
    assert b"p-4711" not in exported
    assert b"flu" not in exported


async def test_a_failure_has_its_code_and_both_durations_are_measured(
    tmp_path: Path, upstream: Hostile, collector: Hostile
) -> None:
    async with gateway(tmp_path) as world:
        await shop(world, upstream)
        for _ in range(2):
            await call(world, {"traceparent": ["no", "text"]}, {"traceparent": "nonsense"})
    failed = [s for s in spans(collector) if s.status.code == s.status.STATUS_CODE_ERROR]
    assert {s.name: told(s)["error.type"] for s in failed if s.kind == Span.SPAN_KIND_SERVER} == {
        "tools/call shop_get": "upstream_404"
    }
    assert all(s.parent_span_id == b"" for s in spans(collector) if s.kind == Span.SPAN_KIND_SERVER)
    points: dict[str, int] = {}
    for request in [r for r in collector.received if r.path == "/v1/metrics"]:
        for resource in ExportMetricsServiceRequest.FromString(request.body).resource_metrics:
            for metric in [m for scope in resource.scope_metrics for m in scope.metrics]:
                points[metric.name] = sum(p.count for p in metric.histogram.data_points)
    assert points["mcp.server.operation.duration"] == 2
    assert points["http.client.request.duration"] == len(upstream.received) == 3


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_an_mcp_upstream_is_told_in_the_message_and_in_the_header(
    tmp_path: Path, collector: Hostile, transport: str
) -> None:
    app = lowlevel.app()
    config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
    async with listening(app, config) as url:
        async with gateway(tmp_path) as world:
            where = {"mcp_transport": transport, "mcp_url": url + {"sse": "/sse"}.get(transport, "/mcp")}
            await world.create({"name": "up", "display_name": "Up", "protocol": "mcp", **where})
            lowlevel.metas.clear()
            lowlevel.seen.clear()
            await world.call("up_add", a=1, b=2)
        for stream in lowlevel.listening:
            stream.close()
    (mine,) = [s for s in spans(collector) if s.kind == Span.SPAN_KIND_INTERNAL]
    (attempt,) = [s for s in spans(collector) if s.kind == Span.SPAN_KIND_CLIENT]
    assert mine.name == "execute_tool up_add"
    trace = mine.trace_id.hex()
    assert [m["traceparent"][:-3] for m in lowlevel.metas] == [f"00-{trace}-{mine.span_id.hex()}"]
    if transport == "http":
        assert [h["traceparent"][:-3] for h in lowlevel.seen] == [f"00-{trace}-{attempt.span_id.hex()}"]


async def test_without_a_receiver_nothing_is_traced_or_sent_on(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path) as world:
        await shop(world, upstream)
        await call(world, {"traceparent": TRACEPARENT}, {"traceparent": TRACEPARENT})
    assert [r.header("traceparent") for r in upstream.received] == [None, None]


def test_a_server_without_a_receiver_does_not_load_the_sdk() -> None:
    loaded = "import server.serving, sys; sys.exit('opentelemetry.sdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0
