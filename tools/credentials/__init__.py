"""One module per auth type, each with the same parts in the same order: what it is and its source, `faults` (checks at writing),
`secret_paths`, `token_urls`, `make` (the `Credential` that signs). `types.py` has one row per type."""

from typing import Protocol

from tools.credentials.authorization import Authorization
from tools.upstream import Answer


class Credential(Protocol):
    """Signs the calls of one integration (or endpoint); made once per catalog version, shared by all calls."""

    async def authorize(self) -> Authorization:
        """The header to send now: a secret, or a token that is minted when none is fresh.

        Raises CredentialUnavailable, CredentialRejected, Misconfigured, SecretStoreUnavailable.
        """
        ...

    async def rejected(self, used: Authorization, answer: Answer) -> bool:
        """The origin answered 401 to `used`. True: there is a newer secret or token, so one more try is worth it (A5, B7)."""
        ...

    def explain(self) -> dict[str, object]:
        """The way to the credential as the auth X-ray shows it, also after a failure; never a secret, token or assertion."""
        ...
