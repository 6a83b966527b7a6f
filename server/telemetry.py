"""Log lines on stderr (stdout belongs to stdio): one line each, for people on a terminal and as JSON elsewhere."""

import logging
import sys
from typing import Any

import structlog

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def set_up_logs(level: str) -> None:
    """Both structlog's and the standard library's loggers write to stderr in one shape."""
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_values,
    ]
    on_terminal = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if on_terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=processors,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries' debug lines can hold requests and answers: they stay at warning whatever our own level is.
    root.setLevel(max(logging.WARNING, _LEVELS[level]))


def _without_values(_: Any, __: str, event: Any) -> Any:
    """Exceptions are logged by type and place, never with their text: it can quote a request, an answer or a secret."""
    fault = event.pop("exc_info", None)
    if isinstance(fault, BaseException):
        event["at"] = _place(fault)
    elif fault:
        current = sys.exc_info()[1]
        if current is not None:
            event["fault"], event["at"] = type(current).__name__, _place(current)
    return event


def _place(fault: BaseException) -> str:
    frames: list[str] = []
    trace = fault.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " < ".join(reversed(frames[-6:]))
