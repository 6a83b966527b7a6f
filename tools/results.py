"""Results that were cut are kept for a while, for the caller that made the call, so that `get_result` can read on (agents.md)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

KEPT_FOR = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class KeptResult:
    """What a call came to before it was cut. `value` is JSON; `text` what it was written to, both masked; `limit` what it was cut by."""

    id: str
    tool: str
    value: Any
    text: str
    limit: int
    expires_at: datetime


class ResultStore(Protocol):
    """Kept results, encrypted, by workspace and caller."""

    async def keep(self, workspace: str, caller: str, result: KeptResult) -> None:
        """Raises StorageUnavailable."""
        ...

    async def kept(self, workspace: str, caller: str, id: str, now: datetime) -> KeptResult | None:
        """None where there is none, it has expired, or it is another caller's: no difference can be seen."""
        ...
