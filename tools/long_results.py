"""Results that are longer than their limit: what fits is shown, the whole is kept for `get_result`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tools.background import KEPT_FOR as KEPT_WITH_CALL
from tools.callers import Caller
from tools.cutting import Cut, divide, fit, narrowing_names
from tools.endings import new_id
from tools.errors import StorageUnavailable
from tools.patience import Patience
from tools.results import KEPT_FOR, KeptResult, ResultStore
from tools.tool import Tool


@dataclass(frozen=True, slots=True)
class CutResult:
    """What is shown. `result_id` is None where the whole could not be kept: the cut is still honest, only reading on isn't offered."""

    text: str
    part: Cut
    result_id: str | None
    expires_at: float


class LongResults:
    """Cuts and keeps. `log_fault` is told where keeping failed."""

    def __init__(
        self,
        results: ResultStore,
        log_fault: Callable[[str, BaseException], None],
        patience: Patience,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._results, self._log_fault, self._patience, self._now = results, log_fault, patience, now

    async def cut(
        self, caller: Caller, tool: Tool, value: Any, text: str, limit: int, call_id: str, *, kept_as: str | None
    ) -> CutResult:
        """A first line that says so, and what fits by whole items. `value` and `text` are masked; `kept_as` is a background call's id."""
        kept = KeptResult(
            id=kept_as or "r_" + new_id(),
            tool=tool.name,
            value=value,
            text=text,
            limit=limit,
            expires_at=self._now() + (KEPT_WITH_CALL if kept_as else KEPT_FOR),
        )
        result_id: str | None = kept.id
        try:
            keeping = self._results.keep(caller.workspace, caller.id, kept)
            # A background call's answer is waited for by nobody, and its handle is given already.
            await (keeping if kept_as else self._patience.wait(keeping))
        except StorageUnavailable as e:
            self._log_fault(call_id, e)
            result_id = None
        part, shown = fit(
            divide(text, value, limit),
            limit,
            narrowing=narrowing_names(tool.published.schema),
            result_id=result_id,
            kept_until=f"{kept.expires_at:%H:%M}" if result_id else None,
        )
        return CutResult(shown, part, result_id, kept.expires_at.timestamp())
