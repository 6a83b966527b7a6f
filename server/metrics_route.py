"""GET /metrics: for the operator alone, who proves it with INTEGRATIONS_MCP_METRICS_TOKEN; API keys of workspaces don't open it."""

import hmac
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import anyio
from pydantic import SecretStr

from server.auth import GuessLimit
from server.metrics import STARTED, Metrics, Sample, labels
from server.metrics_text import CONTENT_TYPE, text_of
from server.store.background import SqlCallQueue
from server.version import VERSION
from server.worker_figures import Slot
from tools.errors import StorageUnavailable, Unauthenticated

__all__ = ["CONTENT_TYPE", "PATH", "Scrape"]

PATH = "/metrics"
_REGISTRY_S = 2.0
"""The registry is waited for at most so long: figures are wanted most when something hangs."""


class Scrape:
    """`slot`: this process is one of several workers."""

    def __init__(self, token: SecretStr, metrics: Metrics, queue: SqlCallQueue, slot: Slot | None) -> None:
        self._token = token.get_secret_value().encode()
        self._metrics, self._queue, self._slot = metrics, queue, slot
        self._limit = GuessLimit()

    def check(self, headers: Mapping[bytes, bytes], client: tuple[str, int] | None) -> None:
        """Raises Unauthenticated, RateLimited."""
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token):
            return
        address = client[0] if client else "unknown"
        self._limit.check(address)
        self._limit.failed(address)
        raise Unauthenticated(
            "the figures are the operator's: send Authorization: Bearer INTEGRATIONS_MCP_METRICS_TOKEN"
        )

    async def text(self) -> bytes:
        """The page."""
        counted = self._metrics.samples() if self._slot is None else self._slot.all_workers()
        return text_of([*counted, *self._about_us(), *(await self._of_registry())])

    def _about_us(self) -> Iterator[Sample]:
        yield "process_start_time_seconds", "", STARTED
        yield "integrations_mcp_build_info", labels(version=VERSION, python=platform.python_version()), 1

    async def _of_registry(self) -> list[Sample]:
        """What is the same for all replicas, so that it is never added up here."""
        now = datetime.now(UTC)
        try:
            with anyio.fail_after(_REGISTRY_S):
                open_calls = await self._queue.open_calls()
        except (StorageUnavailable, TimeoutError):
            return [("integrations_mcp_registry_up", "", 0)]
        oldest = [since for _, since in open_calls.values()]
        age = max(0.0, (now - min(oldest)).total_seconds()) if oldest else 0.0
        return [
            ("integrations_mcp_registry_up", "", 1),
            *(
                ("integrations_mcp_background_calls", labels(state=state), open_calls.get(state, (0, now))[0])
                for state in ("accepted", "running")
            ),
            ("integrations_mcp_background_oldest_seconds", "", age),
        ]
