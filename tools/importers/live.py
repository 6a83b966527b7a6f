"""What a running server says of itself, for imports: a FHIR server's statement, an MCP server's tools.

Asked with the integration as it would be stored (or is): checked, bound and, for a program, on the operator's list. A secret that
came with the request is used from memory and stored nowhere.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from tools.credentials.parts import CredentialParts
from tools.credentials.reader import GivenSecrets, SecretReader
from tools.credentials.token_cache import TokenCache
from tools.errors import CallError
from tools.importers.frame import Source, SourceFault
from tools.importers.mcp_tools import read_tools
from tools.json_values import is_object
from tools.kinds.fhir.listings import ask_statement
from tools.kinds.mcp.connecting import Connecting, connect
from tools.kinds.mcp.listings import READ_S
from tools.kinds.mcp.rpc import LinkLost, RpcError, SessionGone
from tools.kinds.rest import to_json
from tools.masking import Masker
from tools.models import Integration


def _unheard(method: str, params: Mapping[str, object]) -> None:
    """Notices of a server that is asked once."""


Read = Callable[[bytes, str], Awaitable[Source]]


class LiveSources:
    """`read` turns the bytes of a statement into a source."""

    def __init__(self, connecting: Connecting, read: Read) -> None:
        self._connecting, self._read = connecting, read

    async def ask(self, integration: Integration, given: Mapping[str, str], *, with_detail: bool) -> Source:
        """`given`: values by the path that `integration` names. Raises SourceFault; `with_detail` it names hosts and what a
        program said, for operators."""
        what = "FHIR server" if integration.protocol == "fhir" else "MCP server"
        try:
            async with self._with(given) as connecting:
                if integration.protocol == "fhir":
                    return await self._statement(connecting, integration)
                return await self._tools(connecting, integration)
        except CallError as e:
            detail = f" ({e.detail})" if e.detail and with_detail else ""
            advice = "; give auth, or a secret that works" if e.upstream_status in (401, 403) else ""
            raise SourceFault(f"the {what} can't be asked: {e.message}{detail}{advice}") from None
        except (RpcError, LinkLost, SessionGone) as e:
            raise SourceFault(f"the {what} can't be asked: its list of tools failed ({str(e)[:300]})") from None
        except TimeoutError:
            raise SourceFault(f"the {what} doesn't answer within {READ_S:g} s") from None

    async def _statement(self, c: Connecting, integration: Integration) -> Source:
        statement = await ask_statement(c.upstream, integration, c.reader, c.parts_of)
        if not is_object(statement) or statement.get("resourceType") != "CapabilityStatement":
            raise SourceFault("its /metadata is no CapabilityStatement: give the server's FHIR base URL")
        return await self._read(to_json(statement), integration.base_url.rstrip("/") + "/metadata")

    async def _tools(self, c: Connecting, integration: Integration) -> Source:
        connected = await connect(
            c, integration, integration.auth, None, _unheard, asks=integration.mcp_transport != "stdio"
        )
        session = connected.session
        try:
            async with asyncio.timeout(READ_S):
                found = await session.tools()
        finally:
            await session.link.close()
        where = integration.mcp_url or " ".join([integration.mcp_command or "", *(integration.mcp_args or ())])
        # A server that echoes our credential in a description would hand it to whoever looks at the preview (rules J6).
        masked = Masker(connected.masks).value(found)
        return read_tools(masked, str(session.server.get("name", ""))[:200], where, integration.upstream_tools)

    @asynccontextmanager
    async def _with(self, given: Mapping[str, str]) -> AsyncGenerator[Connecting, None]:
        if not given:
            yield self._connecting
            return
        reader, tokens = SecretReader(GivenSecrets(given, self._connecting.reader)), TokenCache()

        def parts_of(integration: Integration) -> CredentialParts:
            return replace(self._connecting.parts_of(integration), reader=reader, tokens=tokens)

        try:
            yield replace(self._connecting, reader=reader, parts_of=parts_of)
        finally:
            await tokens.aclose()
