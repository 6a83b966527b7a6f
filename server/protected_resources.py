"""What clients are told of where tokens come from: metadata (RFC 9728) and challenges (RFC 6750 3), from PUBLIC_URL alone.

Each door is a resource of its own, so that a token which an agent holds for /mcp opens nothing else. A Host header never gets in.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

import orjson

from server.identity_providers import IdentityProvider
from tools.callers import Permission

WELL_KNOWN = "/.well-known/oauth-protected-resource"
_NEEDED: dict[str, Permission] = {
    "/mcp": "Integration.execute",
    "/sse": "Integration.execute",
    "/v1": "Integration.view",
}
"""The doors, and the least that is useful at each."""


class ProtectedResources:
    """`public_url` has no slash at its end."""

    def __init__(self, public_url: str, providers: Sequence[IdentityProvider]) -> None:
        self._providers = providers
        parts = urlsplit(public_url)
        self._origin, self._base = f"{parts.scheme}://{parts.netloc}", parts.path
        self._urls = {door: public_url + door for door in _NEEDED}
        self._documents = {f"{WELL_KNOWN}{self._base}{door}": self._document(door) for door in _NEEDED}

    def url(self, path: str) -> str:
        """The resource that a request's path belongs to."""
        return self._urls[_door(path)]

    def metadata(self, path: str) -> bytes | None:
        """The document at a well-known path; None where there is none."""
        return self._documents.get(path)

    def needed(self, path: str) -> Permission:
        """Without which nothing useful can be done there."""
        return _NEEDED[_door(path)]

    def challenge(self, path: str, *, error: str = "", description: str = "", permission: str = "") -> str:
        """The value of WWW-Authenticate. `permission` is what was missing; without, what is needed at the least."""
        door = _door(path)
        said = {
            "error": error,
            "error_description": "".join(c for c in description if " " <= c <= "~" and c not in '"\\'),
            "scope": self._scopes(permission or _NEEDED[door]),
            "resource_metadata": f"{self._origin}{WELL_KNOWN}{self._base}{door}",
        }
        return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in said.items() if value)

    def _scopes(self, permission: str) -> str:
        found = (provider.least_scope(permission) for provider in self._providers)
        return " ".join(dict.fromkeys(scope for scope in found if scope))

    def _document(self, door: str) -> bytes:
        return orjson.dumps(
            {
                "resource": self._urls[door],
                "authorization_servers": [provider.issuer for provider in self._providers],
                # The least that is useful: clients ask for all of these (MCP, authorization, "Scope Selection Strategy").
                "scopes_supported": self._scopes(_NEEDED[door]).split(),
                "bearer_methods_supported": ["header"],
                "resource_name": "integrations-mcp",
            }
        )


def _door(path: str) -> str:
    if path.startswith("/mcp"):
        return "/mcp"
    return "/sse" if path.startswith(("/sse", "/messages")) else "/v1"
