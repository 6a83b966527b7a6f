"""One call: what its wire knows of it, and what is known of it while it runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.approvals import Confirm
from tools.callers import Caller
from tools.catalog import Catalog
from tools.endings import Progress
from tools.kinds.mcp.questions import User
from tools.masking import Masker
from tools.outcome import Trace
from tools.signing import CallSigner
from tools.tool import Tool
from tools.tracing import CameWith


@dataclass(slots=True)
class CallContext:
    """What a wire knows of one call besides name and arguments. `confirm` asks the user, where his client can show a question."""

    hops: int = 0
    idempotency_key: str | None = None
    progress: Progress | None = None
    kept_as: str | None = None
    """Id under which a background call's result is kept, as long as the call is."""
    confirm: Confirm | None = None
    user: User | None = None
    """Whom an MCP upstream may ask while it carries out the call; None where his client shows no forms."""
    shows_apps: bool = False
    """Whether the client shows pages of MCP Apps, which call tools by their server's own names."""
    insists: bool = False
    """An operator's test, which an open circuit doesn't hold back."""
    request_id: str = ""
    """Of the HTTP request that brought it: the same in the answer's header, in logs and in what is recorded."""
    came: CameWith | None = None
    """What a trace goes on from; only where there is a tracer."""
    takes_tasks: bool = False
    """Whether the client takes a task in place of the answer of a call that runs in the background."""


@dataclass(slots=True)
class Call:
    """A call under way. `started` on the monotonic clock."""

    id: str
    caller: Caller
    catalog: Catalog
    tool: Tool
    arguments: Mapping[str, Any]
    context: CallContext
    signer: CallSigner
    trace: Trace
    started: float

    @property
    def masker(self) -> Masker:
        """Hides every secret that was used so far."""
        return self.tool.masker(self.signer.masks)
