"""One call, from a name and arguments to what the agent sees. READ THIS FIRST: `_run` is the table of contents.

    wire -> Gateway.call -> catalog.find -> arguments.prepare -> plan.build -> approve -> sign, send -> read_raw -> shape -> cut -> Outcome

Every door (tools/call, REST test, CLI, admin tools) enters here, so that authorization, limits and masking are the same for all.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tools.answers import Raw, read_raw, status_error
from tools.approvals import Confirm, Gate, QuestionAsked
from tools.background import Background
from tools.callers import Caller
from tools.catalog import Catalog, Catalogs
from tools.credentials.reader import SecretReader
from tools.endings import (
    Progress,
    Reports,
    binary,
    elapsed_ms,
    new_call_id,
    notes,
    passed_on,
    refused,
    situation,
    with_notes,
)
from tools.error_text import render
from tools.errors import (
    ApprovalDenied,
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
from tools.idempotency import CallKeys
from tools.kinds.fhir.calling import FhirCall, FhirCalls
from tools.kinds.fhir.cursors import Cursors
from tools.kinds.fhir.fhir_tool import FhirTool
from tools.kinds.mcp.apps import app_tool, called_by_page, listed_apps, read_app
from tools.kinds.mcp.calling import call_mcp, is_plain_text, text_of
from tools.kinds.mcp.mcp_tool import McpTool
from tools.kinds.mcp.questions import User
from tools.kinds.mcp.sessions import McpSessions
from tools.long_results import LongResults
from tools.masking import Masker
from tools.outcome import Block, Outcome, Trace
from tools.patience import Patience
from tools.results import ResultStore
from tools.sent_keys import SentKeys
from tools.signing import CallSigner
from tools.tool import Tool
from tools.tracing import CameWith, Tracer
from tools.traffic import Passage, Traffic
from tools.upstream import Limits, Upstream, retry_after_s

MAX_HOPS = 3
_PATIENCE_S = 600.0


@dataclass(slots=True)
class CallContext:
    """What a wire knows of one call besides name and arguments. `confirm` asks the user, where his client can show a question."""

    hops: int = 0
    idempotency_key: str | None = None
    progress: Progress | None = None
    kept_as: str | None = None
    """Id under which a background call's result is kept, as long as the call is."""
    confirm: Confirm | None = None
    user: User | None = None
    """Whom an MCP upstream may ask while it carries out the call; None where his client shows no forms."""
    shows_apps: bool = False
    """Whether the client shows pages of MCP Apps, which call tools by their server's own names."""
    insists: bool = False
    """An operator's test, which an open circuit doesn't hold back."""
    request_id: str = ""
    """Of the HTTP request that brought it: the same in the answer's header, in logs and in what is recorded."""
    came: CameWith | None = None
    """What a trace goes on from; only where there is a tracer."""
    takes_tasks: bool = False
    """Whether the client takes a task in place of the answer of a call that runs in the background."""


@dataclass(frozen=True, slots=True)
class GatewayRules:
    """Settings on the path of a call. `result_budget` in characters; 0 never cuts. `record_arguments`: history keeps them."""

    result_budget: int = 40_000
    record_arguments: bool = False
    max_response_bytes: int = 10 * 1024 * 1024


