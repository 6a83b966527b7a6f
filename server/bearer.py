"""Who sends an HTTP request, from `Authorization: Bearer KEY`: the same for /mcp and /v1."""

from collections.abc import Mapping

from server.auth import Keys
from tools.callers import Caller
from tools.errors import Unauthenticated


async def bearer_caller(keys: Keys, headers: Mapping[bytes, bytes], client: tuple[str, int] | None) -> Caller:
    """`headers` as ASGI has them, `client` its (address, port). Raises Unauthenticated, RateLimited, StorageUnavailable."""
    kind, _, api_key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    api_key = api_key.strip()
    if kind.lower() != "bearer" or not api_key:
        raise Unauthenticated("an API key is needed: send Authorization: Bearer KEY")
    return keys.peek(api_key) or await keys.caller(api_key, client[0] if client else "unknown")
