"""What hosts do to tools, in one dated table. Host behaviour moves: change the figure together with its date.

`source`: "measured" by us, "issue" a public issue thread of the host, "unchecked" said somewhere. None: no limit known.
Prefixes are for the server key `gateway`. See docs/host-compatibility.md.
"""

from dataclasses import dataclass
from typing import Literal

AS_OF = "2026-11"

Source = Literal["measured", "issue", "unchecked"]


@dataclass(frozen=True, slots=True)
class Host:
    """Limits of one host: `name_chars` counts `prefix` too; `timeout_s` is when it stops waiting for a call."""

    name: str
    source: Source
    prefix: str = ""
    name_chars: int | None = None
    tools: int | None = None
    tools_are_hard: bool = False
    description_bytes: int | None = None
    result_chars: int | None = None
    timeout_s: float | None = None
    first_page_only: bool = False
    reads: Literal["text", "structured", "both", "unknown"] = "unknown"


HOSTS: tuple[Host, ...] = (
    Host(
        "Claude Code",
        "issue",
        prefix="mcp__gateway__",
        name_chars=64,
        description_bytes=2048,
        result_chars=50_000,
        reads="structured",
    ),
    Host("Claude Desktop", "issue", name_chars=64, result_chars=1_000_000, first_page_only=True, reads="text"),
    Host("claude.ai", "issue", name_chars=64, first_page_only=True, reads="text"),
    Host(
        "Codex", "issue", prefix="mcp__gateway__", name_chars=64, timeout_s=60, first_page_only=True, reads="structured"
    ),
    Host("Copilot CLI", "issue", name_chars=64, reads="both"),
    Host("Cursor", "issue", prefix="gateway:", name_chars=60, tools=40, timeout_s=60, reads="text"),
    Host("VS Code", "issue", name_chars=64, tools=128, tools_are_hard=True, reads="structured"),
    Host("Windsurf", "unchecked", name_chars=64, tools=100),
    Host("OpenAI API", "unchecked", name_chars=64, description_bytes=1024),
    Host("Gemini API", "unchecked", name_chars=64),
    Host("TypeScript SDK client", "measured", timeout_s=60),
)


def hosts_over(tools: int) -> tuple[Host, ...]:
    """The hosts whose limit a list of this many tools is over."""
    return tuple(h for h in HOSTS if h.tools is not None and tools > h.tools)
