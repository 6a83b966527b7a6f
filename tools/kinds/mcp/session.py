"""One conversation with an upstream: the era is agreed, then tools are listed and called, the same way in every era.

2026-07-28: `server/discover`, each request carries version and capabilities, `subscriptions/listen` brings notices. Before: the
`initialize` handshake. Some old servers die of the probe; the caller connects again with `era="handshake"`.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, cast

from mcp.shared.inbound import encode_header_value, mcp_param_headers, x_mcp_header_map

from tools.errors import CallError, InvalidResponse, Misconfigured
from tools.kinds.mcp.http import VERSION, HttpLink
from tools.kinds.mcp.rpc import UNSUPPORTED_VERSION, Ask, Asked, Link, LinkLost, Message, Progress, RpcError
from tools.kinds.rest import HOPS_HEADER, to_json
from tools.signing import CallSigner

Era = Literal["handshake", "modern"]
MODERN = "2026-07-28"
HANDSHAKE = "2025-11-25"
HANDSHAKES = frozenset({"2024-10-07", "2024-11-05", "2025-03-26", "2025-06-18", HANDSHAKE})
PROBE_S = 4.0
MAX_TOOLS = 1000
MAX_LIST_BYTES = 16 * 1024 * 1024
"""Of all pages together."""
_MAX_PAGES = 100
_META = "io.modelcontextprotocol/"
_CAPABILITIES: Message = {"extensions": {f"{_META}ui": {"mimeTypes": ["text/html;profile=mcp-app"]}}}
"""Pages of MCP Apps are passed on; of what an upstream may ask of its client, nothing is, but forms to users who can be asked."""
_ASKING: Message = {**_CAPABILITIES, "elicitation": {"form": {}}}


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """Who we say that we are."""

    name: str
    version: str


class ProbeFailed(Exception):
    """The upstream didn't survive the probe for 2026-07-28: connect again with the handshake."""


class Session:
    """Made by `agree`. `server` is what the upstream says that it is (for people only)."""

    def __init__(self, link: Link, client: ClientInfo, version: str, server: Message, capabilities: Message) -> None:
        self.link, self._client = link, client
        self.version, self.server, self._capabilities = version, server, capabilities

    @property
    def is_modern(self) -> bool:
        return self.version == MODERN

    async def tools(self) -> list[Message]:
        """Every tool as the upstream describes it, at most MAX_TOOLS; of 2026-07-28 also those that need a user who can be asked."""
        if "tools" not in self._capabilities:
            return []
        found: list[Message] = []
        cursor: str | None = None
        size = 0
        for _ in range(_MAX_PAGES):
            page = await self._ask("tools/list", {"cursor": cursor} if cursor is not None else {}, asks=True)
            tools = page.get("tools")
            if not isinstance(tools, list):
                raise InvalidResponse("its list of tools can't be read")
            if (size := size + len(to_json(page))) > MAX_LIST_BYTES:
                raise InvalidResponse(f"its list of tools is longer than {MAX_LIST_BYTES:,} bytes")
            found += [cast("Message", t) for t in cast("list[Any]", tools) if isinstance(t, dict)]
            following = page.get("nextCursor")
            if not isinstance(following, str) or following == cursor or len(found) >= MAX_TOOLS:
                break
            cursor = following
        return found[:MAX_TOOLS]

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        schema: Mapping[str, Any],
        hops: int,
        signer: CallSigner | None,
        progress: Progress | None,
        meta: Mapping[str, str] = MappingProxyType({}),
        asked: Asked | None = None,
        answers: Mapping[str, Any] = MappingProxyType({}),
    ) -> Message:
        """The result as it came, whatever its resultType. `meta` goes along in `_meta`.

        `asked` is there where the user can be asked; `answers` are `inputResponses` and `requestState` of 2026-07-28. Raises as
        `Link.request` does.
        """
        params: Message = {"name": name, "arguments": dict(arguments)}
        headers: tuple[tuple[str, str], ...] = ((HOPS_HEADER, str(hops)),)
        if meta:
            params["_meta"] = dict(meta)
        if self.is_modern:
            params |= answers
            params["_meta"] = {**meta, **modern_meta(self._client, asks=asked is not None)}
            headers = (*headers, *modern_headers("tools/call", name), *_param_headers(schema, arguments))
        return await self.link.request(Ask("tools/call", params, progress, signer, headers, asked))

    async def read(self, uri: str, *, hops: int, signer: CallSigner | None) -> Message:
        """The result of resources/read as it came. Raises as `Link.request` does."""
        params: Message = {"uri": uri}
        headers: tuple[tuple[str, str], ...] = ((HOPS_HEADER, str(hops)),)
        if self.is_modern:
            params["_meta"] = self._meta()
            headers = (*headers, *modern_headers("resources/read", uri))
        return await self.link.request(Ask("resources/read", params, None, signer, headers))

    def watch(self) -> None:
        """Follows the upstream's notices for as long as the link lives (stdio and SSE before 2026-07-28 need nothing)."""
        tools = cast("Any", self._capabilities.get("tools"))
        announces = isinstance(tools, dict) and bool(cast("Message", tools).get("listChanged"))
        if isinstance(self.link, HttpLink):
            if not self.is_modern:
                self.link.follow()
            elif announces:
                self.link.follow(self._listen)
        elif self.is_modern and announces:
            task = asyncio.ensure_future(self._listen_quietly())
            self.link.ended.add_done_callback(lambda _: task.cancel())

    # ------------------------------------------------------------------ steps

    async def _listen(self) -> None:
        await self._ask("subscriptions/listen", {"notifications": {"toolsListChanged": True}})

    async def _listen_quietly(self) -> None:
        with suppress(RpcError, LinkLost, CallError):  # then changes are seen at the next connection
            await self._listen()

    async def _ask(self, method: str, params: Message, *, asks: bool = False) -> Message:
        if not self.is_modern:
            return await self.link.request(Ask(method, params))
        return await self.link.request(
            Ask(method, {**params, "_meta": modern_meta(self._client, asks=asks)}, headers=modern_headers(method))
        )

    def _meta(self) -> Message:
        return modern_meta(self._client)


