"""Streamable HTTP: one POST a request, answered by JSON or a stream of events (MCP spec, transports, 2025-03-26 to 2026-07-28).

One request of 2026-07-28 stands alone: headers say what is asked and no session is kept. Before, the handshake's answer names a
session that goes along with every request, and a GET holds the stream of notices.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, cast

from tools.errors import CallError, InvalidResponse, ResponseTooLarge, UpstreamUnavailable
from tools.exchange import ConnectionLost, Stream
from tools.json_values import TooManyValues
from tools.kinds.mcp.events import EventReader, events
from tools.kinds.mcp.rpc import (
    Ask,
    LinkLost,
    Message,
    Notice,
    RpcError,
    SessionGone,
    answered,
    encoded,
    numbered,
    params_of,
    parsed,
    report,
    result_of,
)
from tools.kinds.mcp.wire import EVENTS_TYPE, JSON_TYPE, HttpTarget, is_events, is_json, refusal_of

SESSION = "Mcp-Session-Id"
VERSION = "MCP-Protocol-Version"
_RESUMES = 5
_STREAM_RETRY_S = (0.5, 30.0)
_BY_US = (("Content-Type", JSON_TYPE), ("Accept", f"{JSON_TYPE}, {EVENTS_TYPE}"))


class HttpLink:
    """`rpc.Link` over streamable HTTP. `version` is set by the session once it is agreed."""

    def __init__(self, target: HttpTarget, notice: Notice) -> None:
        self._target, self._notice = target, notice
        self.version: str | None = None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._session: str | None = None
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def request(self, ask: Ask) -> Message:
        number = next(self._numbers)
        try:
            return await self._ask(ask, number)
        except asyncio.CancelledError:
            if self._session is not None and ask.method != "initialize":
                # Before 2026-07-28 closing the POST cancels nothing: the upstream must be told.
                params = {"requestId": number}
                self._later(self._tell({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))
            raise

    async def notify(self, method: str) -> None:
        await self._tell({"jsonrpc": "2.0", "method": method})

    def follow(self, follow: Callable[[], Awaitable[None]] | None = None) -> None:
        """Keeps a stream of notices open beside the requests, until the link is closed."""
        self._later(self._follow(follow or self._get_stream))

    async def close(self) -> None:
        if not self.ended.done():
            self.ended.set_result("it was closed")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            try:
                async with asyncio.timeout(2), self._open("DELETE", (), None):
                    pass
            except (LinkLost, CallError, TimeoutError):
                pass  # a courtesy; the upstream's own timeout does the rest

    # ------------------------------------------------------------------ one request

    def _open(
        self, method: str, headers: tuple[tuple[str, str], ...], body: bytes | None, ask: Ask | None = None
    ) -> AbstractAsyncContextManager[Stream]:
        headers = (*headers, *(ask.headers if ask else ()))
        if self.version is not None and not any(name == VERSION for name, _ in headers):
            headers = (*headers, (VERSION, self.version))
        if self._session is not None:
            headers = (*headers, (SESSION, self._session))
        return self._target.open(method, self._target.url, headers, body, ask.signer if ask else None)

    async def _ask(self, ask: Ask, number: int) -> Message:
        reader = EventReader(self._target.max_bytes)
        async with self._open("POST", _BY_US, encoded(numbered(ask, number)), ask) as stream:
            if not 200 <= stream.status < 300:
                raise await self._refused(stream, ask)
            if ask.method == "initialize":
                self._session = stream.headers.get(SESSION)
            if is_json(stream):
                return _result(await stream.read(self._target.max_bytes))
            if not is_events(stream):
                raise InvalidResponse("its answer is neither JSON nor a stream of events: no MCP server is there")
            try:
                result = await self._from_events(stream, reader, ask, number)
            except ConnectionLost as e:
                if not reader.id:
                    raise
                result, lost = None, e
            else:
                lost = None
        # A stream may end before the answer: with an event's id it is taken up again (2025-11-25, "Resumability").
        for _ in range(_RESUMES):
            if result is not None or not reader.id or self._session is None:
                break
            await asyncio.sleep((reader.retry_ms if reader.retry_ms is not None else 1000) / 1000)
            headers = (("Accept", EVENTS_TYPE), ("Last-Event-ID", reader.id))
            async with self._open("GET", headers, None, ask) as stream:
                if stream.status != 200:
                    break
                result = await self._from_events(stream, reader, ask, number)
        if result is None:
            raise LinkLost(str(lost) if lost else "the stream ended without the answer", sent=True)
        return result

    async def _from_events(self, stream: Stream, reader: EventReader, ask: Ask, number: int) -> Message | None:
        """The answer among the events; None where the stream ends before it."""
        async for event in events(stream.pieces(), reader):
            try:
                message = parsed(event.data)
            except ValueError:
                continue
            if not isinstance(message, dict):
                continue
            found = cast("Message", message)
            method = found.get("method")
            if isinstance(method, str):
                await self._spoken(method, found, ask)
            elif found.get("id") == number:
                return result_of(found)
        return None

    async def _spoken(self, method: str, message: Message, ask: Ask | None) -> None:
        """What an upstream says on a stream of ours besides the answer."""
        params = params_of(message)
        if message.get("id") is not None:
            if self._session is not None or self.version is not None:
                self._later(self._answer(method, message["id"], params, ask))
        elif method == "notifications/progress":
            if ask is not None and ask.progress is not None:
                await report(ask.progress, params)
        else:
            self._notice(method, params)

    async def _answer(self, method: str, number: Any, params: Message, ask: Ask | None) -> None:
        """A question on the stream of a call belongs to that call."""
        await self._tell(await answered(method, number, params, ask.asked if ask is not None else None))

    async def _refused(self, stream: Stream, ask: Ask) -> Exception:
        error, body = await refusal_of(stream, self._target.url)
        rpc: RpcError | None = None
        if is_json(stream) and body:
            try:
                _result(body)
            except RpcError as e:
                rpc = e
            except InvalidResponse:
                pass
        if self._session is not None and ask.method != "initialize" and _forgot(stream.status, rpc):
            if not self.ended.done():
                self.ended.set_result("the upstream doesn't know the session any more")
            return SessionGone()
        if rpc is not None and stream.status not in (401, 403, 407, 429, 503):
            rpc.status = stream.status
            return rpc
        return error

    async def _tell(self, message: Message) -> None:
        async with self._open("POST", _BY_US, encoded(message)) as stream:
            if stream.status >= 400 and "method" in message:
                error, _ = await refusal_of(stream, self._target.url)
                raise error

    # ------------------------------------------------------------------ notices

    async def _follow(self, follow: Callable[[], Awaitable[None]]) -> None:
        wait = _STREAM_RETRY_S[0]
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await follow()
            except (RpcError, SessionGone):
                return  # it doesn't offer this stream
            except UpstreamUnavailable:
                pass
            except CallError as e:
                if e.upstream_status is not None:
                    return
            except (LinkLost, ConnectionLost):
                pass
            if asyncio.get_running_loop().time() - began > _STREAM_RETRY_S[1]:
                wait = _STREAM_RETRY_S[0]
            await asyncio.sleep(wait * (0.5 + random.random() / 2))  # noqa: S311 - jitter
            wait = min(wait * 2, _STREAM_RETRY_S[1])
            self._notice("notifications/tools/list_changed", {})  # what was missed meanwhile

    async def _get_stream(self) -> None:
        """The GET stream before 2026-07-28; an upstream without one says 405."""
        async with self._open("GET", (("Accept", EVENTS_TYPE),), None) as stream:
            if stream.status != 200 or not is_events(stream):
                error, _ = await refusal_of(stream, self._target.url) if stream.status != 200 else (None, b"")
                raise error or RpcError(0, "no stream")
            async for event in events(stream.pieces(), EventReader(self._target.max_bytes)):
                try:
                    message = parsed(event.data)
                except ValueError:
                    continue
                if isinstance(message, dict) and isinstance(method := cast("Message", message).get("method"), str):
                    await self._spoken(method, cast("Message", message), None)

    def _later(self, work: Any) -> None:
        if len(self._tasks) > 1000:
            work.close()
            return
        task = asyncio.ensure_future(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(work: Awaitable[None]) -> None:
    with suppress(LinkLost, CallError):  # nobody waits for it
        await work


def _result(body: bytes) -> Message:
    try:
        message = parsed(body)
    except TooManyValues as e:
        raise ResponseTooLarge(f"the answer holds {e}") from None
    except ValueError:
        raise InvalidResponse("its Content-Type says JSON, but it isn't") from None
    if isinstance(message, list) and message:
        message = cast("list[Any]", message)[-1]  # 2025-03-26 allowed batches
    if not isinstance(message, dict):
        raise InvalidResponse("its answer isn't MCP: neither result nor error")
    return result_of(cast("Message", message))


def _forgot(status: int, rpc: RpcError | None) -> bool:
    """404 by the spec; some servers say 400 with words about the session."""
    return status == 404 or (status == 400 and rpc is not None and "session" in rpc.message.lower())
