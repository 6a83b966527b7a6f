"""`get_result`: the next part of a result that was cut, or the answer of a background call, for the caller that made it (agents.md 2)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tools.arguments import compile_arguments
from tools.background import Background, BackgroundCall, ended
from tools.callers import Caller
from tools.cutting import divide, find, fit, pick, write
from tools.endings import new_call_id, refused
from tools.errors import ArgumentFault, CallError, InvalidArguments, ResultExpired, StorageUnavailable
from tools.outcome import Block, Outcome, Trace
from tools.results import KeptResult, ResultStore

GET_RESULT: dict[str, Any] = {
    "name": "get_result",
    "title": "Gateway: Get result",
    "description": (
        "Returns the next part of a result that was cut, or the answer of a call that runs in the background. Takes the result_id "
        "printed in that answer. Results are kept 15 minutes, for the caller that made the call. Never repeat a create, update or "
        "delete to see its answer: use this tool."
    ),
    "inputSchema": {
        "type": "object",
        "properties": {
            "result_id": {"type": "string", "description": "As printed in the answer that was cut."},
            "from": {
                "type": "integer",
                "minimum": 0,
                "description": "First item, line or character to show. Default: 0.",
            },
            "find": {"type": "string", "description": "Only items or lines that hold this text."},
            "fields": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Only these fields of each item, like id or name.family.",
            },
        },
        "required": ["result_id"],
    },
    "annotations": {
        "title": "Gateway: Get result",
        "readOnlyHint": True,
        "destructiveHint": False,
        "idempotentHint": True,
        "openWorldHint": False,
    },
    "_meta": {"anthropic/alwaysLoad": True},
}
_WHOLE = 40_000
"""Characters shown of a part of a background call's answer that was never cut."""
_CALL = "c_"
_ARGUMENTS = compile_arguments({**GET_RESULT["inputSchema"], "additionalProperties": False})


class ReadingOn:
    """Answers `get_result` from the kept results and the background calls; `background` is None where there are none."""

    def __init__(
        self,
        results: ResultStore,
        background: Background | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._results, self._background, self._now = results, background, now

    async def get_result(self, caller: Caller, arguments: Mapping[str, Any] | None) -> Outcome:
        call_id = new_call_id()
        try:
            return await self._read(caller, _ARGUMENTS.prepare(arguments or {}).values, call_id)
        except CallError as e:
            return refused(call_id, "get_result", e)
        except StorageUnavailable:
            return refused(call_id, "get_result", _expired(str((arguments or {}).get("result_id"))))

    async def _read(self, caller: Caller, args: Mapping[str, Any], call_id: str) -> Outcome:
        id = args["result_id"]
        call: BackgroundCall | None = None
        if self._background is not None and id.startswith(_CALL):
            call = await self._background.get(caller, id)
            if call is None:
                raise _no_call(id)
            if call.is_open:
                return replace(self._background.running(call), call_id=call_id)
            if call.state != "done" or not args.keys() & {"from", "find", "fields"}:
                return ended(call, "get_result")
        kept = await self._results.kept(caller.workspace, caller.id, id, self._now())
        if kept is None and call is not None:
            text = ended(call, "get_result").text  # it was never cut: parts of it can be had all the same
            kept = KeptResult(id, call.tool, text, text, _WHOLE, call.expires_at)
        if kept is None:
            raise _expired(id)
        value, text = kept.value, kept.text
        if fields := args.get("fields"):
            try:
                value = pick(value, fields)
            except ValueError as e:
                raise InvalidArguments([ArgumentFault("fields", str(e))], _ARGUMENTS.names) from None
            text = write(value)
        whole = divide(text, value, kept.limit)
        if (wanted := args.get("find")) is not None:
            whole = find(whole, wanted)
        part, shown = fit(
            whole,
            kept.limit,
            args.get("from", 0),
            result_id=kept.id,
            kept_until=f"{kept.expires_at:%H:%M}",
        )
        return Outcome(
            call_id,
            "get_result",
            shown,
            (Block("text", shown),),
            0.0,
            Trace(),
            cut=None if part.is_whole else part,
            result_id=kept.id,
            expires_at=kept.expires_at.timestamp(),
        )


def _expired(result_id: str) -> ResultExpired:
    return ResultExpired(
        f"No result {result_id[:40]} any more (kept 15 minutes). If the call only read data, call it again with a narrower filter; "
        "if it wrote, read the record first."
    )


def _no_call(id: str) -> ResultExpired:
    return ResultExpired(
        f"No call {id[:40]} any more (done calls are kept 24 hours). If it only read data, call the tool again; if it wrote, read "
        "the record first."
    )
