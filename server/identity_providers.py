"""The noun "identity provider": an issuer of access tokens that the operator trusts, as the setting describes it."""

import ipaddress
from collections.abc import Mapping
from typing import Literal, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tools.callers import ROLE_PERMISSIONS, Permission, Role
from tools.models import WORKSPACE_ID

SigningAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # asymmetric ones alone: with HS256 a public key would be a secret (rules H3)
_ROLES: Mapping[str, frozenset[Permission]] = {**ROLE_PERMISSIONS}
Claim = str | tuple[str, ...]
"""The name of a claim; a list is a path into objects: ["realm_access", "roles"]."""


class IdentityProvider(BaseModel):
    """One entry of `identity_providers`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    issuer: str
    audiences: tuple[str, ...] = ()
    """What `aud` must hold one of; empty is the URL of the resource that is called: PUBLIC_URL with /mcp, /sse or /v1."""
    algorithms: tuple[SigningAlgorithm, ...] = Field(default=("RS256", "PS256", "ES256"), min_length=1)
    jwks_url: str = ""
    """Where the keys are; empty: what the issuer's metadata says (RFC 8414, OpenID Connect Discovery 1.0)."""
    token_types: tuple[Literal["at+jwt", "JWT"], ...] = Field(default=("at+jwt",), min_length=1)
    """The header's `typ`. JWT also takes tokens without one, for issuers that don't follow RFC 9068."""
    workspace: str = Field(default="", pattern=rf"^$|{WORKSPACE_ID}")
    workspace_claim: Claim = ""
    scopes: dict[str, tuple[Role | Permission, ...]] = Field(min_length=1)
    """What each scope lets a caller do: roles and permissions. A scope that isn't here gives nothing."""
    scope_claims: tuple[Claim, ...] = Field(default=("scope", "scp"), min_length=1)
    scope_prefix: str = ""
    """What clients put before a scope to ask for it, where tokens hold it without (Entra: api://ID/)."""
    integrations_claim: Claim = ""
    tools_claim: Claim = ""

    @field_validator("issuer", "jwks_url")
    @classmethod
    def _url(cls, url: str) -> str:
        if url and (not url.startswith(("https://", "http://")) or not urlsplit(url).hostname or set(url) & set(" #")):
            raise ValueError(f"{url!r} is no https URL")
        return url

    @field_validator("scopes")
    @classmethod
    def _scopes(cls, scopes: dict[str, tuple[Role | Permission, ...]]) -> dict[str, tuple[Role | Permission, ...]]:
        for scope in scopes:
            if not scope or not all(c == "!" or "#" <= c <= "[" or "]" <= c <= "~" for c in scope):  # RFC 6749 3.3
                raise ValueError(f"{scope!r} is no scope: one word of ASCII without quotes and backslashes")
        return scopes

    @model_validator(mode="after")
    def _one_workspace(self) -> "IdentityProvider":
        if bool(self.workspace) == bool(self.workspace_claim):
            raise ValueError("give either workspace or workspace_claim")
        return self

    def permissions(self, scope: str) -> frozenset[Permission]:
        """What this scope gives; nothing for one that isn't mapped."""
        found: set[Permission] = set()
        for word in self.scopes.get(scope, ()):
            found |= _ROLES.get(word, frozenset({cast("Permission", word)}))
        return frozenset(found)

    def least_scope(self, permission: str) -> str | None:
        """The scope to ask for that gives this permission with the fewest others."""
        giving = [scope for scope in self.scopes if permission in self.permissions(scope)]
        least = min(giving, key=lambda scope: len(self.permissions(scope)), default=None)
        return None if least is None else self.scope_prefix + least


def may_fetch(url: str, private_allowed: bool) -> bool:
    """https always; http only on this machine, or where the operator allows private networks."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (
        parts.scheme == "http" and (private_allowed or _is_loopback(parts.hostname or ""))
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
