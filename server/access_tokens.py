"""Access tokens (JWTs) of the operator's identity providers: checked whole once, then known by their hash until they end.

RFC 9068 (the profile), RFC 8725 (best practices), rules H3. Only the issuer's own keys count: what a token says about keys
(`jku`, `x5u`, `jwk`, `x5c`) is never read. What is wrong with a token's form, issuer, audience or time is 401; a sound token
that says no workspace, or two, is 403.
"""

import base64
import binascii
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any, NoReturn

import jwt

from server.identity_providers import Claim, IdentityProvider
from server.issuer_keys import IssuerKeys
from tools.callers import Caller, Permission
from tools.errors import Forbidden, TokenExpired, Unauthenticated

SKEW_S = 60.0
_LONGEST = 16 * 1024
_MOST_KNOWN = 10_000
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_SUBJECT = 255  # OpenID Connect Core 2
_LAST = datetime.max.replace(tzinfo=UTC).timestamp() - 86_400
# What tokens that aren't access tokens say of themselves: ID tokens (OpenID Connect Core 2), Keycloak's `typ`, Cognito's `token_use`.
_ID_TOKEN_ONLY = ("nonce", "at_hash", "c_hash")
_ACCESS_WORDS = {"typ": ("bearer", "at+jwt"), "token_use": ("access",)}


@dataclass(frozen=True, slots=True)
class Issuer:
    """A provider and its keys."""

    provider: IdentityProvider
    keys: IssuerKeys


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    ends: float
    keys: IssuerKeys
    key_id: str


