"""Which Host and Origin headers are answered: a page in somebody's browser must not reach us under a name of its own.

MCP spec (transports, security): servers MUST check Origin; a rebound DNS name shows itself in Host.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class AllowedHosts:
    """`hosts` are names with or without a port; without one, or with `:*`, any port fits."""

    def __init__(self, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._any_port = {h.removesuffix(":*").lower() for h in hosts if h.endswith(":*") or not _has_port(h)}
        self._exact = {h.lower() for h in hosts if _has_port(h) and not h.endswith(":*")}
        self._origins = {o.rstrip("/").lower() for o in origins}
        self._known_hosts: set[bytes | None] = set()

    def refusal(self, host: bytes | None, origin: bytes | None) -> tuple[int, str] | None:
        """(status, sentence) when the request must not be answered. No Origin is fine: browsers always send one."""
        if host not in self._known_hosts:
            name = (host or b"").decode("latin-1").lower()
            if not self._fits(name):
                return 421, (
                    f"this server doesn't answer to the host {name[:100]!r}; its operator can allow it with "
                    "INTEGRATIONS_MCP_ALLOWED_HOSTS or INTEGRATIONS_MCP_PUBLIC_URL"
                )
            if len(self._known_hosts) < 100:
                self._known_hosts.add(host)
        if origin is not None:
            text = origin.decode("latin-1").rstrip("/").lower()
            # An Origin is scheme://host:port and nothing else (RFC 6454 7), so nothing need be parsed that could fail.
            if text not in self._origins and not self._fits(text.partition("://")[2]):
                return 403, (
                    f"pages of {text[:100]!r} may not call this server; its operator can allow them with "
                    "INTEGRATIONS_MCP_ALLOWED_ORIGINS"
                )
        return None

    def _fits(self, name: str) -> bool:
        return name in self._exact or _without_port(name) in self._any_port


def allowed_hosts(host: str, public_url: str, more_hosts: Iterable[str], more_origins: Iterable[str]) -> AllowedHosts:
    """What a server that listens on `host` answers to: loopback names, its own address, its public URL, and what is allowed."""
    own = f"[{host}]" if ":" in host else host
    public = [urlsplit(public_url).netloc] if public_url else []
    wildcard = host in ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not listened on
    return AllowedHosts([*_LOOPBACK, *([] if wildcard else [own]), *public, *more_hosts], more_origins)


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdecimal() and not host.endswith("]")


def _without_port(name: str) -> str:
    head, colon, port = name.rpartition(":")
    return head if colon and port.isdecimal() and head else name
