"""The noun "token URL": where assertions and client secrets are posted (rules B2)."""

from urllib.parse import urlsplit

from tools.address_guard import NetworkPolicy, check_url, spelled_address

# Names that never resolve publicly: single labels and the special-use domains (RFC 6761, 6762, 8375; ICANN's .internal).
_INWARD = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".cluster.local")


def url_fault(url: str) -> str | None:
    """Why `url` is not an absolute http(s) URL without userinfo, query and fragment; None when it is one."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("https", "http") or not host:
        return "must be an absolute https URL"
    if "@" in parts.netloc:
        return "can't hold a user name or password"
    if "?" in url or "#" in url:
        return "can't have a query or a fragment (further form fields go into token_params)"
    if any(not "!" <= c <= "~" for c in url):
        return "has blanks, controls or non-ASCII characters: write it percent-encoded"
    return None


def token_url_faults(url: str, policy: NetworkPolicy) -> list[str]:
    """Everything against posting credentials to `url`, for writing time: no DNS is asked.

    https only; http only where private networks are allowed and the host is a private address or a name that can't be a
    public one (a name that resolves inwards today may resolve outwards tomorrow, and the secret would go out in clear).
    """
    if fault := url_fault(url):
        return [fault]
    found: list[str] = []
    parts = urlsplit(url)
    if parts.scheme == "http" and not _http_allowed(parts.hostname or "", policy):
        found.append(
            "must be https: over http the secret could be read on its way (http only to an allowed private address)"
        )
    if check_url(url, policy) is not None:
        found.append("this address isn't allowed here")
    return found


def _http_allowed(host: str, policy: NetworkPolicy) -> bool:
    if not policy.allow_private:
        return False
    try:
        address = spelled_address(host)
    except ValueError:
        return False
    if address is None:
        return "." not in host or host.rstrip(".").endswith(_INWARD)
    return not address.is_global and policy.allows_private(address)
