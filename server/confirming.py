"""Asks the user about what can hurt, where his client can show a question: elicitation, in both protocol eras.

Legacy: a request to the client while the call runs. 2026-07-28: the call ends with `input_required`, and the client calls again
with the answer; nothing was done before, so no state is needed and the answer is the client's own word either way. An answer
counts for the question of its `key` only: of an approval that is its id, which one call uses up.
"""

from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError

from tools.approvals import QuestionAsked

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"confirm": {"type": "boolean", "title": "Do it", "default": False}},
    "required": ["confirm"],
}
_HANDSHAKE_ERAS_END = "2026"


class ConfirmationNeeded(QuestionAsked):
    """How this era asks: ends the call with `result`, which asks the client to ask."""

    def __init__(self, question: str, key: str) -> None:
        super().__init__(question)
        self.result: dict[str, Any] = {
            "resultType": "input_required",
            "inputRequests": {
                key: {
                    "method": "elicitation/create",
                    "params": {"mode": "form", "message": question, "requestedSchema": _SCHEMA},
                }
            },
        }


class Confirmation:
    """Asks about one call: the `confirm` that the toolbox takes."""

    def __init__(self, ctx: ServerRequestContext[Any, Any], params: types.CallToolRequestParams) -> None:
        self._ctx, self._params = ctx, params

    async def __call__(self, question: str, key: str = "confirm") -> bool | None:
        """True, False, or None where this client can't ask. Raises ConfirmationNeeded (2026-07-28)."""
        capabilities = self._ctx.session.client_capabilities
        if capabilities is None or capabilities.elicitation is None:
            return None
        if self._ctx.protocol_version >= _HANDSHAKE_ERAS_END:
            answer = (self._params.input_responses or {}).get(key)
            if answer is None:
                raise ConfirmationNeeded(question, key)
            return isinstance(answer, types.ElicitResult) and _agrees(answer)
        try:
            return _agrees(await self._ctx.session.elicit_form(question, _SCHEMA, self._ctx.request_id))
        except MCPError:
            return None  # it said that it can and couldn't


def _agrees(answer: types.ElicitResult) -> bool:
    return answer.action == "accept" and (answer.content or {}).get("confirm") is True
