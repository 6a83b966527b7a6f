"""The credential of every type that mints: reads its secrets, asks the token cache, and says the way that was gone."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime

from tools.credentials.authorization import Authorization
from tools.credentials.keys import SigningKey, read_signing_key
from tools.credentials.parts import CredentialParts
from tools.credentials.scopes import missing
from tools.credentials.token_answer import TokenAnswer
from tools.credentials.token_cache import Held, Token, TokenKey
from tools.credentials.token_endpoint import Trail
from tools.errors import Misconfigured
from tools.jwks import KeyFault
from tools.models import AuthConfig
from tools.secrets import Secret
from tools.upstream import Answer

Secrets = Mapping[str, Secret]
"""The secrets of one mint by path: one consistent set from beginning to end (rules A4)."""
Minting = Callable[[Secrets, Trail], Awaitable[Token]]


class MintedCredential:
    """`minting` makes one token out of the secrets under `paths`; everything else is the same for all types."""

    def __init__(self, auth: AuthConfig, parts: CredentialParts, paths: Sequence[str], minting: Minting) -> None:
        self._type, self._parts, self._paths, self._minting = auth.type, parts, tuple(paths), minting
        # base_url because discovery starts there; Google's endpoints because the operator can change them (rules B4).
        effective = f"{auth.model_dump_json()}\n{parts.base_url}\n{parts.public_url}\n{parts.google}"
        self._config = hashlib.sha256(effective.encode()).hexdigest()
        self._trail: Trail = {}
        self._made: Authorization | None = None

    async def authorize(self) -> Authorization:
        secrets, key = await self._secrets()
        held = await self._parts.tokens.token(key, lambda: self._mint(secrets))
        return self._authorization(held, key)

    async def rejected(self, used: Authorization, answer: Answer) -> bool:
        """403 never mints, nor does a 401 that asks for more scope: a fresh token would have the same (rules B7)."""
        if answer.status != 401 or "insufficient_scope" in answer.headers.get("www-authenticate", ""):
            return False
        _, key = await self._secrets()
        return self._parts.tokens.reject(key, used.value.removeprefix("Bearer "))

    def explain(self) -> dict[str, object]:
        """The way of the last mint in this process, also of one that failed."""
        return dict(self._trail)

    async def _secrets(self) -> tuple[dict[str, Secret], TokenKey]:
        parts = self._parts
        secrets = {path: await parts.reader.read(path, parts.versions.get(path)) for path in self._paths}
        versions = tuple(secret.version for secret in secrets.values())
        return secrets, TokenKey(parts.workspace, parts.integration_id, self._config, versions)

    async def _mint(self, secrets: Secrets) -> Token:
        trail: Trail = {"type": self._type, "secret_paths": list(self._paths)}
        self._trail = trail
        begun = self._parts.tokens.timing.wall()
        token = await self._minting(secrets, trail)
        trail["expires_in_s"] = token.life_s
        trail["expires_at"] = datetime.fromtimestamp(begun + max(token.life_s, 0), UTC).isoformat(timespec="seconds")
        return token

    def _authorization(self, held: Held, key: TokenKey) -> Authorization:
        value = f"Bearer {held.token.value}"
        made = self._made
        if made is not None and held.hit and made.value == value and made.source == "cached_token":
            return made
        made = Authorization(
            header="Authorization",
            value=value,
            version=hashlib.sha256(value.encode()).hexdigest()[:12],
            source="cached_token" if held.hit else "minted_token",
            masks=held.token.masks,
            explain=held.token.explain | {"cache": "hit" if held.hit else "mint"},
            more=held.token.more,
            may_go_to=held.token.may_go_to,
        )
        if held.hit:
            self._made = made
            self._trail = self._trail or made.explain  # minted by the credential of an earlier catalog version
        return made


def note_scopes(trail: Trail, asked: Sequence[str], answer: TokenAnswer) -> None:
    """Asked, granted and missing scopes, and what else the answer made us assume (rules B2, B3)."""
    lacking = missing(asked, answer.scope)
    granted = list(asked) if answer.scope is None else answer.scope.split()
    trail["scopes"] = {"asked": list(asked), "granted": granted, "missing": list(lacking)}
    warn(trail, answer.warnings)
    if lacking:
        warn(trail, [f"the server did not grant {' '.join(lacking)}"])


def warn(trail: Trail, warnings: Sequence[str]) -> None:
    before = trail.get("warnings")
    kept: list[object] = before if isinstance(before, list) else []  # pyright: ignore[reportUnknownVariableType] - ours
    if kept or warnings:
        trail["warnings"] = [*kept, *(w for w in warnings if w not in kept)]


class KeyReader:
    """Parses the private key once per secret version: reading a PEM costs more than signing with it."""

    def __init__(self, auth: AuthConfig, path: str) -> None:
        self._auth, self._path = auth, path
        self._kept: tuple[Secret, SigningKey] | None = None

    def key(self, secrets: Secrets) -> SigningKey:
        """Raises Misconfigured with the sentence that writing would have said (rules C1)."""
        secret = secrets[self._path]
        if self._kept is None or self._kept[0] != secret:
            try:
                self._kept = (secret, read_signing_key(self._auth, secret.value))
            except KeyFault as fault:
                raise Misconfigured(f"the key under {self._path} can't sign: {fault}") from None
        return self._kept[1]
