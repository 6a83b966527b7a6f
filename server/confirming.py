"""Asks the user about what can hurt, where his client can show a question: elicitation, in both protocol eras.

Legacy: a request to the client while the call runs. 2026-07-28: the call ends with `input_required`, and the client calls again
with the answer; nothing was done before, so no state is needed and the answer is the client's own word either way. An answer
counts for the question of its `key` only: of an approval that is its id, which one call uses up.
"""

from collections.abc import Mapping
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from tools.approvals import QuestionAsked

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"confirm": {"type": "boolean", "title": "Do it", "default": False}},
    "required": ["confirm"],
}
_HANDSHAKE_ERAS_END = "2026"


def shows_forms(ctx: ServerRequestContext[Any, Any]) -> bool:
    """Whether the client of this message said that its user can be asked by a form."""
    capabilities = ctx.session.client_capabilities
    if capabilities is None or capabilities.elicitation is None:
        return False
    return capabilities.elicitation.form is not None or capabilities.elicitation.url is None


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
        if not shows_forms(self._ctx):
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


class UserAtClient:
    """`tools.kinds.mcp.questions.User`: whom an upstream's questions are put to. Only where `shows_forms`."""

    def __init__(self, ctx: ServerRequestContext[Any, Any], params: types.CallToolRequestParams) -> None:
        self._ctx = ctx
        self.asks_now = ctx.protocol_version < _HANDSHAKE_ERAS_END
        given = params.input_responses
        self.answers: Mapping[str, Any] | None = (
            None if given is None else {key: _as_sent(answer) for key, answer in given.items()}
        )
        self.state = params.request_state

    async def ask(self, message: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return _as_sent(await self._ctx.session.elicit_form(message, dict(schema), self._ctx.request_id))
        except MCPError:
            return {"action": "cancel"}  # it said that it can and couldn't


def _as_sent(answer: BaseModel) -> dict[str, Any]:
    return answer.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _agrees(answer: types.ElicitResult) -> bool:
    return answer.action == "accept" and (answer.content or {}).get("confirm") is True
