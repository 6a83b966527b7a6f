"""Figures as Prometheus reads them: text format 0.0.4, with a line on what each means."""

from collections.abc import Iterable, Mapping

from server.metrics import Sample

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

FAMILIES: Mapping[str, tuple[str, str]] = {
    "integrations_mcp_calls_total": ("counter", "Calls of tools by how they ended: ok, or the error code."),
    "integrations_mcp_call_duration_seconds": ("histogram", "Whole calls, retries and waiting included."),
    "integrations_mcp_upstream_attempts_total": (
        "counter",
        "Requests to connected systems by what came back; none is no answer.",
    ),
    "integrations_mcp_upstream_retries_total": ("counter", "Attempts after the first of a call."),
    "integrations_mcp_token_mints_total": ("counter", "Access tokens asked for at token endpoints, by outcome."),
    "integrations_mcp_upstream_connections": ("gauge", "Open connections to connected systems, by state."),
    "integrations_mcp_http_requests_total": ("counter", "HTTP requests to the gateway by route and status class."),
    "integrations_mcp_http_requests_running": (
        "gauge",
        "HTTP requests that are being answered, open streams included.",
    ),
    "integrations_mcp_background_calls": ("gauge", "Background calls that wait (accepted) or run, of all replicas."),
    "integrations_mcp_background_oldest_seconds": ("gauge", "Age of the background call that has waited longest."),
    "integrations_mcp_catalog_builds_total": ("counter", "Times that a workspace's tools were compiled anew."),
    "integrations_mcp_catalog_build_seconds_total": ("counter", "Time that took."),
    "integrations_mcp_catalogs_kept": ("gauge", "Workspaces whose tools are in memory."),
    "integrations_mcp_catalog_tools_kept": ("gauge", "Tools in memory."),
    "integrations_mcp_tasks": ("gauge", "Tasks of the event loop."),
    "integrations_mcp_history_rows_waiting": ("gauge", "Rows of the history that aren't in the registry yet."),
    "integrations_mcp_history_rows_dropped_total": ("counter", "Rows lost because too many waited."),
    "integrations_mcp_registry_up": ("gauge", "1 where the registry answered this scrape."),
    "integrations_mcp_workers": ("gauge", "Processes that these figures are the sum of."),
    "integrations_mcp_build_info": ("gauge", "Always 1; the version is a label."),
    "process_cpu_seconds_total": ("counter", "CPU time of all workers."),
    "process_resident_memory_bytes": ("gauge", "Memory of all workers."),
    "process_open_fds": ("gauge", "Open files and sockets of all workers."),
    "process_start_time_seconds": ("gauge", "When the answering process started, Unix time."),
}
_PARTS = ("_bucket", "_sum", "_count")


def family_of(name: str) -> str:
    """A histogram's samples have names of their own."""
    return next((name.removesuffix(p) for p in _PARTS if name.removesuffix(p) in FAMILIES), name)


def is_counter(name: str) -> bool:
    """Whether the figure only grows: such a one goes on from where a worker that ended left it."""
    return FAMILIES[family_of(name)][0] != "gauge"


def added_up(several: Iterable[Iterable[Sample]]) -> list[Sample]:
    """The sum of each figure."""
    sums: dict[tuple[str, str], float] = {}
    for samples in several:
        for name, labels, value in samples:
            sums[name, labels] = sums.get((name, labels), 0) + value
    return [(name, labels, value) for (name, labels), value in sums.items()]


def text_of(samples: Iterable[Sample]) -> bytes:
    """The whole page; a figure without a family is a fault of ours."""
    lines: dict[str, list[str]] = {name: [] for name in FAMILIES}
    for name, labels, value in samples:
        shown = repr(float(value)) if value % 1 else str(int(value))
        lines[family_of(name)].append(f"{name}{{{labels}}} {shown}" if labels else f"{name} {shown}")
    page: list[str] = []
    for name, (kind, about) in FAMILIES.items():
        if lines[name]:
            page += [f"# HELP {name} {about}", f"# TYPE {name} {kind}", *lines[name]]
    return ("\n".join(page) + "\n").encode()
