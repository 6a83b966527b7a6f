"""MCP messages over HTTP through the one door to the network: signed one by one, statuses told as the errors they mean."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urljoin

from tools.answers import media_type, status_error
from tools.errors import CallError, InvalidResponse, RedirectRefused, UpstreamUnreachable
from tools.exchange import Answer, ConnectFailed, ConnectionLost, Request, Stream, Wire
from tools.kinds.mcp.rpc import LinkLost
from tools.kinds.paths import base_url_fault, origin_of
from tools.upstream import Signer, Upstream, retry_after_s

ERROR_BYTES = 64 * 1024
JSON_TYPE = "application/json"
EVENTS_TYPE = "text/event-stream"


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """Where one upstream is and how to speak to it. `signer` signs what belongs to no call (handshake, lists)."""

    url: str
    headers: tuple[tuple[str, str], ...]
    pool: str
    signer: Signer
    upstream: Upstream
    max_bytes: int

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: str,
        headers: tuple[tuple[str, str], ...],
        body: bytes | None,
        signer: Signer | None,
    ) -> AsyncGenerator[Stream, None]:
        """One exchange. Raises LinkLost where the connection broke, CallErrors of `Upstream.stream`."""
        wire = Wire()
        own = {name.lower() for name, _ in headers}
        everything = (*headers, *(h for h in self.headers if h[0].lower() not in own), ("Accept-Encoding", "identity"))
        request = Request(method, url, everything, body)
        try:
            stream = self.upstream.stream(request, pool=self.pool, signer=signer or self.signer, wire=wire)
            async with stream as opened:
                yield opened
        except ConnectFailed as e:
            raise UpstreamUnreachable("can't be reached: no connection could be made", detail=str(e)) from e
        except ConnectionLost as e:
            raise LinkLost(f"the connection was lost ({e})", sent=wire.sent) from e


async def refusal_of(stream: Stream, url: str) -> tuple[CallError, bytes]:
    """The error that a status other than 2xx means, and its body, which may hold a JSON-RPC error."""
    try:
        async with asyncio.timeout(5):
            body = await stream.read(ERROR_BYTES)
    except (CallError, ConnectionLost, TimeoutError):
        body = b""
    answer = Answer(stream.status, stream.headers, body, url)
    if 300 <= stream.status < 400:
        return _redirect(stream, url), b""
    found = status_error(
        answer,
        Request("POST", url),
        idempotent=False,
        unsure_before=False,
        retry_after_s=retry_after_s(stream.headers, time.time()),
    )
    return found or InvalidResponse(f"its answer has the status {stream.status}, which MCP doesn't use here"), body


def _redirect(stream: Stream, url: str) -> RedirectRefused:
    """A POST isn't sent again elsewhere (rules F5). Servers that only miss a slash at the end are common: then it says the address."""
    said = f"the answer is a redirect ({stream.status})"
    try:
        where = urljoin(url, stream.headers.get("location", "")).partition("?")[0].partition("#")[0]
    except ValueError:  # no URL at all, as http://[::1
        return RedirectRefused(f"{said}, and where to can't be read", upstream_status=stream.status)
    if base_url_fault(where) is None and origin_of(where) == origin_of(url) and where != url:
        said += f" to {where[:200]}: give that as mcp_url"
        return RedirectRefused(said, upstream_status=stream.status)
    return RedirectRefused(said, upstream_status=stream.status, detail=f"Location: {where[:200]}")


def is_json(stream: Stream) -> bool:
    media, _ = media_type(stream.headers.get("content-type", ""))
    return media == JSON_TYPE or media.endswith("+json")


def is_events(stream: Stream) -> bool:
    return media_type(stream.headers.get("content-type", ""))[0] == EVENTS_TYPE
