"""How a call is traced, where an operator wants that: what the gateway tells a tracer (`server.tracing` is one).

Where there is no tracer nothing here runs. A tracer is never given an argument, an answer or the value of a header.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tools.masking import Masker
from tools.upstream import Attempt

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CameWith:
    """What a wire says of a request: W3C Trace Context as it came (not checked yet), and attributes by the conventions for MCP."""

    traceparent: str | None = None
    tracestate: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Called:
    """What a trace shows of the tool: its name, and method and URL as the endpoint has them, with {placeholders} for arguments."""

    tool: str
    protocol: str
    method: str
    url: str


class CallSpan(Protocol):
    """One call while it runs."""

    def sending(self) -> Headers:
        """An attempt begins: the headers that carry the trace on to the upstream."""
        ...

    def carried(self) -> Mapping[str, str]:
        """The same for `_meta` of a request to an MCP upstream (semantic conventions of MCP, context propagation)."""
        ...

    def ended(self, code: str | None, masker: Masker) -> None:
        """The call has ended; `code` is None for a success."""
        ...


class Tracer(Protocol):
    """Begins a span for each call; `attempts` is filled while it runs."""

    def begin(self, called: Called, call_id: str, attempts: Sequence[Attempt], came: CameWith | None) -> CallSpan: ...
