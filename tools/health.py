"""Is each integration reachable, and does its credential work: probes without side effects, side by side, bounded, cached.

REST: HEAD, then GET of base_url (semantics: "health-check"). Each probe 5 s, the whole 15 s; what isn't reached is `timeout`.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from tools.breaker import Breaker, Resting
from tools.credentials import Credential
from tools.credentials.reader import SecretReader
from tools.credentials.types import TYPES, CredentialParts
from tools.credentials.xray import xray
from tools.errors import (
    AddressRefused,
    CallError,
    CertificateRefused,
    CredentialRejected,
    CredentialUnavailable,
    Misconfigured,
    UpstreamTimeout,
)
from tools.kinds.fhir.capabilities import capabilities_of
from tools.kinds.fhir.listings import ACCEPT
from tools.kinds.mcp.rpc import LinkLost, RpcError, SessionGone
from tools.kinds.mcp.sessions import McpSessions
from tools.kinds.rest import split_headers
from tools.models import AuthConfig, Integration
from tools.signing import CallSigner
from tools.suspicious_text import suspicions_of_tool
from tools.upstream import Answer, Limits, Request, Upstream

PROBE_S = 5.0
WHOLE_S = 15.0
CACHED_S = 5.0
_SIDE_BY_SIDE = 50
Status = Literal["healthy", "auth_failed", "unreachable", "timeout", "ssl_error", "misconfigured"]


@dataclass(frozen=True, slots=True)
class Health:
    """What one probe found. `auth`: ok | failed | not_checked | none; `credential`: the way to it, in a fresh probe."""

    status: Status
    auth: str
    latency_ms: float | None
    message: str
    checked_at: datetime
    credential: dict[str, object] | None = None
    circuits: tuple[Resting, ...] = ()
    """Where calls are held back at the moment, however the probe went."""
    for_operators: str | None = None
    """The message with hosts and addresses, for callers with Integration.update (rules H2)."""


class HealthProbe:
    """Probes integrations of any workspace; a result is believed for a few seconds."""

    def __init__(
        self,
        upstream: Upstream,
        reader: SecretReader,
        parts_of: Callable[[Integration], CredentialParts],
        mcp: McpSessions,
        breaker: Breaker,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._upstream, self._reader, self._parts_of, self._mcp = upstream, reader, parts_of, mcp
        self._breaker = breaker
        self._clock, self._now = clock, now
        self._known: dict[tuple[str, int], tuple[float, Health]] = {}

    async def check_all(self, integrations: Sequence[Integration]) -> list[Health]:
        """One result for each, in order; what the 15 seconds don't reach is `timeout`."""
        results: list[Health | None] = [None] * len(integrations)
        gate = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def one(i: int) -> None:
            async with gate:
                results[i] = await self.check(integrations[i])

        tasks = [asyncio.ensure_future(one(i)) for i in range(len(integrations))]
        try:
            async with asyncio.timeout(WHOLE_S):
                await asyncio.gather(*tasks)
        except TimeoutError:
            pass
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        late = Health("timeout", "not_checked", None, "not reached within the 15 s of the whole check", self._now())
        return [r or late for r in results]

    async def check(self, integration: Integration, *, fresh: bool = False) -> Health:
        """Probes one integration, or gives what was found a moment ago."""
        key = (integration.id, integration.version)
        known = self._known.get(key)
        if known is not None and not fresh and self._clock() - known[0] < CACHED_S:
            return replace(known[1], circuits=self._breaker.resting(integration))
        credential = await self._walk(integration) if fresh else None
        health = await self._probe(integration, fresh)
        if fresh and health.status == "healthy":
            self._breaker.close(integration)
        if len(self._known) > 20_000:
            self._known.clear()
        self._known[key] = (self._clock(), health)
        return replace(health, credential=credential, circuits=self._breaker.resting(integration))

    async def _walk(self, integration: Integration) -> dict[str, object] | None:
        """The way to a new credential: nothing that was kept or remembered counts (rules B6)."""
        parts = self._parts_of(integration)
        parts.tokens.drop(parts.workspace, parts.integration_id)
        return None if integration.auth is None else await xray(integration.auth, parts)

    async def _probe(self, integration: Integration, fresh: bool) -> Health:
        started = self._clock()
        url = integration.base_url or next((e.base_url for e in integration.endpoints if e.base_url), None)
        if integration.protocol == "mcp":
            return await self._probe_mcp(integration, started)
        if not url:
            return self._found("misconfigured", "none", started, "there is no base_url to probe")
        if integration.protocol == "fhir":
            return await self._probe_fhir(integration, fresh, started)
        signer = self._signer(integration.auth, integration)
        auth = "none" if integration.auth is None else "ok"
        static, _, _ = split_headers({}, ())
        try:
            answer = await self._ask("HEAD", url, static, integration, signer)
            if answer.status in (400, 404, 405, 501) or answer.status >= 500:
                answer = await self._ask("GET", url, static, integration, signer)
        except CallError as e:
            return self._failed(e, auth, started)
        if answer.status in (401, 403, 407):
            return self._found("auth_failed", "failed", started, f"the server answered {answer.status}")
        if answer.status >= 500:
            return self._found("unreachable", "not_checked", started, f"the server answered {answer.status}")
        return self._found("healthy", auth, started, f"the server answered {answer.status}")

    async def _probe_fhir(self, integration: Integration, fresh: bool, started: float) -> Health:
        """/metadata without credentials for reach, then the credential; a fresh probe asks for one number with it (rules G10)."""
        base, auth = integration.base_url.rstrip("/"), "none" if integration.auth is None else "not_checked"
        signer = self._signer(integration.auth, integration)
        try:
            answer = await self._ask("GET", f"{base}/metadata", ACCEPT, integration, None)
            if answer.status >= 500 or answer.status in (404, 410):
                return self._found("unreachable", auth, started, f"{answer.status} for /metadata of base_url")
            if integration.auth is not None:
                await signer.sign(Request("GET", f"{base}/metadata"))
                auth = "ok"
            kept = capabilities_of(integration.upstream_tools)
            names = kept.names("search-type") if kept is not None else []
            if fresh and names:
                answer = await self._ask("GET", f"{base}/{names[0]}?_summary=count", ACCEPT, integration, signer)
            elif answer.status in (401, 403):
                answer = await self._ask("GET", f"{base}/metadata", ACCEPT, integration, signer)
        except CallError as e:
            return self._failed(e, auth, started)
        if answer.status in (401, 403, 407):
            return self._found("auth_failed", "failed", started, f"the server answered {answer.status}")
        if answer.status >= 500:
            return self._found("unreachable", auth, started, f"the server answered {answer.status}")
        listing = integration.upstream_tools
        shown = f"FHIR {listing.protocol_version}, {len(listing.tools) - 1} resource types" if listing else ""
        return self._found(
            "healthy", auth, started, shown or "its CapabilityStatement was not read yet: test the connection"
        )

    async def _probe_mcp(self, integration: Integration, started: float) -> Health:
        """The handshake, unless a session is open, and a list of tools."""
        auth = "none" if integration.auth is None else "ok"
        try:
            async with asyncio.timeout(PROBE_S), self._mcp.use(integration, integration.auth) as connected:
                session = connected.session
                tools = await session.tools()
        except TimeoutError:
            return self._found("timeout", "not_checked", started, f"no answer within {PROBE_S:.0f} s")
        except CallError as e:
            return self._failed(e, auth, started)
        except (RpcError, LinkLost, SessionGone) as e:
            return self._found("unreachable", "not_checked", started, f"the list of tools failed: {e}"[:300])
        shown = f"{len(tools)} tools over MCP {session.version}"
        return self._found("healthy", auth, started, "; ".join([shown, *_remarks(integration)]))

    async def _ask(
        self,
        method: str,
        url: str,
        headers: tuple[tuple[str, str], ...],
        integration: Integration,
        signer: CallSigner | None,
    ) -> Answer:
        request = Request(method, url, headers, None, frozenset())
        limits = replace(Limits(), deadline_s=PROBE_S, max_bytes=10 * 1024 * 1024)  # /metadata is megabytes
        return await self._upstream.send(request, pool=integration.workspace_id, limits=limits, signer=signer)

    def _signer(self, auth: AuthConfig | None, integration: Integration) -> CallSigner:
        credential: Credential | None = None
        paths: tuple[str, ...] = ()
        if auth is not None:
            row = TYPES[auth.type]
            credential, paths = row.make(auth, self._parts_of(integration)), row.secret_paths(auth)
        return CallSigner(credential, paths, (), integration.bindings, self._reader)

    def _found(
        self, status: Status, auth: str, started: float, message: str, for_operators: str | None = None
    ) -> Health:
        latency = None if status in ("misconfigured", "timeout") else round((self._clock() - started) * 1000, 1)
        return Health(status, auth, latency, message, self._now(), for_operators=for_operators)

    def _failed(self, error: CallError, auth: str, started: float) -> Health:
        status, auth, message = _meaning(error, auth)
        precise = f"{message} ({error.detail})" if isinstance(error, AddressRefused) and error.detail else None
        return self._found(status, auth, started, message, precise)


