"""How each call that ended is told: a row of the history, a line of the log, and the operator's figures."""

import asyncio
import logging
from collections.abc import Callable, Iterator

from server.calls import WrittenBehind
from server.metrics import Metrics, Sample, labels
from server.telemetry import Log
from tools.catalog import Catalogs
from tools.credentials.token_cache import TokenCache
from tools.engine import HttpEngine
from tools.history import CallRecord

log = Log("integrations_mcp")


def recorder(history: WrittenBehind, metrics: Metrics | None) -> Callable[[CallRecord], None]:
    """What the gateway is given as `record`."""

    def record(row: CallRecord) -> None:
        history.call(row)
        if metrics is not None:
            metrics.call(row)
        # Failures at info; successes, which the history holds too, at debug.
        if row.error_code is not None:
            if log.is_on(logging.INFO):
                log.info("call failed", **_fields(row))
        elif log.is_on(logging.DEBUG):
            log.debug("call", **_fields(row))

    return record


def _fields(row: CallRecord) -> dict[str, object]:
    """One id for each step: the request's, the call's, and the attempts in their order. Never arguments, answers or addresses."""
    return {
        "request_id": row.request_id or None,
        "call_id": row.call_id,
        "workspace": row.workspace,
        "caller": row.caller,
        "tool": row.tool[:128],
        "outcome": row.error_code or "ok",
        "ms": round(row.ms, 1),
        "attempts": [f"{status or 'no answer'} in {ms:.0f} ms" for status, ms in row.answers],
    }


def parts_counted(
    metrics: Metrics, catalogs: Catalogs, tokens: TokenCache, history: WrittenBehind, engine: HttpEngine
) -> None:
    """Figures that the parts keep themselves."""

    def read() -> Iterator[Sample]:
        yield "integrations_mcp_token_mints_total", labels(outcome="ok"), tokens.minted
        yield "integrations_mcp_token_mints_total", labels(outcome="failed"), tokens.refused
        busy, idle = engine.connections()
        yield "integrations_mcp_upstream_connections", labels(state="busy"), busy
        yield "integrations_mcp_upstream_connections", labels(state="idle"), idle
        yield "integrations_mcp_catalog_builds_total", "", catalogs.builds
        yield "integrations_mcp_catalog_build_seconds_total", "", catalogs.build_s
        yield "integrations_mcp_catalogs_kept", "", catalogs.kept
        yield "integrations_mcp_catalog_tools_kept", "", catalogs.tools_kept
        yield "integrations_mcp_tasks", "", len(asyncio.all_tasks())
        yield "integrations_mcp_history_rows_waiting", "", history.waiting
        yield "integrations_mcp_history_rows_dropped_total", "", history.ever_dropped

    metrics.read_also(read)


def named(catalogs: Catalogs) -> Callable[[str, str], tuple[str, str] | None]:
    """(name, protocol) of an integration by its id, from the catalog that its call has just used."""

    def names(workspace: str, id: str) -> tuple[str, str] | None:
        catalog = catalogs.known(workspace)
        found = [i for i in catalog.integrations if i.id == id] if catalog is not None else []
        return (found[0].name, found[0].protocol) if found else None

    return names
