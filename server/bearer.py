"""Who sends an HTTP request, from `Authorization: Bearer`, an API key or an access token: the same for /mcp, /sse and /v1."""

from collections.abc import Mapping

from server.access_tokens import AccessTokens
from server.auth import KEY_PREFIX, GuessLimit, Keys
from server.protected_resources import ProtectedResources
from tools.callers import Caller
from tools.errors import MissingPermission, TokenExpired, Unauthenticated

Client = tuple[str, int] | None


class Bearer:
    """`tokens` and `resources` are None where the operator trusts no identity provider."""

    def __init__(
        self, keys: Keys, tokens: AccessTokens | None, resources: ProtectedResources | None, limit: GuessLimit
    ) -> None:
        self._keys, self._tokens, self._resources, self._limit = keys, tokens, resources, limit

    async def caller(self, headers: Mapping[bytes, bytes], client: Client, path: str) -> Caller:
        """`headers` as ASGI has them, `client` its (address, port), `path` the request's.

        Raises Unauthenticated, Forbidden, RateLimited, StorageUnavailable, IdentityProviderUnavailable.
        """
        kind, _, given = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        given = given.strip()
        address = client[0] if client else "unknown"
        try:
            if kind.lower() != "bearer" or not given:
                raise Unauthenticated("an API key is needed: send Authorization: Bearer KEY")
            if self._tokens is None or self._resources is None or given.startswith(KEY_PREFIX):
                return self._keys.peek(given) or await self._keys.caller(given, address)
            resource = self._resources.url(path)
            caller = self._tokens.peek(given, resource)
            if caller is None:
                caller = await self._checked(self._tokens, given, resource, address)
            if not caller.permissions:
                raise MissingPermission(self._resources.needed(path))
            return caller
        except MissingPermission as e:
            self.explain(e, path)
            raise
        except Unauthenticated as e:
            if self._resources is not None:
                wrong = {"error": "invalid_token", "description": e.message} if given else {}
                e.challenge = self._resources.challenge(path, **wrong)
            raise

    async def _checked(self, tokens: AccessTokens, token: str, resource: str, address: str) -> Caller:
        try:
            caller = await tokens.caller(token, resource)
        except TokenExpired:
            raise  # a client that was here before: it must hear 401 to get itself a new one
        except Unauthenticated:
            self._limit.check(address)
            self._limit.failed(address)
            raise
        return caller

    async def renew(self) -> None:
        """Fetches the identity providers' keys again where that is due. Never raises."""
        if self._tokens is not None:
            await self._tokens.renew()

    def explain(self, error: MissingPermission, path: str) -> None:
        """Adds to what an access token lacks which scope would give it (RFC 6750 3.1)."""
        if self._resources is not None:
            error.challenge = self._resources.challenge(
                path, error="insufficient_scope", description=error.message, permission=error.permission
            )
