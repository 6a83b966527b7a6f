"""Deciding approvals: who sees what waits, and who may say yes. Nobody approves his own call with the key that asked for it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from tools.approvals import Approval, Approvals, decision
from tools.callers import Caller
from tools.errors import Forbidden, NotFound
from tools.history import AuditRecord


class ApprovalAdmin:
    """The operations on a workspace's approvals. `record` is told of every decision."""

    def __init__(
        self,
        approvals: Approvals,
        record: Callable[[AuditRecord], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._approvals, self._record, self._now = approvals, record, now

    async def list(self, caller: Caller) -> list[Approval]:
        """What waits, was approved and isn't used yet, or was denied, newest first; within the caller's narrowing."""
        caller.require("Integration.view")
        return [a for a in await self._approvals.open(caller.workspace, self._now()) if _sees(caller, a)]

    async def get(self, caller: Caller, id: str) -> Approval:
        """Raises NotFound, also for one that is used up, expired or outside of the caller's narrowing."""
        caller.require("Integration.view")
        found = await self._approvals.get(caller.workspace, id, self._now())
        if found is None or not _sees(caller, found):
            raise NotFound(
                f"no approval {id[:40]} waits in this workspace: it was used, it expired, or it was never asked for"
            )
        return found

    async def approve(self, caller: Caller, id: str) -> Approval:
        """Lets exactly this call through once. Raises NotFound, Forbidden."""
        return await self._decide(caller, id, approve=True)

    async def deny(self, caller: Caller, id: str) -> Approval:
        """The same call is refused until the approval would have expired. Raises NotFound, Forbidden."""
        return await self._decide(caller, id, approve=False)

    async def _decide(self, caller: Caller, id: str, *, approve: bool) -> Approval:
        caller.require("Integration.update")
        found = await self.get(caller, id)
        if approve and caller.kind != "local" and (caller.kind, caller.id) == (found.caller_kind, found.caller):
            raise Forbidden("the key that asked for this call can't approve it: use another key, or the shell")
        if not await self._approvals.decide(caller.workspace, id, "approved" if approve else "denied", self._now()):
            raise NotFound(f"approval {id[:40]} doesn't wait any more: it was decided, used, or it expired")
        self._record(decision(caller, "approval.approve" if approve else "approval.deny", found, self._now()))
        return replace(found, state="approved" if approve else "denied")


def _sees(caller: Caller, approval: Approval) -> bool:
    return caller.sees(approval.integration_id, approval.tool)
