"""Approval of calls: the exact request waits until a person says yes, and the yes is used up by one call (rules H4, H5).

What is approved is a binding: caller, integration and its version, the tool as it is described, and the arguments. Anything else
than that needs a new approval.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal, Protocol
from urllib.parse import unquote

from tools.callers import Caller
from tools.errors import ApprovalDenied, ApprovalRequired, RegistryUnavailable, StorageUnavailable
from tools.exchange import Request
from tools.history import Action, AuditRecord, change_record, without_secrets
from tools.json_values import write_json
from tools.masking import Masker, is_secret_header
from tools.secrets import MASK
from tools.tool import Tool

VALID_FOR = timedelta(minutes=15)
MOST_WAITING = 100
"""Approvals that one caller can have open: each is a row and a line for a person to read."""
_QUESTION_LIMIT = 4000
_SHOWN_LIMIT = 100_000
_QUIET = frozenset({"accept", "content-type", "idempotency-key", "x-integrations-mcp-hops"})

State = Literal["waiting", "approved", "denied"]


class QuestionAsked(Exception):
    """Not an error: the call ends with a question to the user. `code` is what history says of it; `result` what its client gets."""

    code: ClassVar[str] = ApprovalRequired.code
    result: dict[str, Any]


class Confirm(Protocol):
    """Asks the user at the caller's client. None: it can't ask. `key` names the question where the answer comes with another call."""

    async def __call__(self, question: str, key: str = "confirm", /) -> bool | None: ...


@dataclass(frozen=True, slots=True)
class Approval:
    """One call that waits for a person. `bound` is a SHA-256 in hex; the request is masked and can be printed as it is."""

    id: str
    workspace: str
    bound: str
    caller: str
    caller_kind: str
    tool: str
    integration_id: str
    integration: str
    integration_version: int
    method: str
    url: str
    headers: tuple[str, ...]
    body: str | None
    state: State
    created_at: datetime
    expires_at: datetime

    def request_text(self) -> str:
        """The request as a person reads it."""
        lines = [f"{self.method} {self.url}", *self.headers]
        return "\n".join([*lines, "", self.body] if self.body is not None else lines)


class Approvals(Protocol):
    """Where they are kept, shared by all processes. Everything raises StorageUnavailable."""

    async def ask(self, approval: Approval, now: datetime) -> Approval:
        """The open one with the same binding, or this one, stored. Raises TooManyCalls over MOST_WAITING of one caller."""
        ...

    async def take(self, approval: Approval, now: datetime) -> bool:
        """Removes it; False where it is gone, expired or denied by now. Only one of several takers gets it."""
        ...

    async def decide(self, workspace: str, id: str, state: State, now: datetime) -> bool:
        """Approves or denies one that waits; False where there is none that does."""
        ...

    async def get(self, workspace: str, id: str, now: datetime) -> Approval | None: ...

    async def open(self, workspace: str, now: datetime) -> list[Approval]:
        """All that aren't used or expired, newest first."""
        ...