def _meaning(error: CallError, auth: str) -> tuple[Status, str, str]:
    match error:
        case CredentialRejected() | CredentialUnavailable():
            return "auth_failed", "failed", error.message
        case AddressRefused() | Misconfigured():
            return "misconfigured", "not_checked", error.message
        case UpstreamTimeout():
            return "timeout", "not_checked", f"no answer within {PROBE_S:.0f} s"
        case CertificateRefused():
            return "ssl_error", "not_checked", error.message
        case _:
            return "unreachable", "not_checked", error.message


def _remarks(integration: Integration) -> list[str]:
    """What an operator should know of an upstream's tools."""
    kept = integration.upstream_tools
    if kept is None:
        return ["they were not read yet: test the connection"]
    remarks: list[str] = []
    if kept.changed:
        remarks.append(
            f"{len(kept.changed)} described otherwise than when first seen ({', '.join(kept.changed)[:300]}): "
            "look at them and save the integration to accept them"
        )
    if suspicious := [f"{t['name']}: {found[0]}" for t in kept.tools if (found := suspicions_of_tool(t))]:
        remarks.append(f"{len(suspicious)} with suspicious text: {'; '.join(suspicious)[:600]}")
    if kept.left_out:
        remarks.append(f"{len(kept.left_out)} left out: {'; '.join(kept.left_out)[:600]}")
    names = {t["name"] for t in kept.tools}
    if missing := [e.name for e in integration.endpoints if e.path not in names and e.path.lstrip("/") not in names]:
        remarks.append(f"the upstream has no tool for the endpoints {', '.join(missing)[:300]}")
    return remarks


