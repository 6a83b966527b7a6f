"""A caller's own idempotency keys: bound to caller, tool and arguments for a day (rules F2)."""

import hashlib
import re
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

KEPT_FOR = timedelta(hours=24)
CALLERS_KEY = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True, slots=True)
class KeyUse:
    """`key` names (caller, tool, the caller's key), `arguments` what it was used for; both are SHA-256 in hex."""

    key: str
    arguments: str

    @classmethod
    def of(cls, workspace: str, caller: str, integration: str, endpoint: str, key: str, arguments: str) -> "KeyUse":
        """`arguments` as JSON with sorted keys."""
        whose = "\n".join((workspace.lower(), caller, integration, endpoint, key))
        return cls(_hashed(whose), _hashed(arguments))

    @property
    def sent(self) -> str:
        """The Idempotency-Key that the upstream gets: the same whenever the caller gives the same key."""
        return str(uuid.UUID(self.key[:32]))


class CallKeys(Protocol):
    """Which keys were used for which arguments, shared by all processes."""

    async def claim(self, use: KeyUse, now: datetime) -> bool:
        """Binds the key for KEPT_FOR; False where it is bound to other arguments. Raises StorageUnavailable."""
        ...


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
