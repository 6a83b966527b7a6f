"""What an upstream asks the user while it carries out a call: put to the caller's own client, named, cleaned and bounded.

A question is an upstream's text, so it is data: it says whose it is, hidden characters go, and secrets of ours are masked. Only
forms are passed on, never a URL to visit. Answers go back as they are; they are in no log, trace or history.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

from tools.approvals import QuestionAsked
from tools.errors import UpstreamRefused
from tools.hidden_text import visible
from tools.kinds.mcp.rpc import Message, RpcError
from tools.kinds.rest import to_json
from tools.masking import Masker

PATIENCE_S = 600.0
"""For the answer of a user who is asked while the call runs; the call's own deadline stands still meanwhile."""
MAX_ROUNDS = 10
ELICIT = "elicitation/create"
_MAX_MESSAGE = 4000
_MAX_LABEL = 1000
_MAX_SCHEMA = 32 * 1024
_MAX_QUESTIONS = 10
_MAX_DEPTH = 8
_MAX_STATE = 64 * 1024
_INVALID_PARAMS = -32602
_SHOWN = frozenset({"title", "description", "enumNames"})
"""Keywords whose texts are only shown; all others decide what an answer is, so they stay as they are or the question is refused."""


class User(Protocol):
    """The user at the client of this call, whose client said that it shows forms."""

    asks_now: bool
    """He is asked while the call runs (handshake eras); else the call ends with the questions and comes again with answers."""
    answers: Mapping[str, Any] | None
    state: str | None
    """Both as the client sent them with this call (2026-07-28: `inputResponses`, `requestState`)."""

    async def ask(self, message: str, schema: Mapping[str, Any]) -> Message:
        """An ElicitResult as the client gave it; `{"action": "cancel"}` where it couldn't ask."""
        ...


class States(Protocol):
    """Keeps an upstream's `requestState` to the call that it was given for: it knows us, and none of our callers."""

    def seal(self, state: str) -> str: ...

    def open(self, sealed: str) -> str:
        """Raises StateRefused for what isn't this call's."""
        ...


class InputRequired(QuestionAsked):
    """The call ends with `result`, which asks the client to ask and to call again."""

    code = "input_required"

    def __init__(self, result: Message) -> None:
        super().__init__("the upstream asks for input")
        self.result = result