@dataclass(frozen=True, slots=True)
class _Token:
    """A token as it is written, nothing of it believed yet."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    twice: frozenset[str]
    """Claims that stand there more than once."""


class AccessTokens:
    """`workspace_id` gives a workspace's id as it was first written, None where there is no such one; `now` is UTC."""

    def __init__(
        self,
        issuers: Sequence[Issuer],
        workspace_id: Callable[[str], Awaitable[str | None]],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._issuers = {issuer.provider.issuer: issuer for issuer in issuers}
        self._workspace_id, self._now = workspace_id, now
        self._known: OrderedDict[tuple[bytes, str], _Known] = OrderedDict()

    def peek(self, token: str, resource: str) -> Caller | None:
        """The caller if this token was checked for this resource and still holds: no await, for the path of a call."""
        key = (_digest(token), resource)
        known = self._known.get(key)
        if known is None:
            return None
        if known.ends <= self._now().timestamp() or not known.keys.has(known.key_id):
            del self._known[key]
            return None
        return known.caller

    async def caller(self, token: str, resource: str) -> Caller:
        """Who holds the token, checked for `resource` (its URL).

        Raises Unauthenticated, Forbidden, IdentityProviderUnavailable, StorageUnavailable.
        """
        written = _parsed(token)
        issuer = self._issuer(written)
        provider, claims = issuer.provider, written.claims
        _check_type(provider, written)
        _check_audience(claims.get("aud"), provider.audiences or (resource,))
        ends = self._check_times(claims)
        alg, kid = _algorithm(provider, written.header), _kid(written.header)
        key = await issuer.keys.find(kid, alg)
        try:
            jwt.PyJWS(algorithms=[alg]).decode_complete(token, key.key, algorithms=[alg])  # pyright: ignore[reportUnknownMemberType]
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            _refuse("its signature isn't its issuer's")
        caller = await self._caller(provider, written, datetime.fromtimestamp(ends, UTC))
        self._known[_digest(token), resource] = _Known(caller, ends, issuer.keys, key.id)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return caller

    async def renew(self) -> None:
        """Fetches the keys that are due. Never raises."""
        for issuer in self._issuers.values():
            await issuer.keys.renew()

    async def aclose(self) -> None:
        for issuer in self._issuers.values():
            await issuer.keys.aclose()

    def _issuer(self, token: _Token) -> Issuer:
        name = token.claims.get("iss")
        found = self._issuers.get(name) if isinstance(name, str) else None
        return found or _refuse("its issuer isn't one that this server trusts (iss is compared as a string)")

    def _check_times(self, claims: Mapping[str, Any]) -> float:
        """When it ends. Raises Unauthenticated."""
        now = self._now().timestamp()
        ends, begins, issued = (_moment(claims, name) for name in ("exp", "nbf", "iat"))
        if ends is None:
            _refuse("it has no exp")
        if ends + SKEW_S <= now:
            raise TokenExpired("the access token has expired: get a new one")
        if max(begins or 0.0, issued or 0.0) - SKEW_S > now:
            _refuse("it isn't valid yet (nbf or iat is in the future)")
        return min(ends, _LAST)

    async def _caller(self, provider: IdentityProvider, token: _Token, ends: datetime) -> Caller:
        claims = token.claims
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject.isprintable() or not 0 < len(subject) <= _LONGEST_SUBJECT:
            _refuse("it has no sub that can name a caller")
        words = [word for claim in provider.scope_claims for word in _words(_value(claims, claim))]
        given = [right for scope in words for right in provider.scopes.get(scope, ())]
        permissions = frozenset[Permission]().union(*(provider.permissions(scope) for scope in words))
        return Caller(
            id=f"{provider.issuer} {subject}",
            workspace=await self._workspace(provider, token),
            kind="token",
            role="owner" if "owner" in given else "admin" if "admin" in given else "agent",
            permissions=permissions,
            integrations=_narrowed(claims, provider.integrations_claim),
            tools=_narrowed(claims, provider.tools_claim),
            ends=ends,
        )

    async def _workspace(self, provider: IdentityProvider, token: _Token) -> str:
        """Raises Forbidden, StorageUnavailable."""
        wanted = provider.workspace or _single(token, provider.workspace_claim)
        found = await self._workspace_id(wanted)
        if found is None:
            raise Forbidden("the access token is for a workspace that this server doesn't have")
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _refuse(why: str) -> NoReturn:
    raise Unauthenticated(f"the access token can't be used: {why}")


def _parsed(token: str) -> _Token:
    """Raises Unauthenticated for all that isn't a signed JWT of three parts (an encrypted one has five)."""
    parts = token.split(".")
    if len(token) > _LONGEST:
        _refuse(f"it is longer than {_LONGEST} characters")
    if len(parts) != 3 or not all(_SEGMENT.fullmatch(part) for part in parts):
        _refuse("it isn't a signed JWT of three parts")
    header, twice_there = _object_of(parts[0])
    claims, twice = _object_of(parts[1])
    if twice_there:
        _refuse("its header says something twice")
    if "crit" in header or "b64" in header or "zip" in header:
        _refuse("its header asks for extensions that this server doesn't know")
    if "cnf" in claims:
        _refuse("it is bound to a key of its holder (cnf), which Bearer doesn't prove")
    return _Token(header, claims, twice)


def _object_of(segment: str) -> tuple[dict[str, Any], frozenset[str]]:
    """The JSON object of a part and the names that are in it twice. Raises Unauthenticated."""
    twice: set[str] = set()

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            names = [name for name, _ in pairs]
            twice.update(name for name in names if names.count(name) > 1)
        return made

    def no_number(word: str) -> NoReturn:
        raise ValueError(f"{word} isn't JSON")

    try:
        text = base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
        value: Any = json.loads(text, object_pairs_hook=collect, parse_constant=no_number)
    except (binascii.Error, ValueError, RecursionError):
        _refuse("one of its parts isn't JSON in base64url")
    if not isinstance(value, dict):
        _refuse("one of its parts isn't a JSON object")
    return value, frozenset(twice)  # pyright: ignore[reportUnknownVariableType] - JSON's keys are text


def _algorithm(provider: IdentityProvider, header: Mapping[str, Any]) -> str:
    alg = header.get("alg")
    if not isinstance(alg, str) or alg not in provider.algorithms:
        _refuse("its alg isn't one that is allowed for its issuer")
    return alg


def _kid(header: Mapping[str, Any]) -> str | None:
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        _refuse("its kid isn't text")
    return kid


def _check_type(provider: IdentityProvider, token: _Token) -> None:
    """RFC 9068 4: an ID token, or a token for something else, says so in `typ`. Raises Unauthenticated."""
    typ = token.header.get("typ", "JWT")
    said = typ.lower().removeprefix("application/") if isinstance(typ, str) else ""
    if said not in {t.lower() for t in provider.token_types}:
        _refuse(f"its typ isn't {' or '.join(provider.token_types)}")
    claims = token.claims
    for name, words in _ACCESS_WORDS.items():
        if name in claims and str(claims[name]).lower() not in words:
            _refuse("it isn't an access token")
    if any(name in claims for name in _ID_TOKEN_ONLY):
        _refuse("it is an ID token, not an access token")


def _check_audience(given: Any, wanted: Sequence[str]) -> None:
    audiences: list[Any] = given if isinstance(given, list) else [given]  # pyright: ignore[reportUnknownVariableType]
    if not any(audience in wanted for audience in audiences if isinstance(audience, str)):
        _refuse(f"it isn't for this resource: aud must hold {' or '.join(wanted)}")


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    """Seconds since 1970. Raises Unauthenticated for what is no such number."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15 or not isfinite(value):
        _refuse(f"its {name} isn't a time")
    return float(value)


def _value(claims: Mapping[str, Any], claim: Claim) -> Any:
    """A claim's value by its name, or by a path into objects; None where there is none."""
    found: Any = claims
    for name in (claim,) if isinstance(claim, str) else claim:
        found = found.get(name) if isinstance(found, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return found  # pyright: ignore[reportUnknownVariableType]


def _words(value: Any) -> list[str]:
    """A list of words, or one text with blanks between (RFC 8693 4.2)."""
    if isinstance(value, str):
        return value.split()
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def _single(token: _Token, claim: Claim) -> str:
    """The one workspace that the token names. Raises Forbidden."""
    value = _value(token.claims, claim)
    names: list[Any] = value if isinstance(value, list) else [] if value is None else [value]  # pyright: ignore[reportUnknownVariableType]
    path = (claim,) if isinstance(claim, str) else claim
    if len(names) != 1 or not isinstance(names[0], str) or not token.twice.isdisjoint(path):
        shown = ".".join(path)
        raise Forbidden(f"the access token names {'no' if not names else 'no single'} workspace in {shown}")
    return names[0]


def _narrowed(claims: Mapping[str, Any], claim: Claim) -> frozenset[str] | None:
    """None without such a claim in the setting; a token that lacks it then sees nothing."""
    return frozenset(_words(_value(claims, claim))) if claim else None
