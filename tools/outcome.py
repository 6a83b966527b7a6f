"""What a call came to: what the agent sees, and every stage on the way for those who test and explain."""

from dataclasses import dataclass, field
from typing import Any

from tools.answers import Raw
from tools.cutting import Cut
from tools.errors import CallError
from tools.masking import NOTHING_TO_HIDE, Masker
from tools.shaping import Shaped
from tools.tracing import CallSpan
from tools.upstream import Answer, Attempt, Request


@dataclass(slots=True)
class Trace:
    """Filled step by step while a call runs; every value is masked before it is shown."""

    attempts: list[Attempt] = field(default_factory=list[Attempt])
    request: Request | None = None
    answer: Answer | None = None
    raw: Raw | None = None
    shaped: Shaped | None = None
    changes: tuple[str, ...] = ()
    arguments: dict[str, Any] | None = None
    credential: dict[str, object] | None = None
    masker: Masker = NOTHING_TO_HIDE
    request_id: str = ""
    span: CallSpan | None = None
    notes: tuple[str, ...] = ()
    """What the agent should know of this answer before it reads it, one line each; masked when it is written."""
    hidden: int = 0
    """Characters that were taken out of the result because a person wouldn't see them (`tools.hidden_text`)."""


@dataclass(slots=True)
class Block:
    """One content block: text, or base64 of binary with its media type."""

    type: str
    text: str = ""
    data: str = ""
    media_type: str = ""


@dataclass(slots=True)
class Outcome:
    """The end of one call. `text` is what an agent reads (the error text on failure)."""

    call_id: str
    tool: str
    text: str
    blocks: tuple[Block, ...]
    duration_ms: float
    trace: Trace
    error: CallError | None = None
    cut: Cut | None = None
    result_id: str | None = None
    expires_at: float | None = None
    structured: dict[str, Any] | None = None
    passed_on: dict[str, Any] | None = None
    """An MCP upstream's whole result, which goes on as it is; then there are no blocks."""
    task: dict[str, Any] | None = None
    """What is given in place of an answer that isn't there yet (`tools.background.task_of`), to a client that takes tasks."""

    @property
    def is_error(self) -> bool:
        return self.error is not None or (self.passed_on is not None and bool(self.passed_on.get("isError")))

    @property
    def status(self) -> int | None:
        """The last upstream status; None where nothing answered."""
        answer = self.trace.answer
        if answer is not None:
            return answer.status
        return next((a.status for a in reversed(self.trace.attempts) if a.status is not None), None)