def _shown(circuit: Resting) -> dict[str, Any]:
    again = math.ceil(circuit.tries_again_s)
    return {"origin": circuit.origin, "state": circuit.state, "failures": circuit.failures, "tries_again_s": again}


def overall(results: Sequence[Health]) -> Literal["healthy", "degraded", "unhealthy"]:
    """healthy: all; unhealthy: none of at least one; degraded: some."""
    good = sum(1 for r in results if r.status == "healthy")
    if good == len(results):
        return "healthy"
    return "degraded" if good else "unhealthy"


def report(
    integrations: Sequence[Integration], results: Sequence[Health], at: datetime, *, with_detail: bool
) -> dict[str, Any]:
    """The body of health-check. `with_detail`: for a caller with Integration.update."""
    counts: dict[str, int] = {}
    for result in results:
        counts[result.status] = counts.get(result.status, 0) + 1
    return {
        "status": overall(results),
        "checked_at": at.isoformat(),
        "counts": counts,
        "integrations": [
            {
                "id": i.id,
                "name": i.name,
                "display_name": i.display_name,
                "protocol": i.protocol,
                "status": r.status,
                "auth": r.auth,
                "latency_ms": r.latency_ms,
                "message": (r.for_operators if with_detail else None) or r.message,
                "checked_at": r.checked_at.isoformat(),
                **({"credential": r.credential} if r.credential is not None else {}),
                **({"circuits": [_shown(c) for c in r.circuits]} if r.circuits else {}),
            }
            for i, r in zip(integrations, results, strict=True)
        ],
    }
