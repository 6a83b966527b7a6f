"""Log lines on stderr (stdout belongs to stdio): one line each, for people on a terminal and as JSON elsewhere.

On the standard library's logging: structlog would bring rich and a tenth of a second to every start.
"""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def exports(signal: str, environ: Mapping[str, str]) -> bool:
    """Whether the standard variables of OpenTelemetry name a receiver for TRACES or METRICS."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    to = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    return bool(to) and "otlp" in environ.get(f"OTEL_{signal}_EXPORTER", "otlp").split(",")


def is_traced(environ: Mapping[str, str]) -> bool:
    """Whether `server.tracing` is wanted and can be had; what stands in the way is a warning, since OTEL_* may be meant for others."""
    if not exports("TRACES", environ) and not exports("METRICS", environ):
        return False
    log = Log("integrations_mcp")
    if (protocol := environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")) != "http/protobuf":
        log.warning("no traces: OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf", protocol=protocol)
        return False
    if find_spec("opentelemetry.sdk") is None or find_spec("opentelemetry.exporter") is None:
        log.warning("no traces: OTEL_* names a receiver, but the extra isn't installed: integrations-mcp[otel]")
        return False
    return True


class Log:
    """A logger whose lines are an event and fields: `log.warning("registry is away", reason=...)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        self._logger.debug(event, extra={"fields": fields})

    def is_on(self, level: int) -> bool:
        """Whether a line of this level is written at all: asked where making one would cost."""
        return self._logger.isEnabledFor(level)

    def info(self, event: str, **fields: Any) -> None:
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: Any) -> None:
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, *, exc_info: BaseException | None = None, **fields: Any) -> None:
        self._logger.error(event, exc_info=exc_info, extra={"fields": fields})


def set_up_logs(level: str) -> None:
    """Every logger of the process writes to stderr in one shape."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(for_people=sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries' debug lines can hold requests and answers: they stay at warning whatever our own level is.
    root.setLevel(max(logging.WARNING, _LEVELS[level]))
    logging.getLogger("integrations_mcp").setLevel(_LEVELS[level])


class _Lines(logging.Formatter):
    """Exceptions are told by type and place, never with their text: it can quote a request, an answer or a secret."""

    def __init__(self, *, for_people: bool) -> None:
        super().__init__()
        self._for_people = for_people

    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        fault = record.exc_info[1] if record.exc_info else None
        if fault is not None:
            row.setdefault("fault", type(fault).__name__)
            row["at"] = _place(fault)
        if not self._for_people:
            return json.dumps(row, ensure_ascii=False, default=str)
        fields = " ".join(
            f"{name}={value}" for name, value in row.items() if name not in ("timestamp", "level", "event")
        )
        return f"{row['timestamp'][11:19]} {row['level']:<7} {row['event']} {fields}".rstrip().replace("\n", " ")


def _place(fault: BaseException) -> str:
    frames: list[str] = []
    trace = fault.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " < ".join(reversed(frames[-6:]))
