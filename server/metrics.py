"""Figures for Prometheus: plain numbers counted where things happen, written as text when somebody asks (`metrics_text`).

Our own instead of prometheus_client: that takes 58 ms of each start and 4 to 6 us of each call (labels, locks, mapped files); this
takes under 1 us, and a scrape formats what is there. Labels are bounded: after MOST_SERIES integrations the rest is `_other`, and no
tool, caller or argument is ever a label.
"""

import os
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator

from tools.history import CallRecord

BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
MOST_SERIES = 200
OTHER = "_other"

Sample = tuple[str, str, float]
"""(name, labels as the text between the braces, value)."""
Names = Callable[[str, str], tuple[str, str] | None]
"""(name, protocol) of a workspace's integration by its id; None where it isn't known."""


class _Series:
    """One integration's calls."""

    __slots__ = ("answers", "buckets", "codes", "labels", "retries", "seconds")

    def __init__(self, labels: str) -> None:
        self.labels = labels
        self.codes: dict[str, int] = {}
        self.answers: dict[int, int] = {}
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.seconds = 0.0
        self.retries = 0


class Metrics:
    """What one process counts. `names` is asked once for each integration."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._series: dict[str | None, _Series] = {}
        self._other = _Series(labels(workspace=OTHER, integration=OTHER, protocol=OTHER))
        self._http: dict[tuple[str, int], int] = {}
        self._readers: list[Callable[[], Iterator[Sample]]] = []
        self.requests_running = 0

    def call(self, row: CallRecord) -> None:
        """A call has ended."""
        series = self._series.get(row.integration) or self._new_series(row)
        code = row.error_code or "ok"
        series.codes[code] = series.codes.get(code, 0) + 1
        seconds = row.ms / 1000
        series.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        series.seconds += seconds
        answers = row.answers
        if answers:
            series.retries += len(answers) - 1
            for status, _ in answers:
                status_class = status // 100 if status else 0
                series.answers[status_class] = series.answers.get(status_class, 0) + 1

    def answered(self, route: str, status: int) -> None:
        """An HTTP request to the gateway has got its status."""
        key = (route, status // 100)
        self._http[key] = self._http.get(key, 0) + 1

    def read_also(self, reader: Callable[[], Iterator[Sample]]) -> None:
        """Asked at each scrape: figures that others count or that are what they are at the moment."""
        self._readers.append(reader)

    def samples(self) -> Iterator[Sample]:
        """Everything that adds up over processes."""
        for series in (*self._series.values(), self._other):
            yield from _of_calls(series)
        for (route, status_class), count in self._http.items():
            yield "integrations_mcp_http_requests_total", labels(route=route, status=f"{status_class}xx"), count
        yield "integrations_mcp_http_requests_running", "", self.requests_running
        for reader in self._readers:
            yield from reader()
        yield from _of_process()

    def _new_series(self, row: CallRecord) -> _Series:
        if len(self._series) >= MOST_SERIES:
            return self._other
        name, protocol = "", ""
        if row.integration is not None:
            name, protocol = self._names(row.workspace, row.integration) or (row.integration, "")
        workspace = row.workspace if row.integration is not None else ""
        series = _Series(labels(workspace=workspace, integration=name, protocol=protocol))
        self._series[row.integration] = series
        return series


def labels(**given: str) -> str:
    """Prometheus text format: backslash, quote and line feed are escaped."""
    escaped = {n: v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for n, v in given.items()}
    return ",".join(f'{n}="{v}"' for n, v in escaped.items())


def _of_calls(series: _Series) -> Iterator[Sample]:
    codes: dict[str, int] = {}
    for code, count in series.codes.items():
        # An upstream chooses its status: one label for a hundred of them.
        status = code.removeprefix("upstream_")
        code = f"upstream_{status[0]}xx" if code != status and status.isdecimal() else code
        codes[code] = codes.get(code, 0) + count
    for code, count in codes.items():
        yield "integrations_mcp_calls_total", f'{series.labels},code="{code}"', count
    for status_class, count in series.answers.items():
        shown = f"{status_class}xx" if status_class else "none"
        yield "integrations_mcp_upstream_attempts_total", f'{series.labels},status="{shown}"', count
    if not codes:
        return
    yield "integrations_mcp_upstream_retries_total", series.labels, series.retries
    total = 0
    for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), series.buckets, strict=True):
        total += count
        yield "integrations_mcp_call_duration_seconds_bucket", f'{series.labels},le="{bound}"', total
    yield "integrations_mcp_call_duration_seconds_sum", series.labels, series.seconds
    yield "integrations_mcp_call_duration_seconds_count", series.labels, total


def _of_process() -> Iterator[Sample]:
    times = os.times()
    yield "process_cpu_seconds_total", "", times.user + times.system
    yield "integrations_mcp_workers", "", 1
    if sys.platform == "linux":
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[1])
        yield "process_resident_memory_bytes", "", pages * os.sysconf("SC_PAGE_SIZE")
        yield "process_open_fds", "", len(os.listdir("/proc/self/fd"))


STARTED = time.time()
