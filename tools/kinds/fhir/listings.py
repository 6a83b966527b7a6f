"""Reads CapabilityStatements into the registry: when an integration is written and when its connection is tested."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from tools.answers import read_raw
from tools.credentials.reader import SecretReader
from tools.credentials.types import TYPES, CredentialParts
from tools.errors import GatewayError, InvalidResponse
from tools.exchange import Answer, Request
from tools.kinds.fhir.capabilities import kept
from tools.masking import Masker
from tools.models import Integration, UpstreamTools
from tools.signing import CallSigner
from tools.upstream import Limits, Upstream

READ_S = 10.0
MAX_BYTES = 10 * 1024 * 1024
ACCEPT = (("Accept", "application/fhir+json, application/json;q=0.9"),)


class StatementStore(Protocol):
    """The part of the registry that keeps what upstreams show."""

    async def keep_upstream_tools(self, workspace: str, id: str, tools: UpstreamTools) -> None: ...


class FhirListings:
    """`changed` is told the workspace after each statement that was kept."""

    def __init__(
        self,
        upstream: Upstream,
        reader: SecretReader,
        parts_of: Callable[[Integration], CredentialParts],
        store: StatementStore,
        *,
        changed: Callable[[str], None],
    ) -> None:
        self._upstream, self._reader, self._parts_of = upstream, reader, parts_of
        self._store, self._changed = store, changed

    async def read(self, integration: Integration) -> UpstreamTools:
        """Reads and keeps what the server says of itself, within READ_S.

        Raises CallErrors where it can't be asked (what was kept before stays), NotFound, StorageUnavailable, TimeoutError.
        """
        statement = await ask_statement(self._upstream, integration, self._reader, self._parts_of)
        listing = kept(statement, integration.base_url)
        if listing != integration.upstream_tools:
            await self._store.keep_upstream_tools(integration.workspace_id, integration.id, listing)
            self._changed(integration.workspace_id)
        return listing

    async def read_if_possible(self, integration: Integration) -> None:
        """As `read`; a server that can't be asked is health's to tell, not the write's."""
        with suppress(GatewayError, TimeoutError):
            await self.read(integration)


async def ask_statement(
    upstream: Upstream,
    integration: Integration,
    reader: SecretReader,
    parts_of: Callable[[Integration], CredentialParts],
) -> Any:
    """The masked /metadata of the server, within READ_S. Raises CallErrors, TimeoutError."""
    request = Request("GET", integration.base_url.rstrip("/") + "/metadata", ACCEPT)

    async def ask(signer: CallSigner | None) -> Answer:
        limits = Limits(READ_S, MAX_BYTES)
        return await upstream.send(request, pool=integration.workspace_id, limits=limits, signer=signer)

    async with asyncio.timeout(READ_S):
        answer, masker = await ask(None), Masker()
        if answer.status in (401, 403) and integration.auth is not None:  # most servers show it to anybody
            signer = signer_of(integration, reader, parts_of)
            answer = await ask(signer)
            masker = Masker(signer.masks)
    if answer.status != 200:
        raise InvalidResponse(f"its /metadata answered {answer.status}", upstream_status=answer.status)
    return read_raw(answer, masker).value


def signer_of(
    integration: Integration, reader: SecretReader, parts_of: Callable[[Integration], CredentialParts]
) -> CallSigner:
    """Signs with the integration's own credential."""
    auth = integration.auth
    if auth is None:
        return CallSigner(None, (), (), integration.bindings, reader)
    row = TYPES[auth.type]
    return CallSigner(row.make(auth, parts_of(integration)), row.secret_paths(auth), (), integration.bindings, reader)
