"""The Idempotency-Key that a write is sent with: ours, or made of the caller's own (rules F2)."""

import json
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from tools.callers import Caller
from tools.errors import ArgumentFault, InvalidArguments, RegistryUnavailable, StorageUnavailable
from tools.idempotency import CALLERS_KEY, CallKeys, KeyUse
from tools.tool import Tool

_NAME = "_meta.idempotency_key"


class SentKeys:
    """Makes the keys; the callers' own are bound to their arguments in `call_keys`."""

    def __init__(self, call_keys: CallKeys, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._call_keys, self._now = call_keys, now

    async def key_for(self, caller: Caller, tool: Tool, values: Mapping[str, Any], given: str | None) -> str | None:
        """The key of all attempts of a write; None where the method needs none. Raises InvalidArguments, RegistryUnavailable.

        The caller's own key is never sent: what is sent is made of it, so that two callers or tools with one key don't meet.
        """
        if given is None or not tool.writes:
            return str(uuid.uuid4()) if tool.plan.method in ("POST", "PATCH") else None
        if not CALLERS_KEY.fullmatch(given):
            raise _refused(tool, "is 1 to 255 characters of printable ASCII without blanks.")
        arguments = json.dumps(values, sort_keys=True)
        use = KeyUse.of(caller.workspace, caller.id, tool.integration.id, tool.endpoint.name, given, arguments)
        try:
            fits = await self._call_keys.claim(use, self._now())
        except StorageUnavailable as e:
            raise RegistryUnavailable(e.message) from None
        if not fits:
            raise _refused(tool, "was used for other arguments before: give a new key, or the same arguments.")
        return use.sent if tool.plan.method in ("POST", "PATCH") else None


def _refused(tool: Tool, what: str) -> InvalidArguments:
    return InvalidArguments([ArgumentFault(_NAME, what)], tool.arguments.names)
