"""How a call ends: its ids, the outcomes that need no shaping, and the reports of its attempts."""

import asyncio
import itertools
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from tools.answers import Raw
from tools.callers import Caller
from tools.catalog import Catalog
from tools.error_text import Situation, render
from tools.errors import CallError
from tools.hidden_text import visible
from tools.kinds.mcp.calling import text_of
from tools.masking import Masker
from tools.outcome import Block, Outcome, Trace
from tools.tool import Tool
from tools.upstream import Attempt

_PROCESS = f"c_{os.urandom(6).hex()}"
_NUMBERS = itertools.count(1)


class Progress(Protocol):
    """Told how far a call is, what it does, and how far it will go, while it runs."""

    async def __call__(self, done: float, message: str, total: float | None = None) -> None: ...


def new_id() -> str:
    """12 characters that nobody can guess."""
    return secrets.token_urlsafe(9).replace("-", "x").replace("_", "y")


def new_call_id() -> str:
    """Unique over processes and restarts; nobody gets anything by guessing one."""
    return f"{_PROCESS}{next(_NUMBERS):x}"


def elapsed_ms(started: float) -> float:
    return (time.monotonic() - started) * 1000


def refused(call_id: str, name: str, error: CallError, request_id: str = "", of: str = "the gateway") -> Outcome:
    """A call that never came to an upstream; `of` is the integration that it would have gone to, where that is known."""
    text = render(error, Situation(name, name, of, writes=False))
    return Outcome(call_id, name, text, (Block("text", text),), 0.0, Trace(request_id=request_id), error)


def passed_on(call_id: str, tool: Tool, result: dict[str, Any], trace: Trace, started: float) -> Outcome:
    return Outcome(call_id, tool.name, text_of(result), (), elapsed_ms(started), trace, passed_on=result)


def notes(trace: Trace, masker: Masker) -> str:
    """What the agent should know before it reads, one line each."""
    return "".join(f"[{masker.text(visible(note))}]\n" for note in trace.notes)


def with_notes(outcome: Outcome, masker: Masker) -> Outcome:
    if not outcome.trace.notes or outcome.error is not None:
        return outcome
    text = notes(outcome.trace, masker) + outcome.text
    return replace(outcome, text=text, blocks=(Block("text", text),))


def binary(call_id: str, tool: Tool, raw: Raw, trace: Trace, started: float) -> Outcome:
    """Images, audio and other binary go to the model as MCP content; the text is for those who test."""
    text = f"{raw.media_type}, {len(raw.value) * 3 // 4} bytes"
    block = Block(raw.kind, text=tool.name, data=raw.value, media_type=raw.media_type)
    return Outcome(call_id, tool.name, text, (block,), elapsed_ms(started), trace)


def situation(
    caller: Caller, catalog: Catalog, tool: Tool, arguments: Mapping[str, Any], trace: Trace, started: float
) -> Situation:
    """What the text of a failure needs to know of the call."""
    return Situation(
        tool=tool.name,
        endpoint=tool.endpoint.name,
        integration=tool.integration.name,
        writes=tool.writes,
        attempts=max(1, len(trace.attempts)),
        elapsed_s=time.monotonic() - started,
        lookup=catalog.lookup_for(tool, caller),
        check=catalog.check_for(tool, caller) if tool.writes else None,
        has_path_ids=bool(tool.path_names),
        deadline_s=tool.deadline_s,
        maybe_done=any(a.maybe_done for a in trace.attempts),
        may_change=caller.may("Integration.update"),
        diagnose=_diagnosis(caller, tool, arguments),
    )


def _diagnosis(caller: Caller, tool: Tool, arguments: Mapping[str, Any]) -> str | None:
    """The call that shows an operator every stage; not for writes, which it would do once more."""
    if tool.writes or not caller.may("Integration.view"):
        return None
    call = json.dumps({"tool": tool.name, "params": arguments}, ensure_ascii=False, default=str, separators=(",", ":"))
    return f"Diagnose: test_integration_endpoint {call}" if len(call) <= 500 else None


class Reports:
    """Tells the client of every attempt that ended; a client that is gone doesn't stop the call."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._tasks: set[asyncio.Future[None]] = set()

    def tell(self, attempt: Attempt) -> None:
        if self._progress is not None:
            # Not its error: that is for operators (hosts, a masked Location), and nothing is masked here.
            said = f"attempt {attempt.number}: {attempt.status or 'no answer'}"
            task = asyncio.ensure_future(self._progress(float(attempt.number), said))
            self._tasks.add(task)
            task.add_done_callback(_forget_failure)

    async def settle(self) -> None:
        """Before the answer: what comes after it is lost. A client that doesn't read is waited for a second."""
        if self._tasks:
            _, stuck = await asyncio.wait(self._tasks, timeout=1)
            for task in stuck:
                task.cancel()


def _forget_failure(task: asyncio.Future[None]) -> None:
    if not task.cancelled():
        task.exception()
