"""The public keys of one issuer: found by its metadata, fetched once, kept, and fetched again when they may have changed.

Known keys are renewed every 5 minutes beside the requests, so that one taken out ends by itself. A `kid` that isn't there makes us
ask again, at most once a minute. While the issuer can't be asked, its last keys hold for a day (rules H3).
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from server.identity_providers import IdentityProvider, may_fetch
from server.telemetry import Log
from tools.errors import CallError, IdentityProviderUnavailable, Unauthenticated
from tools.exchange import Request
from tools.upstream import Limits, Upstream

RENEW_S = 300.0
ASK_AGAIN_S = 60.0
_RETRY_WITHOUT_KEYS_S = 5.0
_HOLD_S = 24 * 3600.0
_ALL_S = 10.0
_LIMITS = Limits(deadline_s=5.0, max_bytes=256 * 1024, redirects=0)
_MOST_KEYS = 100
_RSA_BITS = range(2048, 8193)
_CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
log = Log("integrations_mcp")

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """One key of a JWKS. `id` says the same for the same key, however often it is fetched."""

    id: str
    kid: str | None
    alg: str | None
    key: PublicKey

    def fits(self, alg: str) -> bool:
        """Whether a signature with `alg` may be this key's (RFC 7518 3.1, RFC 8037)."""
        if self.alg not in (None, alg) and not (self.alg == "Ed25519" and alg == "EdDSA"):
            return False
        match self.key:
            case rsa.RSAPublicKey():
                return alg.startswith(("RS", "PS"))
            case ec.EllipticCurvePublicKey():
                return _CURVES.get(alg) == self.key.curve.name
            case _:
                return alg == "EdDSA"


class KeysUnavailable(Exception):
    """The issuer's keys can't be had; str() says why, for operators."""


class _Missing(KeysUnavailable):
    """There is no such document."""


