"""What happened: calls and management changes as rows, and the Protocol that keeps them (semantics: audit and history).

Recording never waits and never fails: the rows are written behind, in batches. Values in them are masked before they get here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from tools.callers import Caller
from tools.json_values import is_array, is_object
from tools.masking import is_secret_header
from tools.outcome import Outcome
from tools.secrets import MASK

Kind = Literal["integration", "api_key", "secret"]
Action = Literal[
    "integration.create",
    "integration.update",
    "integration.delete",
    "secret_rebound",
    "api_key.create",
    "api_key.rotate",
    "api_key.delete",
    "secret.put",
    "secret.delete",
    "approval.approve",
    "approval.deny",
]


@dataclass(slots=True)
class CallRecord:
    """One call. `status` is the last upstream status, `error_code` None for a success, `bytes` the answer's size, `ms` the whole
    call. `arguments` only where the operator opted in, masked. `seq` is the row's number, once it has one.

    `request_id` is that of the HTTP request, empty where none brought it; `answers` is what each attempt brought (status,
    milliseconds), for logs and figures and not kept."""

    at: datetime
    workspace: str
    caller: str
    caller_kind: str
    call_id: str
    tool: str
    integration: str | None
    status: int | None
    error_code: str | None
    ms: float
    attempts: int
    bytes: int
    arguments: Mapping[str, Any] | None = None
    seq: int = 0
    request_id: str = ""
    answers: tuple[tuple[int | None, float], ...] = ()


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One management change. `target` is an id or a secret's path; `changes` are `{at, before, after}` rows without secrets."""

    at: datetime
    workspace: str
    caller: str
    caller_kind: str
    action: Action
    kind: Kind
    target: str
    name: str
    changes: Sequence[Mapping[str, Any]] = ()
    seq: int = 0


@dataclass(frozen=True, slots=True)
class CallQuery:
    """A page of calls, newest first: rows before number `before`. `integrations` and `tools` narrow to what the caller may see."""

    limit: int = 20
    before: int | None = None
    tool: str | None = None
    integration: str | None = None
    failed: bool | None = None
    request_id: str | None = None
    integrations: frozenset[str] | None = None
    tools: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """A page of changes, newest first. `kinds` are those that the caller may see; `integrations` narrows to their ids."""

    kinds: frozenset[Kind]
    limit: int = 20
    before: int | None = None
    target: str | None = None
    integrations: frozenset[str] | None = None


class History(Protocol):
    """Where records go and are read from. Reading sees everything that this process has recorded."""

    def call(self, record: CallRecord) -> None: ...

    def change(self, record: AuditRecord) -> None: ...

    async def calls(self, workspace: str, query: CallQuery) -> list[CallRecord]:
        """Raises StorageUnavailable."""
        ...

    async def changes(self, workspace: str, query: AuditQuery) -> list[AuditRecord]:
        """Raises StorageUnavailable."""
        ...


def call_record(
    caller: Caller, outcome: Outcome, integration: str | None, at: datetime, arguments: Mapping[str, Any] | None
) -> CallRecord:
    """The row of a call that ended. `arguments` as given or prepared; None leaves them out."""
    trace, error = outcome.trace, outcome.error
    return CallRecord(
        at,
        caller.workspace,
        caller.id,
        caller.kind,
        outcome.call_id,
        outcome.tool,
        integration,
        outcome.status,
        None if error is None else error.full_code,
        outcome.duration_ms,
        len(trace.attempts),
        0 if trace.answer is None else len(trace.answer.body),
        None if arguments is None else trace.masker.value(without_secrets(arguments)),
        request_id=trace.request_id,
        answers=tuple([(a.status, a.ms) for a in trace.attempts]),
    )


def without_secrets(value: Any) -> Any:
    """A JSON value whose members with secret-looking names are `[secret]`."""
    if is_object(value):
        return {n: MASK if is_secret_header(n) else without_secrets(v) for n, v in value.items()}
    if is_array(value):
        return [without_secrets(v) for v in value]
    return value


def change_record(
    caller: Caller,
    at: datetime,
    action: Action,
    kind: Kind,
    target: str,
    name: str,
    changes: Sequence[Mapping[str, Any]] = (),
) -> AuditRecord:
    return AuditRecord(at, caller.workspace, caller.id, caller.kind, action, kind, target, name, changes)
