"""`result_delivery: queue`: calls that are accepted as rows of the registry and run by whichever process claims them.

A caller waits a while for the answer and is then given a handle (agents.md 2, "queue without tasks"). What is decided here is
pure: what makes two calls one, when a call that was cut off may run again, and every text. `server.background` runs them.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

import anyio

from tools.callers import Caller
from tools.errors import ArgumentFault, InvalidArguments, OutcomeUnknown, TooManyCalls
from tools.idempotency import CALLERS_KEY
from tools.json_values import write_json
from tools.outcome import Block, Outcome, Trace
from tools.tool import META, Tool
from tools.upstream import Attempt

KEPT_FOR = timedelta(hours=24)
"""From the moment a call was accepted, and again from its end."""
MOST_OPEN = 1000
"""Calls of one workspace that haven't ended; one more is refused."""

TASK_WAIT_S = 1.0
"""How long a client that takes tasks waits for a quick answer before it is given one."""
_POLL_S = (1.0, 10.0)
"""How soon such a client may ask again: often at first, then less."""

State = Literal["accepted", "running", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = ("accepted", "running", "done", "failed", "cancelled")
OPEN: tuple[State, ...] = ("accepted", "running")


@dataclass(frozen=True, slots=True)
class BackgroundCall:
    """One accepted call. `arguments` are as they were given; `result` is a CallToolResult in the wire's spelling.

    `same` names (caller, tool, arguments) and is unique among calls that haven't ended; `given` names (caller, tool, the
    caller's own idempotency key), `wanted` the arguments: all three SHA-256 in hex. `version` is the integration's at the
    time of acceptance. `attempts` counts how often a process began it; `progress` is 0..1 where the upstream tells it.
    """

    id: str
    caller: Caller
    tool: str
    integration: str
    version: int
    same: str
    wanted: str
    accepted_at: datetime
    expires_at: datetime
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    idempotency_key: str = ""
    hops: int = 0
    given: str | None = None
    state: State = "accepted"
    attempts: int = 0
    progress: float | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error_code: str | None = None
    result: Mapping[str, Any] | None = field(default=None, repr=False)
    request_id: str = ""
    """Of the HTTP request that was accepted: a later one of the same call changes nothing."""

    @property
    def is_open(self) -> bool:
        return self.state in OPEN


class CallQueue(Protocol):
    """The rows, shared by all processes. Everything raises StorageUnavailable."""

    async def accept(self, call: BackgroundCall, most: int) -> BackgroundCall | None:
        """The call as it is kept: this one, an open one with the same `same`, or any with the same `given`.

        None: the workspace has `most` open calls already.
        """
        ...

    async def get(self, workspace: str, caller: str, id: str, now: datetime) -> BackgroundCall | None:
        """None where there is none, it has expired, or it is another caller's: no difference can be seen."""
        ...

    async def cancel(self, workspace: str, id: str, now: datetime) -> bool:
        """Ends a call that waits or runs; whoever runs it hears of it. False: no such call, or it has ended."""
        ...


class News:
    """Who waits for the end of which call in this process, so that one look at the registry is enough for all of them."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[anyio.Event]] = {}

    def expect(self, id: str) -> anyio.Event:
        """Set when the call has ended; taken before looking, so that no end is missed."""
        event = anyio.Event()
        self._waiting.setdefault(id, set()).add(event)
        return event

    def forget(self, id: str, event: anyio.Event) -> None:
        waiting = self._waiting.get(id, set())
        waiting.discard(event)
        if not waiting:
            self._waiting.pop(id, None)

    def expected(self) -> set[str]:
        return set(self._waiting)

    def tell(self, ids: Iterable[str]) -> None:
        for id in ids:
            for event in self._waiting.get(id, ()):
                event.set()


class Background:
    """What agents meet: accepts calls and waits for their ends, `wait_s` at most each time."""

    def __init__(
        self,
        queue: CallQueue,
        news: News,
        *,
        wait_s: float,
        new_id: Callable[[], str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._queue, self._news, self._wait_s, self._new_id, self._now = queue, news, wait_s, new_id, now

    async def call(
        self,
        caller: Caller,
        tool: Tool,
        arguments: Mapping[str, Any],
        *,
        idempotency_key: str | None,
        hops: int,
        as_task: bool = False,
        request_id: str = "",
    ) -> Outcome:
        """Accepts the call and waits for its answer. Raises InvalidArguments, TooManyCalls, StorageUnavailable.

        `as_task`: waits for a moment only, then the outcome is a task, for a client that asks for it again by itself.
        """
        prepared = tool.arguments.prepare(arguments)
        wanted = accepted(caller, tool, arguments, prepared.values, idempotency_key, hops, self._new_id(), self._now())
        kept = await self._queue.accept(replace(wanted, request_id=request_id), MOST_OPEN)
        if kept is None:
            raise TooManyCalls(f"{MOST_OPEN} calls of this workspace wait or run in the background already")
        if kept.wanted != wanted.wanted:
            raise InvalidArguments(
                [
                    ArgumentFault(
                        "_meta.idempotency_key",
                        "was used for other arguments before: give a new key, or the same arguments.",
                    )
                ],
                tool.arguments.names,
            )
        kept = await self._ended(kept, min(self._wait_s, TASK_WAIT_S) if as_task else self._wait_s)
        if kept.is_open:
            said = _said(kept, kept.tool, accepted_text(kept, tool.endpoint.name))
            return replace(said, task=task_of(kept, self._now())) if as_task else said
        return ended(kept, kept.tool)

    async def get(self, caller: Caller, id: str) -> BackgroundCall | None:
        """The call, when it has ended or after `wait_s`; None: no such call of this caller (any more)."""
        call = await self._queue.get(caller.workspace, caller.id, id, self._now())
        return None if call is None else await self._ended(call, self._wait_s)

    async def task(self, caller: Caller, id: str) -> tuple[BackgroundCall, dict[str, Any]] | None:
        """The call as it is now, and its task; None: no such call of this caller (any more)."""
        now = self._now()
        call = await self._queue.get(caller.workspace, caller.id, id, now)
        return None if call is None else (call, task_of(call, now))

    async def cancel(self, caller: Caller, id: str) -> bool:
        """Ends the call if it hasn't ended; False: no such call of this caller (any more)."""
        now = self._now()
        if await self._queue.get(caller.workspace, caller.id, id, now) is None:
            return False
        await self._queue.cancel(caller.workspace, id, now)
        return True

    def running(self, call: BackgroundCall) -> Outcome:
        return _said(call, "get_result", running_text(call, self._now()))

    async def _ended(self, call: BackgroundCall, wait_s: float) -> BackgroundCall:
        """As it is at its end, or when the wait is over."""
        if not call.is_open or wait_s <= 0:
            return call
        event = self._news.expect(call.id)
        try:
            with anyio.move_on_after(wait_s):
                call = await self._now_of(call)
                if call.is_open:
                    await event.wait()
        finally:
            self._news.forget(call.id, event)
        return await self._now_of(call) if call.is_open else call

    async def _now_of(self, call: BackgroundCall) -> BackgroundCall:
        return await self._queue.get(call.caller.workspace, call.caller.id, call.id, self._now()) or call


def accepted(
    caller: Caller,
    tool: Tool,
    arguments: Mapping[str, Any],
    values: Mapping[str, Any],
    idempotency_key: str | None,
    hops: int,
    id: str,
    now: datetime,
) -> BackgroundCall:
    """The row of a new call; `values` are the repaired arguments. Raises InvalidArguments for a key that can't be one."""
    if idempotency_key is not None and not CALLERS_KEY.fullmatch(idempotency_key):
        raise InvalidArguments(
            [ArgumentFault("_meta.idempotency_key", "is 1 to 255 characters of printable ASCII without blanks.")],
            tool.arguments.names,
        )
    whose = (caller.workspace.lower(), caller.id, tool.integration.id, tool.endpoint.name)
    wanted = _hashed([json.dumps(values, sort_keys=True)])
    return BackgroundCall(
        id=id,
        caller=caller,
        tool=tool.name,
        integration=tool.integration.id,
        version=tool.integration.version,
        same=_hashed([*whose, wanted]),
        wanted=wanted,
        accepted_at=now,
        expires_at=now + KEPT_FOR,
        arguments=arguments,
        # One logical call, one key: the same in every restart (rules F2).
        idempotency_key=idempotency_key or str(uuid.uuid4()),
        hops=hops,
        given=None if idempotency_key is None else _hashed([*whose, idempotency_key]),
    )


def may_begin(call: BackgroundCall, tool: Tool) -> bool:
    """Whether a claimed call may be sent: the first time always; again only where repeating does no harm.

    A process that began it and ended without a word may have sent it. A changed integration may be another server, which
    doesn't know the key of the first attempt. An approval is used up by the first (rules H5).
    """
    if call.attempts <= 1 or not tool.writes:
        return True
    return tool.retry.idempotent and tool.integration.version == call.version and not tool.needs_approval


def cut_off(call: BackgroundCall, tool: Tool, check: str | None) -> Outcome:
    """The end of a write that must not be repeated: nobody knows whether it was carried out."""
    look = f"check with {check}" if check else "read the record"
    text = (
        f"The gateway was stopped while {tool.name} was running, after the request may have been sent to the "
        f"{tool.integration.name}'s server. It MAY have been carried out: {look} before you repeat it. [{OutcomeUnknown.code}]"
    )
    return Outcome(
        call.id,
        tool.name,
        text,
        (Block("text", text),),
        0.0,
        Trace(request_id=call.request_id),
        OutcomeUnknown("cut off"),
    )


def accepted_text(call: BackgroundCall, endpoint: str) -> str:
    """Worked in agents.md; not an error."""
    words = endpoint.replace("_", " ").replace("-", " ").replace(".", " ")
    return (
        f"Accepted: the {words} is running (call {call.id}, since {call.accepted_at:%H:%M:%S} UTC) and goes on if you stop "
        f"waiting. Do NOT call {call.tool} again, that would start a second one. For the answer: "
        f"get_result {_handle(call)} (waits up to 40 s each time; done calls are kept 24 hours)."
    )


def running_text(call: BackgroundCall, now: datetime) -> str:
    return f"{_still_running(call, now)} Call get_result again, or do something else first."


def _still_running(call: BackgroundCall, now: datetime) -> str:
    since = max(0, round((now - call.accepted_at).total_seconds()))
    what = [f"attempt {call.attempts}"] if call.state == "running" else ["waiting to begin"]
    if call.progress is not None:
        what.append(f"last progress {call.progress:.0%}".replace("%", " %"))
    return f"Still running after {since} s ({', '.join(what)})."


def task_of(call: BackgroundCall, now: datetime) -> dict[str, Any]:
    """The call as a `Task` in the wire's spelling, without its result (extension io.modelcontextprotocol/tasks, 2026-07-28).

    `failed` is for protocol errors only: a call that failed is a completed task whose result says so.
    """
    status = "working" if call.is_open else "cancelled" if call.state == "cancelled" else "completed"
    task: dict[str, Any] = {
        "taskId": call.id,
        "status": status,
        "createdAt": call.accepted_at.isoformat(),
        "lastUpdatedAt": (call.ended_at or call.started_at or call.accepted_at).isoformat(),
        "ttlMs": round((call.expires_at - call.accepted_at).total_seconds() * 1000),
    }
    if status == "working":
        soonest, latest = _POLL_S
        quarter = (now - call.accepted_at).total_seconds() / 4
        task["pollIntervalMs"] = round(1000 * min(max(quarter, soonest), latest))
        task["statusMessage"] = _still_running(call, now)
    elif status == "cancelled":
        task["statusMessage"] = cancelled_text(call)
    return task


def cancelled_text(call: BackgroundCall) -> str:
    if call.attempts == 0:
        return f"Call {call.id} of {call.tool} was cancelled before it began. Nothing was sent. [cancelled]"
    return (
        f"Call {call.id} of {call.tool} was cancelled while it ran. It MAY have been carried out: read the record before you "
        "repeat it. [cancelled]"
    )


def ended(call: BackgroundCall, tool: str) -> Outcome:
    """The answer of a call that has ended, as the waiting caller or `get_result` gives it."""
    if call.result is None:
        text = cancelled_text(call)
        error = {"code": "cancelled", "fault": "limit", "retryable": False, "retry_after_s": None}
        sent = "unknown" if call.attempts else "no"
        result: Mapping[str, Any] = {
            "content": [{"type": "text", "text": text}],
            "isError": True,
            "_meta": {f"{META}error": {**error, "sent": sent}},
        }
    else:
        result = call.result
    return Outcome(call.id, tool, text_of(result), (), _ms(call), _trace(result), passed_on=dict(result))


def text_of(result: Mapping[str, Any]) -> str:
    blocks: Sequence[Mapping[str, Any]] = result.get("content", ())
    return "\n".join(b["text"] for b in blocks if b.get("type") == "text")


def _trace(result: Mapping[str, Any]) -> Trace:
    """As much of the trace as `_meta` tells of."""
    meta: Mapping[str, Any] = result.get("_meta") or {}
    told: Mapping[str, Any] = meta.get(f"{META}call") or {}
    count, status = int(told.get("attempts") or 0), told.get("http_status")
    return Trace(attempts=[Attempt(n + 1, status, 0.0, "", 0.0, None) for n in range(count)])


def _said(call: BackgroundCall, tool: str, text: str) -> Outcome:
    return Outcome(call.id, tool, text, (Block("text", text),), 0.0, Trace())


def _ms(call: BackgroundCall) -> float:
    if call.started_at is None or call.ended_at is None:
        return 0.0
    return (call.ended_at - call.started_at).total_seconds() * 1000


def _handle(call: BackgroundCall) -> str:
    return write_json({"result_id": call.id})


def _hashed(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