class Gate:
    """The step of a call at which it waits for a person. `record` is told what a person decided at the caller's own client."""

    def __init__(
        self,
        approvals: Approvals,
        record: Callable[[AuditRecord], None] = lambda _: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._approvals, self._record, self._now = approvals, record, now

    async def approved(
        self,
        caller: Caller,
        tool: Tool,
        values: Mapping[str, Any],
        request: Request,
        confirm: Confirm | None,
    ) -> None:
        """Returns when exactly this call may be sent, once.

        Raises ApprovalRequired, ApprovalDenied, TooManyCalls, RegistryUnavailable, and what `confirm` raises.
        """
        try:
            while True:
                asked = approval_of(caller, tool, values, request, self._now())
                found = await self._approvals.ask(asked, self._now())
                if found.state == "denied":
                    raise ApprovalDenied(f"a person denied this call (approval {found.id})")
                if found.state == "approved":
                    if await self._approvals.take(found, self._now()):
                        return
                    continue  # another call of the same kind used it: this one asks for its own
                answer = await self._answer(found, confirm)
                if answer is None:
                    raise _required(found, self._now())
                taken = await self._approvals.take(found, self._now())
                self._record(decision(caller, "approval.approve" if answer else "approval.deny", found, self._now()))
                if not answer:
                    raise ApprovalDenied("the user was asked and did not approve this call")
                if not taken:
                    raise ApprovalDenied(f"approval {found.id} was used, denied or expired meanwhile")
                return
        except StorageUnavailable as e:
            raise RegistryUnavailable(e.message) from None

    async def _answer(self, approval: Approval, confirm: Confirm | None) -> bool | None:
        """Not asked where the request is too long for a question: what isn't seen isn't approved."""
        if confirm is None:
            return None
        request = approval.request_text()
        if len(request) > _QUESTION_LIMIT:
            return None
        return await confirm(f"Allow {approval.tool} to send this?\n\n{request}", approval.id)


def approval_of(caller: Caller, tool: Tool, values: Mapping[str, Any], request: Request, now: datetime) -> Approval:
    """What a call asks for: bound to what it would do, shown without secrets."""
    integration, masker = tool.integration, tool.masker(())
    return Approval(
        id=f"a_{secrets.token_hex(8)}",
        workspace=caller.workspace,
        bound=_bound(caller, tool, values),
        caller=caller.id,
        caller_kind=caller.kind,
        tool=tool.name,
        integration_id=integration.id,
        integration=integration.name,
        integration_version=integration.version,
        method=request.method,
        url=_printable(masker.text(_masked_url(request.url))),
        headers=tuple(
            _printable(f"{n}: {MASK if is_secret_header(n) else masker.text(v)}")
            for n, v in request.headers
            if n.lower() not in _QUIET
        ),
        body=None if request.body is None else _printable(_body(request.body, masker)),
        state="waiting",
        created_at=now,
        expires_at=now + VALID_FOR,
    )


def decision(caller: Caller, action: Action, approval: Approval, now: datetime) -> AuditRecord:
    """The audit row: under the integration, so that who is narrowed to others doesn't see it."""
    told = {
        "approval": approval.id,
        "tool": approval.tool,
        "asked_by": approval.caller,
        "method": approval.method,
        "arguments_and_version": approval.bound,
    }
    change = {"at": "", "before": None, "after": told}
    return change_record(caller, now, action, "integration", approval.integration_id, approval.integration, [change])


def _required(approval: Approval, now: datetime) -> ApprovalRequired:
    minutes = max(1, round((approval.expires_at - now).total_seconds() / 60))
    where = "" if approval.workspace.lower() == "default" else f" --workspace {approval.workspace}"
    return ApprovalRequired(
        f"a person must approve this call first (approval {approval.id}, valid {minutes} minutes). Ask the user to run: "
        f"integrations-mcp approvals approve {approval.id}{where}; then make exactly the same call again",
        approval_id=approval.id,
    )


def _bound(caller: Caller, tool: Tool, values: Mapping[str, Any]) -> str:
    """The tool's entry is part of it, because an MCP upstream can change its tools without a new version of the integration."""
    whose = (
        caller.workspace.lower(),
        caller.kind,
        caller.id,
        tool.integration.id,
        tool.integration.version,
        tool.endpoint.name,
    )
    text = json.dumps([*whose, tool.entry, values], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _masked_url(url: str) -> str:
    """Values of parameters with secret-looking names are hidden."""
    base, mark, query = url.partition("?")
    if not mark:
        return url
    pairs = (pair.partition("=") for pair in query.split("&"))
    return f"{base}?{'&'.join(f'{n}={MASK}' if is_secret_header(unquote(n)) else n + eq + v for n, eq, v in pairs)}"


def _body(body: bytes, masker: Masker) -> str:
    try:
        text = write_json(without_secrets(masker.value(json.loads(body))))
    except (ValueError, RecursionError):
        text = masker.text(_masked_url(f"?{body.decode('utf-8', 'replace')}")[1:])
    more = len(text) - _SHOWN_LIMIT
    return text if more <= 0 else f"{text[:_SHOWN_LIMIT]} ({more:,} MORE CHARACTERS ARE SENT AND NOT SHOWN HERE)"


def _printable(text: str) -> str:
    """Without what moves a terminal's cursor, hides or turns round: a person must see what is sent."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
