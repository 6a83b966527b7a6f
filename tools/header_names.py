"""Which headers may be set by anybody but the engine: one list for arguments, endpoints, credentials and the way out."""

import re

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)  # RFC 9110 5.6.2
# Framing and hop-by-hop headers (RFC 9110 7.6.1, RFC 9112): one of these from an argument would be request smuggling.
_OF_THE_CONNECTION = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def header_fault(name: str) -> str | None:
    """Why `name` can't be a header of ours; None when it can (semantics: "headers")."""
    if not _TOKEN.fullmatch(name):
        return f"{name[:60]!r} is not a header name: letters, digits and !#$%&'*+.^_`|~- only (RFC 9110 5.6.2)"
    if name.lower() in _OF_THE_CONNECTION:
        return f"{name} belongs to the connection and is set by the gateway itself"
    return None
