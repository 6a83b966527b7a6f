"""The stdio bridge to a running gateway: what a host writes to us goes to its /mcp, and what comes back goes to the host.

Messages pass as they are, in both protocol eras. The bridge itself only does what a connection needs: the headers that mirror
a message, sessions that are made anew when the server has forgotten them, waiting while a server restarts, and a JSON-RPC
error with a sentence where there is no answer. What may have been carried out is never sent twice.
"""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import anyio
import httpx2
from anyio.abc import TaskGroup

from server.bridge_messages import (
    Message,
    asks,
    error_answer,
    headers_of,
    is_modern,
    status_answer,
)

PATIENCE_S = 30.0
"""How long a message waits for a server that can't be reached: hosts give up after 60 s."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0
_SESSION = "mcp-session-id"
_SAFE_TWICE = frozenset({"initialize", "tools/list", "server/discover", "subscriptions/listen", "ping"})
"""Requests that change nothing: sent again when the connection was lost on the way."""


class Away(Exception):
    """The server can't be reached: nothing was sent."""


class Bridge:
    """One host, one server. `to_host` writes a message to the host; enter `running()` around `from_host`."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        url: str,
        to_host: Callable[[Message], Awaitable[None]],
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._client, self._url, self._to_host, self._patience_s = client, url, to_host, patience_s
        self._initialize: Message | None = None
        self._version: str | None = None
        self._session: str | None = None
        self._listening = False
        self._renewing = anyio.Lock()
        self._running: dict[Any, anyio.CancelScope] = {}

    async def from_host(self, message: Message, tasks: TaskGroup) -> None:
        """Takes one message; requests run beside each other."""
        if asks(message):
            scope = anyio.CancelScope()
            self._running[message["id"]] = scope
            tasks.start_soon(self._request, message, scope, tasks)
            return
        if message.get("method") == "notifications/cancelled" and self._cancel_modern(message):
            return
        try:
            await self._deliver(message)
        except (Away, httpx2.HTTPError):
            return  # nobody waits for an answer, and a server that is gone needs no news
        if message.get("method") == "notifications/initialized" and self._session is not None and not self._listening:
            self._listening = True
            tasks.start_soon(self._listen)

    async def close(self) -> None:
        """Ends the session at the server, if it is there to hear it."""
        if self._session is not None:
            with anyio.move_on_after(2):
                try:
                    await self._client.delete(self._url, headers=self._headers({}))
                except httpx2.HTTPError:
                    return

    @property
    def is_idle(self) -> bool:
        return not self._running

    # ------------------------------------------------------------------ host to server

    async def _request(self, message: Message, scope: anyio.CancelScope, tasks: TaskGroup) -> None:
        method = message["method"]
        with scope:
            if method == "initialize":
                self._initialize, self._session, self._version = message, None, None
            while True:
                try:
                    answered = await self._deliver(message)
                except Away as e:
                    await self._to_host(error_answer(message, f"{e} Nothing was sent."))
                    break
                except httpx2.HTTPError:
                    answered = False
                if answered:
                    break
                if method not in _SAFE_TWICE:
                    said = "The connection to the gateway was lost before its answer came."
                    done = (
                        " It MAY have been carried out: check before you repeat it." if method == "tools/call" else ""
                    )
                    await self._to_host(error_answer(message, said + done))
                    break
                await anyio.sleep(_FIRST_WAIT_S)
        if self._running.get(message["id"]) is scope:
            del self._running[message["id"]]

    async def _deliver(self, message: Message) -> bool:
        """Sends a message and passes on all that comes back. False: the answer's stream ended without the answer."""
        response = await self._send(message, self._headers(message))
        if response.status_code == 404 and self._session is not None and message.get("method") != "initialize":
            used = self._session
            await response.aclose()
            await self._renew(used)
            response = await self._send(message, self._headers(message))
        try:
            return await self._pass_on(response, message)
        finally:
            await response.aclose()

    async def _send(self, message: Message, headers: dict[str, str]) -> httpx2.Response:
        """Waits for a server that is restarting. Raises Away when the patience is over."""
        wait = _FIRST_WAIT_S
        with anyio.CancelScope(deadline=anyio.current_time() + self._patience_s) as patience:
            while True:
                request = self._client.build_request("POST", self._url, json=message, headers=headers)
                try:
                    response = await self._client.send(request, stream=True)
                except (httpx2.ConnectError, httpx2.ConnectTimeout):
                    await anyio.sleep(wait)
                else:
                    if response.status_code not in (502, 503, 504) or "retry-after" not in response.headers:
                        patience.deadline = float("inf")
                        return response
                    await response.aclose()  # it is starting or ending, and says that nothing was done
                    await anyio.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT_S)
        raise Away(f"The gateway at {self._url} can't be reached: is it running?")

    async def _pass_on(self, response: httpx2.Response, message: Message) -> bool:
        if response.status_code >= 300:
            if asks(message):
                await response.aread()
                await self._to_host(status_answer(message, response))
            return True
        if not asks(message):
            return True
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            await response.aread()
            await self._answer(cast("Message", response.json()), message, response)
            return True
        async for event in httpx2.EventSource(response, max_event_size=None):
            if event.data:
                received = cast("Message", event.json())
                if "method" not in received:
                    await self._answer(received, message, response)
                    return True
                await self._to_host(received)
        return False

    async def _answer(self, answer: Message, request: Message, response: httpx2.Response) -> None:
        if request["method"] == "initialize" and "result" in answer:
            self._session = response.headers.get(_SESSION)
            self._version = answer["result"].get("protocolVersion")
        await self._to_host(answer)

    def _headers(self, message: Message) -> dict[str, str]:
        headers = headers_of(message, self._version)
        if self._session is not None and not is_modern(message):
            headers[_SESSION] = self._session
        return headers

    def _cancel_modern(self, message: Message) -> bool:
        """Since 2026-07-28 a call is cancelled by closing its stream."""
        if self._version is not None:
            return False
        scope = self._running.get(message.get("params", {}).get("requestId"))
        if scope is not None:
            scope.cancel()
        return True

    # ------------------------------------------------------------------ sessions of the eras before

    async def _renew(self, used: str) -> None:
        """A new session in place of `used`, as the host had begun it; the host is told that tools may have changed."""
        async with self._renewing:
            if self._session != used or self._initialize is None:
                return  # another message did it
            self._session = None
            begin = {**self._initialize, "id": f"bridge-{used[:8]}"}
            response = await self._send(begin, headers_of(begin, None))
            session = response.headers.get(_SESSION)
            await response.aread()
            await response.aclose()
            self._session = session
            begun: Message = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            await (await self._send(begun, self._headers(begun))).aclose()
        await self._to_host({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})

    async def _listen(self) -> None:
        """What the server says by itself (GET), for as long as there are sessions; opened again whenever it ends."""
        wait = _FIRST_WAIT_S
        while self._session is not None:
            used = self._session
            headers = {**self._headers({}), "accept": "text/event-stream"}
            try:
                async with self._client.stream("GET", self._url, headers=headers) as response:
                    if response.status_code == 404:
                        await self._renew(used)
                    elif response.status_code != 200:
                        return
                    else:
                        wait = _FIRST_WAIT_S
                        async for event in httpx2.EventSource(response, max_event_size=None):
                            if event.data:
                                await self._to_host(cast("Message", event.json()))
            except (Away, httpx2.HTTPError):
                pass
            await anyio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_S)
