"""Any httpx2 transport as an Engine, so that `respx.MockRouter(using=None)` or an ASGI app can stand for the upstream."""

import httpx2

from tools.errors import ResponseTooLarge
from tools.exchange import Answer, ConnectFailed, ConnectionLost, Request, Wire


class HttpxEngine:
    """`HttpxEngine(httpx2.MockTransport(handler))`. Neither DNS nor sockets, so only literal addresses meet the guard."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def exchange(self, request: Request, *, pool: str, max_bytes: int, wire: Wire) -> Answer:
        sent = httpx2.Request(request.method, request.url, headers=list(request.headers), content=request.body)
        wire.sent = True
        try:
            response = await self._transport.handle_async_request(sent)
            body = await response.aread()
        except httpx2.ConnectError as exc:
            wire.sent = False
            raise ConnectFailed(str(exc)) from exc
        except httpx2.TransportError as exc:
            raise ConnectionLost(str(exc)) from exc
        if len(body) > max_bytes:
            raise ResponseTooLarge(f"the answer is longer than {max_bytes:,} bytes")
        return Answer(response.status_code, response.headers, body, request.url)

    async def aclose(self) -> None:
        await self._transport.aclose()
