"""JSON-RPC 2.0 as MCP speaks it: what is sent, who waits for what, and how a request ends without its answer.

Messages stay plain dicts: what an upstream sends goes on to our clients as it came, fields that this version doesn't know included.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from tools.errors import CallError, InvalidResponse
from tools.json_values import read_json
from tools.kinds.rest import to_json
from tools.signing import CallSigner

Message = dict[str, Any]
Progress = Callable[[float, float | None, str | None], Awaitable[None]]
"""Told (progress, total, message) as the upstream reports it."""
Notice = Callable[[str, Mapping[str, Any]], None]
"""Told (method, params) of every notification that belongs to no request."""

METHOD_NOT_FOUND = -32601
UNSUPPORTED_VERSION = -32022


Asked = Callable[[Mapping[str, Any]], Awaitable[Message]]
"""Answers the params of an `elicitation/create`. Raises RpcError."""


class RpcError(Exception):
    """The upstream answered a request with a JSON-RPC error. `status` is the HTTP status that it came with."""

    def __init__(self, code: int, message: str, data: Any = None, status: int | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.data, self.status = code, message, data, status


class LinkLost(Exception):
    """The connection ended before the answer. `sent`: whether the request may have been carried out."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


class SessionGone(Exception):
    """The upstream doesn't know our session any more (it was restarted): nothing was done with the request."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `signer` signs it where HTTP carries it; None: the link's own. `headers` go along over HTTP.

    `asked` answers the upstream's questions to the user that belong to this request.
    """

    method: str
    params: Message
    progress: Progress | None = None
    signer: CallSigner | None = None
    headers: tuple[tuple[str, str], ...] = ()
    asked: Asked | None = None


class Link(Protocol):
    """One connection to an upstream. `ended` is done when it can't be used any more, with the reason as its result."""

    ended: asyncio.Future[str]

    async def request(self, ask: Ask) -> Message:
        """The result. Raises RpcError, LinkLost, SessionGone and CallErrors; cancelling tells the upstream."""
        ...

    async def notify(self, method: str) -> None: ...

    async def close(self) -> None:
        """Ends it within a few seconds, whatever the other side does; never raises."""
        ...


@dataclass(slots=True)
class _Waiting:
    answer: asyncio.Future[Message]
    progress: Progress | None
    is_call: bool
    asked: Asked | None
    reports: set[asyncio.Future[None]] = field(default_factory=set[asyncio.Future[None]])


