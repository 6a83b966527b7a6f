"""One call, from a name and arguments to what the agent sees. READ THIS FIRST: `_answered` is the table of contents.

    wire -> Gateway.call -> catalog.find -> Sending (prepare, build, approve, sign, send, read) -> shape -> cut -> Outcome

Every door (tools/call, REST test, CLI, admin tools) enters here, so that authorization, limits and masking are the same for all.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tools.answers import Raw
from tools.approvals import QuestionAsked
from tools.background import Background
from tools.call import Call, CallContext
from tools.callers import Caller
from tools.catalog import Catalog, Catalogs
from tools.credentials.reader import SecretReader
from tools.dialing import coarse_ms
from tools.endings import binary, elapsed_ms, new_call_id, notes, passed_on, refused, situation, with_notes
from tools.error_text import render
from tools.errors import (
    AddressRefused,
    CallError,
    Internal,
    Misconfigured,
    RegistryUnavailable,
    StorageUnavailable,
    UnknownTool,
)
from tools.first_listing import FirstListings, NotListed
from tools.hidden_text import visible, visible_value
from tools.history import CallRecord, call_record
from tools.kinds.fhir.fhir_tool import FhirTool
from tools.kinds.mcp.apps import app_tool, called_by_page, listed_apps, read_app
from tools.kinds.mcp.calling import is_plain_text, text_of
from tools.kinds.mcp.mcp_tool import McpTool
from tools.kinds.mcp.sessions import McpSessions
from tools.long_results import LongResults
from tools.outcome import Block, Outcome, Trace
from tools.sending import Sending
from tools.signing import CallSigner
from tools.tool import Tool
from tools.tracing import Headers, Tracer
from tools.traffic import Passage, Traffic

MAX_HOPS = 3
_PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True)
class GatewayRules:
    """Settings on the path of a call. `result_budget` in characters; 0 never cuts. `record_arguments`: history keeps them."""

    result_budget: int = 40_000
    record_arguments: bool = False


class Gateway:
    """Runs calls. `log_fault` is told the exceptions that are faults of ours, with the call's id; `record` how each call ended.

    `tracer`: None traces nothing and costs nothing."""

    def __init__(
        self,
        catalogs: Catalogs,
        sending: Sending,
        reader: SecretReader,
        mcp: McpSessions,
        long_results: LongResults,
        rules: GatewayRules,
        traffic: Traffic,
        first: FirstListings,
        *,
        log_fault: Callable[[str, BaseException], None],
        record: Callable[[CallRecord], None] = lambda _: None,
        background: Background | None = None,
        tracer: Tracer | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._catalogs, self._sending, self._reader, self._mcp = catalogs, sending, reader, mcp
        self._long, self.rules, self.traffic, self.first = long_results, rules, traffic, first
        self._log_fault, self._record, self._now = log_fault, record, now
        self._background, self.tracer = background, tracer

    async def call(
        self, caller: Caller, name: str, arguments: Mapping[str, Any] | None, context: CallContext | None = None
    ) -> Outcome:
        """Runs the tool `name` as `caller`; failures are outcomes, never exceptions (but cancellation and QuestionAsked)."""
        call_id, context = new_call_id(), context or CallContext()
        try:
            catalog = self._catalogs.peek(caller.workspace) or await self._catalogs.get(caller.workspace)
            try:
                tool = catalog.find(caller, name)
            except UnknownTool:
                catalog = await self.first.catalog_with(caller, name, catalog)
                paged = called_by_page(catalog.view(caller).tools, name) if context.shows_apps else None
                tool = paged or catalog.find(caller, name)
        except CallError as e:
            return self._recorded(caller, refused(call_id, name, e, context.request_id), None, arguments)
        except NotListed as e:
            told = refused(call_id, name, e.error, context.request_id, e.integration.name)
            return self._recorded(caller, told, e.integration.id, arguments)
        except StorageUnavailable as e:
            self._log_fault(call_id, e)
            gone = refused(call_id, name, RegistryUnavailable(e.message), context.request_id)
            return self._recorded(caller, gone, None, arguments)
        if self._background is not None and tool.endpoint.result_delivery == "queue":
            return await self._accept(self._background, caller, tool, arguments or {}, context, call_id)
        return await self.run(caller, catalog, tool, arguments or {}, context, call_id)

    async def _accept(
        self,
        background: Background,
        caller: Caller,
        tool: Tool,
        arguments: Mapping[str, Any],
        context: CallContext,
        call_id: str,
    ) -> Outcome:
        """A call that goes on when its caller has left; it is recorded when it has run."""
        try:
            self.traffic.count(caller, tool.integration)
            return await background.call(
                caller,
                tool,
                arguments,
                idempotency_key=context.idempotency_key,
                hops=context.hops,
                as_task=context.takes_tasks,
                request_id=context.request_id,
            )
        except CallError as e:
            error = e
        except StorageUnavailable as e:
            self._log_fault(call_id, e)
            error = RegistryUnavailable(e.message)
        told = refused(call_id, tool.name, error, context.request_id)
        return self._recorded(caller, told, tool.integration.id, arguments)

    async def run(
        self,
        caller: Caller,
        catalog: Catalog,
        tool: Tool,
        arguments: Mapping[str, Any],
        context: CallContext,
        call_id: str,
    ) -> Outcome:
        """Runs a tool that the caller may call, and records it: also when the caller goes away meanwhile."""
        trace, started = Trace(request_id=context.request_id), time.monotonic()
        if self.tracer is not None:
            trace.span = self.tracer.begin(tool.called, call_id, trace.attempts, context.came)
        signer = self._signer(tool, None if trace.span is None else trace.span.sending)
        call = Call(call_id, caller, catalog, tool, arguments, context, signer, trace, started)
        try:
            outcome = await self._answered(call)
        except BaseException as e:
            why = e.code if isinstance(e, QuestionAsked) else "cancelled"
            unseen = Outcome(call_id, tool.name, "", (), elapsed_ms(started), trace, Internal(why))
            self._record(replace(self._row(caller, unseen, tool.integration.id, arguments), error_code=why))
            if trace.span is not None:
                trace.span.ended(why, trace.masker)
            raise
        return self._recorded(caller, outcome, tool.integration.id, arguments)

    def _recorded(
        self, caller: Caller, outcome: Outcome, integration: str | None, arguments: Mapping[str, Any] | None
    ) -> Outcome:
        row = self._row(caller, outcome, integration, arguments)
        self._record(row)
        if outcome.trace.span is not None:
            code = row.error_code or ("tool_error" if outcome.is_error else None)
            outcome.trace.span.ended(code, outcome.trace.masker)
        return outcome

    def _row(
        self, caller: Caller, outcome: Outcome, integration: str | None, arguments: Mapping[str, Any] | None
    ) -> CallRecord:
        kept = (outcome.trace.arguments or arguments) if self.rules.record_arguments else None
        return call_record(caller, outcome, integration, self._now(), kept)

    async def _answered(self, call: Call) -> Outcome:
        """What the agent sees: the shaped answer, or what went wrong and what to do about it."""
        tool, trace = call.tool, call.trace
        try:
            if call.context.hops >= MAX_HOPS:
                raise Misconfigured(
                    f"this call came through {call.context.hops} gateways already: they call each other in a ring"
                )
            async with self._passage(call.caller, tool, call.context) as passage:
                if isinstance(tool, McpTool):
                    result = await self._sending.mcp(call, tool, passage)
                    if not self._is_ours_to_shape(tool, result):
                        return passed_on(call.id, tool, result, trace, call.started)
                    raw = trace.raw or Raw("empty", None)
                elif isinstance(tool, FhirTool):
                    raw = await self._sending.fhir(call, tool, passage)
                else:
                    raw = await self._sending.http(call, passage)
            if raw.kind not in ("json", "text", "empty"):
                return binary(call.id, tool, raw, trace, call.started)
            return with_notes(await self._shaped(call, raw), call.masker)
        except CallError as e:
            error = e
        except QuestionAsked:
            raise
        except Exception as e:  # noqa: BLE001 - the one place where a fault of ours becomes an answer
            self._log_fault(call.id, e)
            error = Internal(f"call {call.id}")
        finally:
            trace.masker = call.masker
            trace.credential = call.signer.way()
        return self._failed(call, error)

    async def apps(self, caller: Caller) -> list[dict[str, Any]]:
        """The pages of MCP Apps that tools of this caller name, as entries of resources/list."""
        return listed_apps((await self._catalogs.get(caller.workspace)).view(caller).tools)

    async def read_app(self, caller: Caller, uri: str, hops: int) -> dict[str, Any] | None:
        """The page; None where no tool that the caller sees names it. Raises CallErrors. It is no call, so it isn't recorded as one."""
        tool = app_tool((await self._catalogs.get(caller.workspace)).view(caller).tools, uri)
        if tool is None:
            return None
        if hops >= MAX_HOPS:
            raise Misconfigured("this came through too many gateways already: they call each other in a ring")
        async with self._passage(caller, tool, CallContext()) as passage:
            await passage.enter()
            return await read_app(self._mcp, tool, self._signer(tool, None), hops=hops + 1)

    # ------------------------------------------------------------------ steps

    def _signer(self, tool: Tool, traced: Callable[[], Headers] | None) -> CallSigner:
        bindings = tool.integration.bindings
        return CallSigner(tool.credential, tool.credential_paths, tool.secret_headers, bindings, self._reader, traced)

    def _passage(self, caller: Caller, tool: Tool, context: CallContext) -> Passage:
        """The way out under the operator's limits. A background call was counted and accepted before: it waits, and is not refused."""
        if context.kept_as is not None:
            return self.traffic.passage(caller, tool, insists=True, wait_s=_PATIENCE_S)
        self.traffic.count(caller, tool.integration)
        return self.traffic.passage(caller, tool, insists=context.insists)

    def _is_ours_to_shape(self, tool: McpTool, result: dict[str, Any]) -> bool:
        """An upstream's result is passed on as it is, unless an endpoint shapes it or it is one text that is too long."""
        budget = self.rules.result_budget
        return tool.is_shaped or bool(budget and is_plain_text(result) and len(text_of(result)) > budget)

    async def _shaped(self, call: Call, raw: Raw) -> Outcome:
        """The raw value to the text that the agent sees: shaped, masked, cut, and kept where it was cut."""
        tool, trace, masker = call.tool, call.trace, call.masker
        if raw.kind == "empty" and not tool.shaper.shapes:
            assert trace.answer is not None
            done = f"The {tool.integration.name}'s server answered {trace.answer.status}: done, it sent no content."
            return _told(call, done)
        shaped = trace.shaped = tool.shaped(trace.arguments or {}, raw.value)
        text = visible(shaped.text)  # first: hidden characters within a secret would keep it from being masked
        trace.hidden += len(shaped.text) - len(text)
        text = masker.text(text)
        if not text.strip():
            text = f"The {tool.integration.name}'s server answered, and the result is empty."
        limit = tool.endpoint.max_result_length or self.rules.result_budget
        if limit and trace.notes:
            limit = max(1, limit - len(notes(trace, masker)))
        if not limit or len(text) <= limit:
            return _told(call, text)
        value = masker.value(visible_value(shaped.written_from))
        kept_as = call.context.kept_as
        cut = await self._long.cut(call.caller, tool, value, text, limit, call.id, kept_as=kept_as)
        return replace(_told(call, cut.text), cut=cut.part, result_id=cut.result_id, expires_at=cut.expires_at)

    def _failed(self, call: Call, error: CallError) -> Outcome:
        """The words for the agent, with what the upstream said."""
        masker, trace = call.trace.masker, call.trace
        if error.said:
            error.said = masker.text(visible(error.said))
        told = situation(call.caller, call.catalog, call.tool, call.arguments, trace, call.started)
        return _told(call, masker.text(visible(render(error, told))), error)


def _told(call: Call, text: str, error: CallError | None = None) -> Outcome:
    blocks = (Block("text", text),)
    took = elapsed_ms(call.started)
    if isinstance(error, AddressRefused):
        took = coarse_ms(took)
    return Outcome(call.id, call.tool.name, text, blocks, took, call.trace, error)
