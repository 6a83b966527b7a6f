"""The hosts that the operator lets each workspace reach at all: asked when an integration is written, and where connections are made.

It only narrows: the address guard holds beside it. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

EVERY = "*"
"""In the place of a workspace: all of them."""


@dataclass(frozen=True, slots=True)
class HostList:
    """`patterns` by workspace in lower case or EVERY, each a `plain_host` or `*.` before one; None allows all."""

    patterns: Mapping[str, tuple[str, ...]] | None = None

    def allows(self, workspace: str, host: str) -> bool:
        if self.patterns is None:
            return True
        name = plain_host(host)
        patterns = (*self.patterns.get(EVERY, ()), *self.patterns.get(workspace.lower(), ()))
        return any(name.endswith(p[1:]) if p.startswith("*.") else name == p for p in patterns)

    def fault(self, workspace: str, url: str) -> str | None:
        """Why this workspace can't reach the URL; None where it can, and where the URL names no host."""
        if self.patterns is None:
            return None
        try:
            host = urlsplit(url).hostname
        except ValueError:
            return None
        if not host or self.allows(workspace, host):
            return None
        return (
            f"{host} isn't among the hosts that this workspace may reach: use one of those, or have the operator add it to "
            "INTEGRATIONS_MCP_UPSTREAM_HOSTS_ALLOW"
        )


ALL_HOSTS = HostList()


def plain_host(host: str) -> str:
    """One spelling of a name (small letters, no dot at the end) or of an address."""
    name = host.lower().removesuffix(".")
    try:
        return str(ip_address(name))
    except ValueError:
        return name
