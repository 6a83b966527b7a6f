"""One table of attacks. An attempt is a payload at an entry point; what it gets through is read at the far end, never from an answer.

    add("address", "redirect", "http://[::ffff:169.254.169.254]/", "address guard", strike)

`strike(ground)` attacks and returns what arrived at the far end: the requests, connections, rows or values that a guard should have
kept away; empty when nothing did. `test_attacks.py` runs every attempt twice: with all guards it must come to nothing, and with the
named guard switched off (`guards.py`) it must get through, or the attempt proves nothing.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tests.security.ground import Ground

Kind = Literal[
    "address",
    "traversal",
    "injection",
    "cross-tenant",
    "privilege",
    "session and token",
    "tool poisoning",
    "exhaustion",
]
Strike = Callable[["Ground"], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """`lenient`: on a gateway whose operator allows all private networks, so that only what is never allowed is refused."""

    kind: Kind
    entry: str
    payload: str
    guard: str
    strike: Strike
    lenient: bool = False

    @property
    def id(self) -> str:
        told = self.payload if self.payload.isascii() and self.payload.isprintable() else ascii(self.payload)
        return f"{self.kind}: {self.entry}: {told[:80]}{' (private allowed)' if self.lenient else ''}"


ATTEMPTS: list[Attempt] = []


def add(kind: Kind, entry: str, payload: str, guard: str, strike: Strike, *, lenient: bool = False) -> None:
    ATTEMPTS.append(Attempt(kind, entry, payload, guard, strike, lenient))


def table(attempts: Iterable[Attempt]) -> str:
    """Attempts by class and guard, as docs/security.md shows them."""
    counted = Counter((a.kind, a.guard) for a in attempts)
    lines = ["| class | guard | attempts |", "|---|---|---|"]
    lines += [f"| {kind} | {guard} | {n} |" for (kind, guard), n in sorted(counted.items())]
    return "\n".join([*lines, f"| | | {sum(counted.values())} |"])


ENTRIES = (
    "base_url",
    "endpoint base_url",
    "token_url",
    "discovered token_endpoint",
    "STS URL",
    "impersonation URL",
    "mcp_url",
    "mcp_url (SSE)",
    "SSE endpoint event",
    "redirect",
    "next link",
    "IdP JWKS",
    "importer URL",
    "importer redirect",
    "imported base_url",
    "imported curl line",
    "test-connection",
    "health check",
)
"""Where a host is named, or led to."""
HOST_GUARDS = (
    "address guard",
    "URL shape",
    "https for credentials",
    "redirect rules",
    "the operator's list of hosts",
    "a proxy is asked for addresses",
)


def matrix(attempts: Iterable[Attempt]) -> dict[tuple[str, str], int]:
    """How many attempts there are for each (entry point, guard of hosts); "stored X" is X as it was written before the guard."""
    counted = Counter((a.entry.removeprefix("stored "), a.guard) for a in attempts)
    return {(entry, guard): counted[entry, guard] for entry in ENTRIES for guard in HOST_GUARDS}
