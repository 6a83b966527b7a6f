"""What a credential is made from; the caller of `AuthTypeRow.make` fills it in once per catalog version."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tools.address_guard import NetworkPolicy
from tools.credentials.own_identity import NOBODY, OwnIdentity
from tools.credentials.reader import SecretReader
from tools.credentials.token_cache import TokenCache
from tools.upstream import Upstream


@dataclass(frozen=True, slots=True)
class GoogleEndpoints:
    """Google's two fixed endpoints; other ones only by an operator's setting (rules E2)."""

    sts: str = "https://sts.googleapis.com/v1/token"
    iam: str = "https://iamcredentials.googleapis.com"


@dataclass(frozen=True, slots=True)
class CredentialParts:
    """`versions` pins secret paths to the versions of this catalog version; a path that isn't in it is read unpinned.

    `origins`: where the secret under a path may go ("https://host:443", rules A1); a path that isn't in it was checked by the
    caller. `public_url` is the gateway's own, without a trailing slash; empty where none is configured.
    """

    reader: SecretReader
    upstream: Upstream
    tokens: TokenCache
    workspace: str
    integration_id: str
    base_url: str = ""
    versions: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    public_url: str = ""
    network: NetworkPolicy = field(default_factory=NetworkPolicy)
    google: GoogleEndpoints = GoogleEndpoints()
    own_identity: OwnIdentity = NOBODY
