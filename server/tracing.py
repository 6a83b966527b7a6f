"""Traces and metrics by OTLP: spans of calls and of their attempts, by the semantic conventions of MCP, GenAI and HTTP clients.

Imported only where an exporter is configured (`telemetry.is_traced`); needs the extra otel. The SDK reads the standard OTEL_*
variables. Attributes are names, codes and figures: an endpoint's URL is shown as it was written, with {placeholders} where arguments
go, without its query and masked. Upstreams get `traceparent` and nothing else: never tracestate, never baggage.
"""

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from anyio import to_thread
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace import Tracer as OtelTracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.telemetry import exports
from server.version import VERSION
from tools.masking import Masker
from tools.tracing import Called, CallSpan, CameWith, Headers
from tools.upstream import Attempt

_NAME = "integrations-mcp"
_OPERATION_BOUNDS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
_REQUEST_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_LAST_WORDS_S = 4.0
_FROM_OUTSIDE = TraceContextTextMapPropagator()
_Attributes = dict[str, str | int]


class Traces:
    """`tools.tracing.Tracer`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        about = {"service.version": VERSION, "service.instance.id": str(uuid.uuid4())}
        if "OTEL_SERVICE_NAME" not in environ and "service.name" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
            about["service.name"] = _NAME
        resource = Resource.create(about)
        self._spans = TracerProvider(resource=resource, shutdown_on_exit=False)
        if exports("TRACES", environ):
            self._spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        readers = [PeriodicExportingMetricReader(OTLPMetricExporter())] if exports("METRICS", environ) else []
        self._meters = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        self._tracer = self._spans.get_tracer(_NAME, VERSION)
        meter = self._meters.get_meter(_NAME, VERSION)
        self._operations = meter.create_histogram(
            "mcp.server.operation.duration", "s", explicit_bucket_boundaries_advisory=_OPERATION_BOUNDS_S
        )
        self._requests = meter.create_histogram(
            "http.client.request.duration", "s", explicit_bucket_boundaries_advisory=_REQUEST_BOUNDS_S
        )

    def begin(self, called: Called, call_id: str, attempts: Sequence[Attempt], came: CameWith | None) -> CallSpan:
        attributes: _Attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": called.tool,
            "integrations_mcp.call_id": call_id,
            **(came.attributes if came is not None else {}),
        }
        name, kind = f"execute_tool {called.tool}", SpanKind.INTERNAL
        if "mcp.method.name" in attributes:
            name, kind = f"{attributes['mcp.method.name']} {called.tool}", SpanKind.SERVER
        span = self._tracer.start_span(name, _parent(came), kind, attributes)
        return _Call(self._tracer, span, called, attempts, attributes, self._operations, self._requests)

    async def aclose(self) -> None:
        """Sends what is left, for a while; nobody waits for a collector that is gone."""

        def end() -> None:
            self._spans.shutdown()
            self._meters.shutdown(_LAST_WORDS_S * 1000)

        last = threading.Thread(target=end, daemon=True)
        last.start()
        await to_thread.run_sync(last.join, _LAST_WORDS_S)


class _Call:
    """`tools.tracing.CallSpan`. Attempts' spans are ended with the call: only then is it known what must be masked."""

    def __init__(
        self,
        tracer: OtelTracer,
        span: Span,
        called: Called,
        attempts: Sequence[Attempt],
        attributes: _Attributes,
        operations: Histogram,
        requests: Histogram,
    ) -> None:
        self._tracer, self._span, self._called, self._attempts = tracer, span, called, attempts
        self._attributes, self._operations, self._requests = attributes, operations, requests
        self._context = set_span_in_context(span, Context())
        self._sent: dict[int, tuple[Span, int]] = {}
        self._started = time.monotonic()

    def sending(self) -> Headers:
        number = len(self._attempts) - 1
        if number < 0:
            return (("traceparent", _traceparent(self._span.get_span_context())),)
        if number not in self._sent:
            now = time.time_ns()
            name = f"{self._called.method} {urlsplit(self._called.url).path or '/'}"
            self._sent[number] = (self._tracer.start_span(name, self._context, SpanKind.CLIENT, start_time=now), now)
        return (("traceparent", _traceparent(self._sent[number][0].get_span_context())),)

    def carried(self) -> Mapping[str, str]:
        return {"traceparent": _traceparent(self._span.get_span_context())}

    def ended(self, code: str | None, masker: Masker) -> None:
        parts = urlsplit(self._called.url)
        where: _Attributes = {"http.request.method": self._called.method, "server.address": parts.hostname or ""}
        where["server.port"] = parts.port or (443 if parts.scheme == "https" else 80)
        for number, (span, started) in self._sent.items():
            attempt = self._attempts[number]
            told = {**where, **_answer(attempt, code)}
            span.set_attributes({**told, "url.full": masker.text(self._called.url)})
            if number:
                span.set_attribute("http.request.resend_count", number)
            if "error.type" in told:
                span.set_status(StatusCode.ERROR)
            span.end(started + int(attempt.ms * 1e6))
            self._requests.record(attempt.ms / 1000, told)
        if code is not None:
            self._span.set_attribute("error.type", code)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
        if "mcp.method.name" in self._attributes:
            counted = {n: v for n, v in self._attributes.items() if n in _COUNTED}
            if code is not None:
                counted["error.type"] = code
            self._operations.record(time.monotonic() - self._started, counted)


_COUNTED = frozenset(
    {"gen_ai.operation.name", "gen_ai.tool.name", "mcp.method.name", "mcp.protocol.version", "network.transport"}
)


def _answer(attempt: Attempt, code: str | None) -> _Attributes:
    if attempt.status is not None and attempt.status < 400:
        return {"http.response.status_code": attempt.status}
    if attempt.status is not None:
        return {"http.response.status_code": attempt.status, "error.type": str(attempt.status)}
    return {"error.type": code or "_OTHER"}


def _parent(came: CameWith | None) -> Context:
    """The caller's span where he names one; what isn't W3C Trace Context is no parent."""
    carrier: dict[str, str] = {}
    if came is not None:
        for name, value in (("traceparent", came.traceparent), ("tracestate", came.tracestate)):
            if isinstance(value, str) and len(value) <= 512:  # from JSON it can be anything
                carrier[name] = value
    return _FROM_OUTSIDE.extract(carrier, Context())


def _traceparent(span: SpanContext) -> str:
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"