class Gateway:
    """Runs calls. `log_fault` is told the exceptions that are faults of ours, with the call's id; `record` how each call ended.

    `tracer`: None traces nothing and costs nothing."""

    def __init__(
        self,
        catalogs: Catalogs,
        upstream: Upstream,
        reader: SecretReader,
        results: ResultStore,
        rules: GatewayRules,
        call_keys: CallKeys,
        mcp: McpSessions,
        gate: Gate,
        traffic: Traffic,
        first: FirstListings,
        *,
        cursors: Cursors,
        log_fault: Callable[[str, BaseException], None],
        record: Callable[[CallRecord], None] = lambda _: None,
        background: Background | None = None,
        tracer: Tracer | None = None,
        patience: Patience | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._catalogs, self._upstream, self._reader = catalogs, upstream, reader
        self.rules, self._log_fault, self._now = rules, log_fault, now
        self._keys, self._long = SentKeys(call_keys, now), LongResults(results, now, log_fault, patience or Patience())
        self._background, self.tracer = background, tracer
        self._fhir = FhirCalls(upstream, cursors, rules.max_response_bytes)
        self._record, self._mcp, self._gate, self.traffic = record, mcp, gate, traffic
        self.first = first

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
        try:
            outcome = await self._run(caller, catalog, tool, arguments, context, call_id, trace, started)
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

    async def _run(
        self,
        caller: Caller,
        catalog: Catalog,
        tool: Tool,
        arguments: Mapping[str, Any],
        context: CallContext,
        call_id: str,
        trace: Trace,
        started: float,
    ) -> Outcome:
        signer: CallSigner | None = None
        try:
            signer = CallSigner(
                tool.credential,
                tool.credential_paths,
                tool.secret_headers,
                tool.integration.bindings,
                self._reader,
                None if trace.span is None else trace.span.sending,
            )
            if context.hops >= MAX_HOPS:
                raise Misconfigured(
                    f"this call came through {context.hops} gateways already: they call each other in a ring"
                )
            async with self._passage(caller, tool, context) as passage:
                if isinstance(tool, McpTool):

                    async def admit() -> None:
                        await self._admit(caller, tool, context, trace, passage)

                    answered = await call_mcp(
                        self._mcp,
                        tool,
                        arguments,
                        signer,
                        trace,
                        hops=context.hops + 1,
                        progress=context.progress,
                        admit=admit,
                        # A client that comes again with answers would need a second approval of what is one call.
                        user=None
                        if tool.needs_approval and context.user and not context.user.asks_now
                        else context.user,
                        caller=f"{caller.kind} {caller.id}",
                    )
                    if not self._is_ours_to_shape(tool, answered):
                        return passed_on(call_id, tool, answered, trace, started)
                    raw, masker = trace.raw or Raw("empty", None), tool.masker(signer.masks)
                elif isinstance(tool, FhirTool):
                    raw, masker = await self._send_fhir(caller, tool, arguments, context, signer, trace, passage)
                else:
                    raw, masker = await self._send(caller, tool, arguments, context, signer, trace, passage)
            if raw.kind not in ("json", "text", "empty"):
                return binary(call_id, tool, raw, trace, started)
            answered = await self._answer(caller, tool, raw, masker, trace, context, call_id, started)
            return with_notes(answered, masker)
        except CallError as e:
            error = e
        except QuestionAsked:
            raise
        except Exception as e:  # noqa: BLE001 - the one place where a fault of ours becomes an answer
            self._log_fault(call_id, e)
            error = Internal(f"call {call_id}")
        finally:
            if signer is not None:
                trace.masker = tool.masker(signer.masks)
                trace.credential = signer.way()
        masker = trace.masker
        if error.said:
            error.said = masker.text(visible(error.said))
        text = visible(render(error, situation(caller, catalog, tool, arguments, trace, started)))
        text = masker.text(text)
        return Outcome(call_id, tool.name, text, (Block("text", text),), elapsed_ms(started), trace, error)

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
        i = tool.integration
        signer = CallSigner(tool.credential, tool.credential_paths, tool.secret_headers, i.bindings, self._reader)
        async with self._passage(caller, tool, CallContext()) as passage:
            await passage.enter()
            return await read_app(self._mcp, tool, signer, hops=hops + 1)

    # ------------------------------------------------------------------ steps

    def _passage(self, caller: Caller, tool: Tool, context: CallContext) -> Passage:
        """The way out under the operator's limits. A background call was counted and accepted before: it waits, and is not refused."""
        if context.kept_as is not None:
            return self.traffic.passage(caller, tool, insists=True, wait_s=_PATIENCE_S)
        self.traffic.count(caller, tool.integration)
        return self.traffic.passage(caller, tool, insists=context.insists)

    async def _send(
        self,
        caller: Caller,
        tool: Tool,
        arguments: Mapping[str, Any],
        context: CallContext,
        signer: CallSigner,
        trace: Trace,
        passage: Passage,
    ) -> tuple[Raw, Masker]:
        """Arguments to the raw, masked value of a success."""
        prepared = tool.arguments.prepare(arguments)
        trace.changes, trace.arguments = prepared.changes, prepared.values
        key = await self._keys.key_for(caller, tool, prepared.values, context.idempotency_key)
        request = tool.plan.build(prepared.values, key, hops=context.hops + 1)
        trace.request = request
        await self._admit(caller, tool, context, trace, passage)
        reports = Reports(context.progress)
        try:
            answer = await self._upstream.send(
                request,
                pool=tool.integration.workspace_id,
                retry=tool.retry,
                limits=Limits(tool.deadline_s, self.rules.max_response_bytes),
                signer=signer,
                attempts=trace.attempts,
                on_progress=reports.tell,
            )
        except CallError:
            await reports.settle()
            raise
        await reports.settle()
        masker = tool.masker(signer.masks)
        trace.answer = answer
        if not 200 <= answer.status < 300:
            raise status_error(
                answer,
                request,
                masker,
                idempotent=tool.retry.idempotent,
                unsure_before=any(a.maybe_done for a in trace.attempts[:-1]),
                retry_after_s=retry_after_s(answer.headers, time.time()),
            )
        trace.raw = read_raw(answer, masker)
        return trace.raw, masker

    async def _send_fhir(
        self,
        caller: Caller,
        tool: FhirTool,
        arguments: Mapping[str, Any],
        context: CallContext,
        signer: CallSigner,
        trace: Trace,
        passage: Passage,
    ) -> tuple[Raw, Masker]:
        """As `_send`, by the rules of FHIR."""
        prepared = tool.arguments.prepare(arguments)
        trace.changes, trace.arguments = prepared.changes, prepared.values
        key = await self._keys.key_for(caller, tool, prepared.values, context.idempotency_key) if tool.writes else None
        reports = Reports(context.progress)

        async def admit() -> None:
            await self._admit(caller, tool, context, trace, passage)

        hops, told = context.hops + 1, context.progress
        call = FhirCall(caller, signer, trace, key, hops, told, reports.tell, admit)
        try:
            raw = await self._fhir.run(tool, prepared.values, call)
        finally:
            await reports.settle()
        return raw, tool.masker(signer.masks)

    async def _admit(self, caller: Caller, tool: Tool, context: CallContext, trace: Trace, passage: Passage) -> None:
        """The last gates before the first byte leaves: a person's word, then a slot of its own."""
        if tool.needs_approval:
            await self._approve(caller, tool, context, trace)
        await passage.enter()

    async def _approve(self, caller: Caller, tool: Tool, context: CallContext, trace: Trace) -> None:
        """Waits for a person; what was changed meanwhile isn't what he approved (rules J14)."""
        assert trace.request is not None
        assert trace.arguments is not None
        await self._gate.approved(caller, tool, trace.arguments, trace.request, context.confirm)
        self._catalogs.invalidate(caller.workspace)
        now = {i.id: i.version for i in (await self._catalogs.get(caller.workspace)).integrations}
        if now.get(tool.integration.id) != tool.integration.version:
            raise ApprovalDenied(f'integration "{tool.integration.name}" was changed after this call was approved')

    def _is_ours_to_shape(self, tool: McpTool, result: dict[str, Any]) -> bool:
        """An upstream's result is passed on as it is, unless an endpoint shapes it or it is one text that is too long."""
        budget = self.rules.result_budget
        return tool.is_shaped or bool(budget and is_plain_text(result) and len(text_of(result)) > budget)

    async def _answer(
        self,
        caller: Caller,
        tool: Tool,
        raw: Raw,
        masker: Masker,
        trace: Trace,
        context: CallContext,
        call_id: str,
        started: float,
    ) -> Outcome:
        """The raw value to the text that the agent sees: shaped, masked, cut, and kept where it was cut."""
        if raw.kind == "empty" and not tool.shaper.shapes:
            assert trace.answer is not None
            text = f"The {tool.integration.name}'s server answered {trace.answer.status}: done, it sent no content."
            return Outcome(call_id, tool.name, text, (Block("text", text),), elapsed_ms(started), trace)
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
            return Outcome(call_id, tool.name, text, (Block("text", text),), elapsed_ms(started), trace)
        value = masker.value(visible_value(shaped.written_from))
        cut = await self._long.cut(caller, tool, value, text, limit, call_id, kept_as=context.kept_as)
        block = Block("text", cut.text)
        return Outcome(
            call_id,
            tool.name,
            cut.text,
            (block,),
            elapsed_ms(started),
            trace,
            cut=cut.part,
            result_id=cut.result_id,
            expires_at=cut.expires_at,
        )
