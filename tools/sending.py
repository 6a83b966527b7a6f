"""How a call leaves and what comes back: by HTTP, by the rules of FHIR, or to an MCP server. The last gates stand here, once for all."""

import time
from typing import Any

from tools.answers import Raw, read_raw, status_error
from tools.approvals import Gate
from tools.call import Call
from tools.catalog import Catalogs
from tools.cursors import Cursors
from tools.endings import Reports
from tools.errors import ApprovalDenied, CallError
from tools.idempotency import CallKeys
from tools.kinds.fhir.calling import FhirCall, FhirCalls
from tools.kinds.fhir.fhir_tool import FhirTool
from tools.kinds.mcp.calling import call_mcp
from tools.kinds.mcp.mcp_tool import McpTool
from tools.kinds.mcp.sessions import McpSessions
from tools.sent_keys import SentKeys
from tools.traffic import Passage
from tools.upstream import Limits, Upstream, retry_after_s


class Sending:
    """`max_bytes` of an answer, unpacked."""

    def __init__(
        self,
        upstream: Upstream,
        mcp: McpSessions,
        cursors: Cursors,
        call_keys: CallKeys,
        gate: Gate,
        catalogs: Catalogs,
        max_bytes: int,
    ) -> None:
        self._upstream, self._mcp, self._gate, self._catalogs = upstream, mcp, gate, catalogs
        self._cursors = cursors
        self._fhir, self._keys, self._max_bytes = (
            FhirCalls(upstream, cursors, max_bytes),
            SentKeys(call_keys),
            max_bytes,
        )

    async def http(self, call: Call, passage: Passage) -> Raw:
        """Arguments to the raw, masked value of a success. Raises CallErrors."""
        tool, trace, signer = call.tool, call.trace, call.signer
        values = _prepared(call)
        key = await self._keys.key_for(call.caller, tool, values, call.context.idempotency_key)
        request = tool.plan.build(values, key, hops=call.context.hops + 1)
        trace.request = request
        await self._admit(call, passage)
        reports = Reports(call.context.progress)
        try:
            answer = await self._upstream.send(
                request,
                pool=tool.integration.workspace_id,
                retry=tool.retry,
                limits=Limits(tool.deadline_s, self._max_bytes),
                signer=signer,
                attempts=trace.attempts,
                on_progress=reports.tell,
            )
        except CallError:
            await reports.settle()
            raise
        await reports.settle()
        trace.answer = answer
        if not 200 <= answer.status < 300:
            raise status_error(
                answer,
                request,
                call.masker,
                idempotent=tool.retry.idempotent,
                unsure_before=any(a.maybe_done for a in trace.attempts[:-1]),
                retry_after_s=retry_after_s(answer.headers, time.time()),
            )
        trace.raw = read_raw(answer, call.masker)
        return trace.raw

    async def fhir(self, call: Call, tool: FhirTool, passage: Passage) -> Raw:
        """As `http`, by the rules of FHIR."""
        values, context = _prepared(call), call.context
        key = await self._keys.key_for(call.caller, tool, values, context.idempotency_key) if tool.writes else None
        reports = Reports(context.progress)

        async def admit() -> None:
            await self._admit(call, passage)

        hops, told = context.hops + 1, context.progress
        try:
            return await self._fhir.run(
                tool, values, FhirCall(call.caller, call.signer, call.trace, key, hops, told, reports.tell, admit)
            )
        finally:
            await reports.settle()

    async def mcp(self, call: Call, tool: McpTool, passage: Passage) -> dict[str, Any]:
        """The upstream's masked result; in the trace what shaping would begin with. Raises CallErrors, InputRequired."""
        context, user = call.context, call.context.user

        async def admit() -> None:
            await self._admit(call, passage)

        if tool.needs_approval and user is not None and not user.asks_now:
            user = None  # who comes again with answers would need a second approval of what is one call
        return await call_mcp(
            self._mcp,
            tool,
            call.arguments,
            call.signer,
            call.trace,
            hops=context.hops + 1,
            progress=context.progress,
            admit=admit,
            cursors=self._cursors,
            user=user,
            caller=f"{call.caller.kind} {call.caller.id}",
        )

    async def _admit(self, call: Call, passage: Passage) -> None:
        """The last gates before the first byte leaves: a person's word, then a slot of its own."""
        if not call.tool.needs_approval:
            await passage.enter()
            return
        assert call.trace.request is not None
        assert call.trace.arguments is not None
        await self._gate.approved(
            call.caller, call.tool, call.trace.arguments, call.trace.request, call.context.confirm
        )
        await passage.enter()
        await self._check_unchanged(call)

    async def _check_unchanged(self, call: Call) -> None:
        """What was changed while a person, or a slot, was waited for isn't what he approved (rules J14)."""
        integration = call.tool.integration
        self._catalogs.invalidate(call.caller.workspace)
        now = {i.id: i.version for i in (await self._catalogs.get(call.caller.workspace)).integrations}
        if now.get(integration.id) != integration.version:
            raise ApprovalDenied(f'integration "{integration.name}" was changed after this call was approved')


def _prepared(call: Call) -> dict[str, Any]:
    """The arguments as they go out: repaired, checked, with defaults. Raises InvalidArguments."""
    prepared = call.tool.arguments.prepare(call.arguments)
    call.trace.changes, call.trace.arguments = prepared.changes, prepared.values
    return prepared.values
