"""HTTP with SSE (2024-11-05): one GET stream brings every message, a second URL that it names takes ours."""

import asyncio
from typing import Any
from urllib.parse import urljoin

from tools.errors import CallError, InvalidResponse, Misconfigured
from tools.exchange import ConnectionLost
from tools.kinds.mcp.events import EventReader, events
from tools.kinds.mcp.rpc import Ask, LinkLost, Message, Notice, Peer
from tools.kinds.mcp.wire import EVENTS_TYPE, JSON_TYPE, HttpTarget, is_events, refusal_of
from tools.kinds.paths import origin_of
from tools.signing import CallSigner


class SseLink:
    """`rpc.Link` over the old transport; `open` first."""

    def __init__(self, target: HttpTarget, notice: Notice) -> None:
        self._target = target
        self._peer = Peer(self._write, notice)
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._endpoint: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.ensure_future(self._read())

    async def open(self) -> None:
        """Waits until the stream has named where messages go. Raises LinkLost, CallErrors."""
        await asyncio.shield(self._endpoint)

    async def request(self, ask: Ask) -> Message:
        return await self._peer.request(ask, lambda data: self._send(data, ask.headers, ask.signer))

    async def notify(self, method: str) -> None:
        await self._peer.notify(method)

    async def close(self) -> None:
        self._end("it was closed")
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    def _end(self, why: str, error: CallError | None = None) -> None:
        if not self.ended.done():
            self.ended.set_result(why)
            self._peer.fail(why, error)
        if not self._endpoint.done():
            self._endpoint.set_exception(error or LinkLost(why, sent=False))
            self._endpoint.exception()  # seen, also where nobody waits

    async def _read(self) -> None:
        try:
            async with self._target.open("GET", self._target.url, (("Accept", EVENTS_TYPE),), None, None) as stream:
                if stream.status != 200:
                    error, _ = await refusal_of(stream, self._target.url)
                    raise error
                if not is_events(stream):
                    raise InvalidResponse("its answer is no stream of events: no SSE server is there")
                async for event in events(stream.pieces(), EventReader(self._target.max_bytes)):
                    if event.name == "endpoint" and not self._endpoint.done():
                        self._endpoint.set_result(self._same_origin(event.data))
                    elif event.name == "message":
                        self._peer.receive(event.data)
            self._end("its stream ended")
        except (LinkLost, ConnectionLost) as e:
            self._end(str(e))
        except CallError as e:
            self._end(e.message, e)

    def _same_origin(self, named: str) -> str:
        """The URL that takes messages: credentials go there too, so it must be the stream's own origin."""
        try:
            url = urljoin(self._target.url, named.strip())
            if origin_of(url) == origin_of(self._target.url):
                return url
        except ValueError:
            raise InvalidResponse("its stream names no URL for messages") from None
        raise Misconfigured("its stream names another origin for messages")

    async def _write(self, data: bytes) -> None:
        await self._send(data, (), None)

    async def _send(self, data: bytes, headers: tuple[tuple[str, str], ...], signer: CallSigner | None) -> None:
        url = await asyncio.shield(self._endpoint)
        sent: Any = self._target.open("POST", url, (("Content-Type", JSON_TYPE), *headers), data, signer)
        async with sent as stream:
            if stream.status >= 300:
                error, _ = await refusal_of(stream, url)
                raise error