def modern_meta(client: ClientInfo, *, asks: bool = False) -> Message:
    """What each request of 2026-07-28 says of the client."""
    return {
        f"{_META}protocolVersion": MODERN,
        f"{_META}clientCapabilities": _ASKING if asks else _CAPABILITIES,
        f"{_META}clientInfo": {"name": client.name, "version": client.version},
    }


def modern_headers(method: str, name: str | None = None) -> tuple[tuple[str, str], ...]:
    headers = ((VERSION, MODERN), ("Mcp-Method", method))
    return headers if name is None else (*headers, ("Mcp-Name", encode_header_value(name)))


def _param_headers(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """`Mcp-Param-*`: arguments that the upstream wants mirrored (2026-07-28, `x-mcp-header`)."""
    if "x-mcp-header" not in str(schema):
        return ()
    return tuple(mcp_param_headers(x_mcp_header_map(schema), arguments).items())


async def agree(
    link: Link, client: ClientInfo, era: Era | None, *, asks: bool = False, probe_s: float = PROBE_S
) -> Session:
    """The session over a fresh link. `era` None finds out. `asks`: a handshake says that users can be asked. Raises ProbeFailed, RpcError, LinkLost and CallErrors."""
    if era != "handshake":
        session = await _discovered(link, client, probe_s if era is None else None)
        if session is not None:
            return session
        if link.ended.done():
            raise ProbeFailed
    return await _shaken(link, client, asks)


async def _discovered(link: Link, client: ClientInfo, within: float | None) -> Session | None:
    """None: it isn't an upstream of 2026-07-28, or it doesn't answer the probe."""
    ask = Ask("server/discover", {"_meta": modern_meta(client)}, headers=modern_headers("server/discover"))
    try:
        async with asyncio.timeout(within):
            found = await link.request(ask)
    except RpcError as e:
        supported = _object(e.data).get("supported")
        if e.code == UNSUPPORTED_VERSION and isinstance(supported, list):
            versions = cast("list[Any]", supported)
            if not any(v in HANDSHAKES for v in versions):
                raise Misconfigured(f"it speaks only MCP {', '.join(map(str, versions[:5]))}") from e
        return None
    except (LinkLost, InvalidResponse) as e:
        if link.ended.done() or isinstance(e, InvalidResponse):
            return None
        raise
    except TimeoutError:
        return None
    except CallError as e:
        if e.upstream_status in (400, 404, 405, 406, 415, 422):
            return None  # an old server that doesn't understand; 401, 403, 5xx mean what they say
        raise
    versions = found.get("supportedVersions")
    if not isinstance(versions, list) or MODERN not in versions:
        return None
    info = _object(_object(found.get("_meta")).get(f"{_META}serverInfo") or found.get("serverInfo"))
    return Session(link, client, MODERN, info, _object(found.get("capabilities")))


async def _shaken(link: Link, client: ClientInfo, asks: bool) -> Session:
    params = {
        "protocolVersion": HANDSHAKE,
        "capabilities": _ASKING if asks else _CAPABILITIES,
        "clientInfo": {"name": client.name, "version": client.version},
    }
    found = await link.request(Ask("initialize", params))
    version = found.get("protocolVersion")
    if version not in HANDSHAKES:
        raise Misconfigured(f"it speaks MCP {version!s:.20}, which this gateway doesn't know")
    if isinstance(link, HttpLink):
        link.version = str(version)
    await link.notify("notifications/initialized")
    return Session(link, client, str(version), _object(found.get("serverInfo")), _object(found.get("capabilities")))


def _object(value: Any) -> Message:
    return cast("Message", value) if isinstance(value, dict) else {}
