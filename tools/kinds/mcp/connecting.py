"""Makes one connection to an upstream: which link, with which credential and environment, in which era; failures as CallErrors."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from tools.credentials.authorization import masks_of
from tools.credentials.parts import CredentialParts
from tools.credentials.reader import SecretReader
from tools.credentials.types import TYPES
from tools.errors import CallError, Misconfigured, UpstreamTimeout, UpstreamUnreachable
from tools.kinds.mcp.commands import is_allowed, stdio_origin
from tools.kinds.mcp.http import HttpLink
from tools.kinds.mcp.old_sse import SseLink
from tools.kinds.mcp.rpc import Link, LinkLost, Notice, RpcError, SessionGone
from tools.kinds.mcp.session import ClientInfo, Era, ProbeFailed, Session, agree
from tools.kinds.mcp.stdio import Launch, StdioLink
from tools.kinds.mcp.wire import HttpTarget
from tools.kinds.rest import SECRET_REFERENCE, split_headers
from tools.models import AuthConfig, Integration
from tools.signing import CallSigner
from tools.upstream import Answer, Request, Upstream

CONNECT_S = 10.0
_MOST_MASKS = 1000


@dataclass(frozen=True, slots=True)
class Connecting:
    """What every connection needs. `allow` is the operator's list of programs; `max_bytes` bounds one message."""

    client: ClientInfo
    upstream: Upstream
    reader: SecretReader
    parts_of: Callable[[Integration], CredentialParts]
    launch: Launch
    allow: tuple[str, ...]
    max_bytes: int


@dataclass(slots=True)
class Connected:
    """A session and what must be masked because of it; `era` is remembered for the next connection."""

    session: Session
    masks: set[str]
    era: Era


async def connect(
    c: Connecting,
    integration: Integration,
    auth: AuthConfig | None,
    era: Era | None,
    notice: Notice,
    *,
    asks: bool = False,
) -> Connected:
    """Within CONNECT_S. `asks` as in `session.agree`. Raises CallErrors; nothing stays behind then."""
    connection = _Connection(c, integration, auth, notice, asks)
    deadline = asyncio.timeout(CONNECT_S)
    try:
        async with deadline:
            session = await connection.agree(era)
    except BaseException as e:
        said = await connection.drop()
        if isinstance(e, TimeoutError) and deadline.expired():
            raise UpstreamTimeout(
                f"no answer to the MCP handshake within {CONNECT_S:g} s", sent="no", retryable=True
            ) from None
        if isinstance(e, RpcError):
            raise Misconfigured(f"it refused the MCP handshake: {e.message[:300]}", detail=said) from e
        if isinstance(e, LinkLost | SessionGone):
            raise UpstreamUnreachable(f"ended the connection during the MCP handshake ({e})", detail=said) from e
        if isinstance(e, CallError) and said and not e.detail:
            e.detail = said
        raise
    return Connected(session, connection.masks, "modern" if session.is_modern else "handshake")


class _Connection:
    """One attempt; the old SDKs die of the probe, so it may take two links."""

    def __init__(
        self, c: Connecting, integration: Integration, auth: AuthConfig | None, notice: Notice, asks: bool
    ) -> None:
        self._c, self._integration, self._notice, self._asks = c, integration, notice, asks
        _, secret, _ = split_headers(integration.mcp_headers or {}, ())
        self.masks: set[str] = set()
        self._signer = _Signer(c, integration, auth, secret, self.masks)
        self._link: Link | None = None

    async def agree(self, era: Era | None) -> Session:
        if self._integration.mcp_transport == "sse":
            era = "handshake"  # the old transport is older than the probe, and old servers hang on it
        self._link = await self._open()
        try:
            return await agree(self._link, self._c.client, era, asks=self._asks)
        except (ProbeFailed, RpcError, LinkLost):
            if era == "handshake":
                raise
            await self.drop()
            self._link = await self._open()
            return await agree(self._link, self._c.client, "handshake", asks=self._asks)

    async def drop(self) -> str | None:
        """Closes the link; gives the last words of a process."""
        link, self._link = self._link, None
        if link is None:
            return None
        await link.close()
        return " | ".join(link.said)[-1000:] or None if isinstance(link, StdioLink) else None

    async def _open(self) -> Link:
        i = self._integration
        match i.mcp_transport:
            case "stdio":
                return await self._start()
            case "sse":
                link = SseLink(self._target(), self._notice)
                try:
                    await link.open()
                except BaseException:
                    await link.close()
                    raise
                return link
            case _:
                return HttpLink(self._target(), self._notice)

    def _target(self) -> HttpTarget:
        i = self._integration
        static, _, _ = split_headers(i.mcp_headers or {}, ())
        return HttpTarget(i.mcp_url or "", static, i.workspace_id, self._signer, self._c.upstream, self._c.max_bytes)

    async def _start(self) -> StdioLink:
        i = self._integration
        command, arguments = i.mcp_command or "", i.mcp_args or ()
        if not i.builtin and not is_allowed(command, arguments, self._c.allow):
            raise Misconfigured("its program is not on the operator's list of what may be run")
        environment = {name: await self._value(text) for name, text in (i.mcp_env or {}).items()}
        try:
            child = await self._c.launch(command, arguments, environment)
        except OSError as e:
            raise Misconfigured("its program can't be started", detail=e.strerror or type(e).__name__) from e
        return StdioLink(child, self._notice, self._c.max_bytes)

    async def _value(self, text: str) -> str:
        if not text.startswith(SECRET_REFERENCE):
            return text
        path = text.removeprefix(SECRET_REFERENCE)
        binding = self._integration.bindings.get(path)
        if binding is None or stdio_origin(self._integration) not in binding.origins:
            raise Misconfigured(f"the secret under {path} was not given for this program")
        secret = await self._c.reader.read(path, binding.version)
        self.masks.update(masks_of([secret.value]))
        return secret.value


class _Signer:
    """`upstream.Signer` of what belongs to no call: handshake, lists, streams. Fills the session's masks."""

    def __init__(
        self,
        c: Connecting,
        integration: Integration,
        auth: AuthConfig | None,
        secret: tuple[tuple[str, str], ...],
        masks: set[str],
    ) -> None:
        self._masks, self._last = masks, CallSigner(None, (), (), {}, c.reader)
        if auth is None:
            self._make = lambda: CallSigner(None, (), secret, integration.bindings, c.reader)
            return
        row = TYPES[auth.type]
        credential, paths = row.make(auth, c.parts_of(integration)), row.secret_paths(auth)
        self._make = lambda: CallSigner(credential, paths, secret, integration.bindings, c.reader)

    async def sign(self, request: Request) -> tuple[tuple[str, str], ...]:
        self._last = self._make()
        headers = await self._last.sign(request)
        if len(self._masks) > _MOST_MASKS:
            self._masks.clear()  # tokens of hours ago
        self._masks.update(self._last.masks)
        return headers

    async def refused(self, answer: Answer) -> bool:
        return await self._last.refused(answer)
