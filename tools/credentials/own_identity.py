"""This process's own identity at AWS or Kubernetes as the subject of gcp_wif: only for whom the operator lists (rules E1).

What it opens at Google belongs to the operator, so a tenant can choose neither what is shown nor to whom, nor where the token
goes that comes of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol
from urllib.parse import urlsplit

Platform = Literal["AWS", "Kubernetes"]
_GOOGLE = ".googleapis.com"


@dataclass(frozen=True, slots=True)
class AllowedIdentity:
    """One entry of the operator's list, compared as written. `service_account` empty: no impersonation.

    The token may go to https hosts under googleapis.com, and to `origins` ("https://host:443").
    """

    workspace: str
    audience: str
    service_account: str
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SubjectToken:
    """`hidden` are the secrets inside `value`, which must be masked by themselves too."""

    value: str = field(repr=False)
    hidden: tuple[str, ...] = field(default=(), repr=False)


class IdentitySource(Protocol):
    """Where the process is told who it is. Every method raises Misconfigured or CredentialUnavailable."""

    async def aws(self, audience: str) -> SubjectToken:
        """A signed GetCallerIdentity request that is good for this audience only."""
        ...

    async def kubernetes(self) -> SubjectToken:
        """The service account's token as it is now."""
        ...


@dataclass(frozen=True, slots=True)
class OwnIdentity:
    """`allowed` is the operator's list; `source` is asked only for what stands on it."""

    allowed: tuple[AllowedIdentity, ...] = ()
    source: IdentitySource | None = None

    def of(self, workspace: str) -> tuple[AllowedIdentity, ...]:
        return tuple(entry for entry in self.allowed if entry.workspace == workspace)

    def entry(self, workspace: str, audience: str, service_account: str) -> AllowedIdentity | None:
        return next(
            (e for e in self.of(workspace) if (e.audience, e.service_account) == (audience, service_account)), None
        )


NOBODY = OwnIdentity()


def may_go_to(origin: str, further: Iterable[str]) -> bool:
    """Whether a token of the process's identity may be sent to an origin ("https://host:443")."""
    parts = urlsplit(origin)
    if parts.scheme == "https" and parts.port == 443 and (parts.hostname or "").endswith(_GOOGLE):
        return True
    return origin in further