class IssuerKeys:
    """`private_allowed` as `may_fetch` means it; `clock` is monotonic seconds."""

    def __init__(
        self,
        provider: IdentityProvider,
        upstream: Upstream,
        *,
        private_allowed: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider, self._upstream, self._private_allowed, self._clock = provider, upstream, private_allowed, clock
        self._keys: tuple[IssuerKey, ...] = ()
        self._ids: frozenset[str] = frozenset()
        self._good_at: float | None = None
        self._tried_at: float | None = None
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None

    def has(self, key_id: str) -> bool:
        """Whether this key is still one of the issuer's, as far as is known."""
        return key_id in self._ids

    async def find(self, kid: str | None, alg: str) -> IssuerKey:
        """The key for a token's header. Raises Unauthenticated, and IdentityProviderUnavailable where it can't be told."""
        key = self._known(kid, alg)
        if key is None:
            await self._ask()
            key = self._known(kid, alg)
        if key is not None:
            return key
        if self._failed:
            wait = ASK_AGAIN_S if self._ids else _RETRY_WITHOUT_KEYS_S
            raise IdentityProviderUnavailable("the identity provider's keys can't be fetched at the moment", wait)
        raise Unauthenticated("the access token is signed with a key that its issuer doesn't publish")

    async def renew(self) -> None:
        """Fetches the keys again where they were needed before and are older than `RENEW_S`. Never raises."""
        if self._tried_at is not None and self._clock() - self._tried_at >= RENEW_S:
            await self._fetch_once()

    async def aclose(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _known(self, kid: str | None, alg: str) -> IssuerKey | None:
        if self._good_at is None or self._clock() - self._good_at >= _HOLD_S:
            return None
        found = [k for k in self._keys if k.fits(alg) and (kid is None or k.kid == kid)]
        return found[0] if len(found) == 1 else None

    async def _ask(self) -> None:
        """Fetches, unless that was tried a moment ago; everybody who waits, waits for the same fetch."""
        pause = ASK_AGAIN_S if self._ids else _RETRY_WITHOUT_KEYS_S
        if self._fetching is None and self._tried_at is not None and self._clock() - self._tried_at < pause:
            return
        await self._fetch_once()

    async def _fetch_once(self) -> None:
        # A task of its own: a caller that leaves must neither end the fetch for the others nor begin one after another.
        if self._fetching is None:
            self._tried_at = self._clock()
            self._fetching = asyncio.ensure_future(self._fetch())
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            keys = await self.published()
        except KeysUnavailable as e:
            self._failed = True
            log.warning("keys of an identity provider can't be fetched", issuer=self._provider.issuer, reason=str(e))
        else:
            self._failed, self._good_at = False, self._clock()
            self._keys, self._ids = keys, frozenset(k.id for k in keys)
        finally:
            self._fetching = None

    async def published(self) -> tuple[IssuerKey, ...]:
        """What the issuer publishes now; what is kept stays as it is. Raises KeysUnavailable."""
        try:
            async with asyncio.timeout(_ALL_S):
                return _keys_of(await self._document(self._provider.jwks_url or await self._discovered()))
        except CallError as e:
            raise KeysUnavailable(f"{e.message} ({e.detail})" if e.detail else e.message) from None
        except TimeoutError:
            raise KeysUnavailable("it didn't answer in time") from None

    async def _discovered(self) -> str:
        """The jwks_uri of the issuer's metadata. Raises CallError, KeysUnavailable."""
        for url in metadata_urls(self._provider.issuer):
            try:
                document = await self._document(url)
            except _Missing:
                continue
            # RFC 8414 3.3: it must be about this issuer, else somebody else's keys would speak for it.
            if document.get("issuer") != self._provider.issuer:
                raise KeysUnavailable(f"{url} is about another issuer, {str(document.get('issuer'))[:200]!r}")
            found: Any = document.get("jwks_uri")
            if not isinstance(found, str) or not may_fetch(found, self._private_allowed):
                raise KeysUnavailable(f"{url} names no jwks_uri with https")
            return found
        raise KeysUnavailable("there is no metadata under its well-known addresses")

    async def _document(self, url: str) -> dict[str, Any]:
        request = Request("GET", url, (("Accept", "application/json"),))
        answer = await self._upstream.send(request, pool="", limits=_LIMITS)
        if 400 <= answer.status < 500:
            raise _Missing(f"{url} answers {answer.status}")
        if answer.status != 200:
            raise KeysUnavailable(f"{url} answers {answer.status}")
        try:
            value: Any = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            raise KeysUnavailable(f"{url} answers no JSON") from None
        if not isinstance(value, dict):
            raise KeysUnavailable(f"{url} answers no JSON object")
        return value  # pyright: ignore[reportUnknownVariableType] - JSON's keys are text


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """Where an issuer's metadata may be, in the order of the MCP specification (RFC 8414 3.1, OpenID Connect Discovery 4)."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    urls = [
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{origin}/.well-known/openid-configuration{path}",
        f"{origin}{path}/.well-known/openid-configuration",
    ]
    return tuple(dict.fromkeys(urls))


def _keys_of(document: dict[str, Any]) -> tuple[IssuerKey, ...]:
    """What can verify. Secret, private, encrypting, weak and unknown keys are left out. Raises KeysUnavailable where nothing is left."""
    rows: Any = document.get("keys")
    found = [] if not isinstance(rows, list) else [_key_of(row) for row in rows[:_MOST_KEYS]]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    keys = tuple(key for key in found if key is not None)
    if not keys:
        raise KeysUnavailable("its JWKS has no key that can verify signatures")
    return keys


def _key_of(row: Any) -> IssuerKey | None:
    if not isinstance(row, dict) or row.get("use", "sig") != "sig" or "d" in row:  # pyright: ignore[reportUnknownMemberType]
        return None
    members: dict[str, Any] = row  # pyright: ignore[reportUnknownVariableType] - JSON's keys are text
    operations = members.get("key_ops")
    if isinstance(operations, list) and "verify" not in operations:
        return None
    try:
        match members.get("kty"):
            case "RSA":
                key = RSAAlgorithm.from_jwk(members)
            case "EC":
                key = ECAlgorithm.from_jwk(members)
            case "OKP":
                key = OKPAlgorithm.from_jwk(members)
            case _:
                return None
    except (ValueError, TypeError, KeyError, OverflowError, UnsupportedAlgorithm, jwt.PyJWTError):
        return None
    if not isinstance(key, PublicKey) or (isinstance(key, rsa.RSAPublicKey) and key.key_size not in _RSA_BITS):
        return None
    kid, alg = members.get("kid"), members.get("alg")
    written = orjson.dumps(members, option=orjson.OPT_SORT_KEYS)
    return IssuerKey(
        hashlib.sha256(written).hexdigest(),
        kid if isinstance(kid, str) else None,
        alg if isinstance(alg, str) else None,
        key,
    )