@dataclass(slots=True)
class Peer:
    """Both directions of one stream of messages (stdio, SSE): requests get numbers, answers find who waits."""

    write: Callable[[bytes], Awaitable[None]]
    notice: Notice
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _waiting: dict[int, _Waiting] = field(default_factory=dict[int, _Waiting])
    _tasks: set[asyncio.Future[Any]] = field(default_factory=set[asyncio.Future[Any]])
    _failed: LinkLost | None = None

    async def request(self, ask: Ask, write: Callable[[bytes], Awaitable[None]] | None = None) -> Message:
        """`write` carries this one request instead of the usual way (SSE: its POST is signed for itself)."""
        if self._failed is not None:
            raise LinkLost(str(self._failed), sent=False)
        number = next(self._numbers)
        waiting = self._waiting[number] = _Waiting(
            asyncio.get_running_loop().create_future(), ask.progress, ask.method == "tools/call", ask.asked
        )
        try:
            await (write or self.write)(encoded(numbered(ask, number)))
            result = await waiting.answer
            if waiting.reports:
                await asyncio.wait(set(waiting.reports))  # what came before the answer is told before it
            return result
        except asyncio.CancelledError:
            if ask.method not in ("initialize", "server/discover"):  # the spec forbids cancelling these
                note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
                self._later(self.write(encoded(note)))
            raise
        finally:
            del self._waiting[number]
            if waiting.answer.done() and not waiting.answer.cancelled():
                waiting.answer.exception()  # seen, also where the caller was cancelled meanwhile

    async def notify(self, method: str) -> None:
        await self.write(encoded({"jsonrpc": "2.0", "method": method}))

    def receive(self, data: bytes | str) -> None:
        """One message. What isn't JSON-RPC is passed over: servers print banners to stdout."""
        try:
            message = parsed(data)
        except ValueError:
            return
        for one in cast("list[Any]", message) if isinstance(message, list) else [message]:  # 2025-03-26 had batches
            if isinstance(one, dict):
                self._receive(cast("Message", one))

    def _receive(self, message: Message) -> None:
        method, number = message.get("method"), message.get("id")
        if isinstance(method, str):
            if number is not None:
                self._later(self._answer(method, number, params_of(message)))
            else:
                self._notified(method, params_of(message))
            return
        waiting = self._waiting.get(number) if isinstance(number, int) else None
        if waiting is None or waiting.answer.done():
            return
        try:
            waiting.answer.set_result(result_of(message))
        except (RpcError, InvalidResponse) as e:
            waiting.answer.set_exception(e)

    async def _answer(self, method: str, number: Any, params: Message) -> None:
        """A stream that all calls share doesn't say to which a question belongs: only the call that runs alone can be asked."""
        calls = [w for w in self._waiting.values() if w.is_call]
        asked = calls[0].asked if len(calls) == 1 else None
        await self.write(encoded(await answered(method, number, params, asked)))

    def _notified(self, method: str, params: Message) -> None:
        if method == "notifications/progress":
            token = params.get("progressToken")
            waiting = self._waiting.get(token) if isinstance(token, int) else None
            if waiting is not None and waiting.progress is not None:
                told = self._later(report(waiting.progress, params))
                if told is not None:
                    waiting.reports.add(told)
                    told.add_done_callback(waiting.reports.discard)
            return
        self.notice(method, params)

    def fail(self, why: str, error: CallError | None = None) -> None:
        """The stream ended: everybody who waits is told that his request may have been carried out, or `error`."""
        self._failed = LinkLost(why, sent=True)
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(error or LinkLost(why, sent=True))
        for task in self._tasks:
            task.cancel()

    def _later(self, work: Awaitable[Any]) -> asyncio.Future[None] | None:
        if len(self._tasks) > 1000:  # an upstream that floods us with requests gets no answers
            cast("Any", work).close()
            return None
        task = asyncio.ensure_future(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _quietly(work: Awaitable[Any]) -> None:
    with suppress(OSError, LinkLost, CallError):  # whoever reads the stream says what happened to it
        await work


def numbered(ask: Ask, number: int) -> Message:
    """The request as it goes out; progress is asked for only where somebody listens."""
    params = ask.params
    if ask.progress is not None:
        params = {**params, "_meta": {**params.get("_meta", {}), "progressToken": number}}
    return {"jsonrpc": "2.0", "id": number, "method": ask.method, "params": params}


def encoded(message: Message) -> bytes:
    return to_json(message)


def parsed(data: bytes | str) -> Any:
    """JSON, integers beyond 64 bits exactly too. Raises ValueError."""
    return read_json(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)


def params_of(message: Message) -> Message:
    """Those of what an upstream says; none where they are no object."""
    params = message.get("params")
    return cast("Message", params) if isinstance(params, dict) else {}


def result_of(message: Message) -> Message:
    """The result of a response. Raises RpcError, or InvalidResponse where it is neither result nor error."""
    error, result = message.get("error"), message.get("result")
    if isinstance(error, dict):
        fields = cast("Message", error)
        code = fields.get("code")
        raise RpcError(code if isinstance(code, int) else 0, str(fields.get("message", "")), fields.get("data"))
    if not isinstance(result, dict):
        raise InvalidResponse("its answer isn't MCP: neither result nor error")
    return cast("Message", result)


async def answered(method: str, number: Any, params: Message, asked: Asked | None) -> Message:
    """The answer to an upstream's own request: a question to the user goes to `asked`."""
    if asked is None or method != "elicitation/create":
        return answer_to(method, number)
    try:
        found = await asked(params)
    except RpcError as e:
        return {"jsonrpc": "2.0", "id": number, "error": {"code": e.code, "message": e.message}}
    return {"jsonrpc": "2.0", "id": number, "result": found}


def answer_to(method: str, number: Any) -> Message:
    """What we answer to an upstream's own requests: we declare nothing else, so only ping is in order."""
    if method == "ping":
        return {"jsonrpc": "2.0", "id": number, "result": {}}
    error = {"code": METHOD_NOT_FOUND, "message": f"{method} is not supported by this client"}
    return {"jsonrpc": "2.0", "id": number, "error": error}


async def report(progress: Progress, params: Message) -> None:
    done, total, message = _number(params.get("progress")), _number(params.get("total")), params.get("message")
    if done is not None:
        await progress(done, total, message if isinstance(message, str) else None)


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:
        return None