class Interview:
    """The questions of one call. `masker` gives what hides the call's secrets by now; `deadline` stands still while the user thinks."""

    def __init__(
        self, user: User, name: str, masker: Callable[[], Masker], deadline: asyncio.Timeout, states: States
    ) -> None:
        self._user, self._name, self._masker, self._deadline, self._states = user, name, masker, deadline, states
        self._open, self._left, self._is_over = 0, 0.0, False
        self._asking: set[asyncio.Task[Any]] = set()

    def begin(self) -> dict[str, Any]:
        """What a client that came again brought: further params of the upstream's tools/call. Raises StateRefused."""
        user, found = self._user, dict[str, Any]()
        if not user.asks_now and user.answers is not None:
            found["inputResponses"] = dict(user.answers)
        if not user.asks_now and user.state is not None:
            found["requestState"] = self._states.open(user.state)
        return found

    async def go_on(self, result: Message) -> dict[str, Any]:
        """The same after an `input_required`, where the user can be asked now. Raises InputRequired, UpstreamRefused."""
        asked = self.questions(result)
        if not self._user.asks_now:
            if "requestState" in asked:
                asked["requestState"] = self._states.seal(asked["requestState"])
            raise InputRequired(asked)
        answers = {
            key: await self._ask(question["params"]["message"], question["params"]["requestedSchema"])
            for key, question in asked.get("inputRequests", {}).items()
        }
        state = {"requestState": asked["requestState"]} if "requestState" in asked else {}
        return {"inputResponses": answers, **state} if answers else state

    async def answer(self, params: Mapping[str, Any]) -> Message:
        """To an upstream that asks while the call runs. Raises RpcError for what isn't passed on."""
        task = asyncio.current_task()
        if self._is_over or not self._user.asks_now or task is None or len(self._asking) >= _MAX_QUESTIONS:
            raise RpcError(_INVALID_PARAMS, "the user can't be asked now")
        try:
            message, schema = self._cleaned(params)
        except UpstreamRefused as e:
            raise RpcError(_INVALID_PARAMS, f"it {e.message}") from None
        self._asking.add(task)
        try:
            return await self._ask(message, schema)
        finally:
            self._asking.discard(task)

    def close(self) -> None:
        """The call is over: nobody waits for an answer any more."""
        self._is_over = True
        for task in self._asking:
            task.cancel()

    def questions(self, result: Message) -> Message:
        """An `input_required` as it goes on to a client. Raises UpstreamRefused for what isn't passed on."""
        asked = cast("Any", result.get("inputRequests") or {})
        if not isinstance(asked, dict) or len(cast("Message", asked)) > _MAX_QUESTIONS:
            raise UpstreamRefused(f"asks for input in a way that isn't passed on: more than {_MAX_QUESTIONS} questions")
        found: Message = {"resultType": "input_required"}
        questions: Message = {}
        for key, request in cast("Message", asked).items():
            method, params = _parts(request)
            if method != ELICIT:
                raise UpstreamRefused(f"asks its client for {method[:60]!r}, which this gateway doesn't pass on")
            message, schema = self._cleaned(params)
            params = {"mode": "form", "message": message, "requestedSchema": schema}
            questions[_plain(key, "a name of a question")] = {"method": ELICIT, "params": params}
        if questions:
            found["inputRequests"] = questions
        state = result.get("requestState")
        if isinstance(state, str):
            if len(state) > _MAX_STATE:
                raise UpstreamRefused(f"asks for input with a state of more than {_MAX_STATE:,} characters")
            found["requestState"] = state
        if len(found) == 1:
            raise UpstreamRefused("asks for input and doesn't say what")
        return found

    # ------------------------------------------------------------------ steps

    async def _ask(self, message: str, schema: Mapping[str, Any]) -> Message:
        async with self._unhurried():
            try:
                async with asyncio.timeout(PATIENCE_S):
                    return await self._user.ask(message, schema)
            except TimeoutError:
                return {"action": "cancel"}

    @asynccontextmanager
    async def _unhurried(self) -> AsyncGenerator[None, None]:
        now, ends = asyncio.get_running_loop().time, self._deadline.when()
        if not self._open and ends is not None:
            self._left = ends - now()
            self._deadline.reschedule(None)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            if not self._open and not self._is_over and not self._deadline.expired() and self._left > 0:
                self._deadline.reschedule(now() + self._left)

    def _cleaned(self, params: Mapping[str, Any]) -> tuple[str, Message]:
        """(message, schema) of a form. Raises UpstreamRefused."""
        if params.get("mode", "form") != "form":
            raise UpstreamRefused(
                f"asks the user in the mode {str(params['mode'])[:40]!r}, which this gateway doesn't pass on"
            )
        masker = self._masker()
        schema = masker.value(params.get("requestedSchema"))
        if not isinstance(schema, dict) or cast("Message", schema).get("type") != "object":
            raise UpstreamRefused("asks the user for something that is no form")
        if len(to_json(schema)) > _MAX_SCHEMA:
            raise UpstreamRefused(f"asks the user with a form of more than {_MAX_SCHEMA:,} bytes")
        said = masker.text(visible(masker.text(str(params.get("message", "")))))
        cut = f"{said[:_MAX_MESSAGE]} (cut)" if len(said) > _MAX_MESSAGE else said
        return f"[{self._name}] The MCP server behind this integration asks:\n\n{cut}", masker.value(_form(schema, 0))


def _parts(request: Any) -> tuple[str, Message]:
    fields = cast("Message", request) if isinstance(request, dict) else {}
    params = fields.get("params")
    return str(fields.get("method")), cast("Message", params) if isinstance(params, dict) else {}


def _form(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise UpstreamRefused("asks the user with a form that is nested too deeply")
    if isinstance(value, dict):
        fields = cast("Message", value)
        shown = _SHOWN if depth != 1 else frozenset[str]()  # there the keys are names of fields
        return {
            _plain(k, "a name in a form"): _shown(v) if k in shown else _form(v, depth + 1) for k, v in fields.items()
        }
    if isinstance(value, list):
        return [_form(v, depth + 1) for v in cast("list[Any]", value)]
    return _plain(value, "a value in a form") if isinstance(value, str) else value


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)[:_MAX_LABEL]
    return [_shown(v) for v in cast("list[Any]", value)] if isinstance(value, list) else None


def _plain(text: str, what: str) -> str:
    if visible(text) != text:
        raise UpstreamRefused(f"asks the user with hidden characters in {what}")
    return text
