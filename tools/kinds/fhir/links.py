"""Where a `next` link may lead: under our own base URL and nowhere else (rules G1). Pure."""

from urllib.parse import quote, unquote, urljoin, urlsplit

from tools.kinds.paths import origin_of

_CHARACTERS = "!$%&'()*+,/:;=?@[]~"


def followed(link: str, request_url: str, base: str, *, rebase: bool) -> str | None:
    """The absolute URL to ask next; None where it leads out of `base`.

    `rebase` puts the query of a link that leads elsewhere on the base URL, for servers that name themselves wrongly.
    """
    url = _resolved(link, request_url)
    if url is None:
        return None
    if is_under(url, base):
        return url
    query = urlsplit(url).query
    return f"{base}?{query}" if rebase and query else None


def _resolved(link: str, request_url: str) -> str | None:
    link = quote(link.strip().partition("#")[0], safe=_CHARACTERS)
    try:
        url = urljoin(request_url, link)
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    plain = parts.scheme in ("http", "https") and parts.hostname and port != 0 and "@" not in parts.netloc
    return url if plain else None


def is_under(url: str, base: str) -> bool:
    """Same origin, and a path that is the base's or below it, segment by segment, however dots and slashes are spelled."""
    if origin_of(url) != origin_of(base):
        return False
    path, root = _segments(urlsplit(url).path), _segments(urlsplit(base).path)
    return path is not None and root is not None and path[: len(root)] == root


def _segments(path: str) -> list[str] | None:
    """None for a path whose meaning depends on who reads it."""
    decoded = unquote(unquote(path))
    if "\\" in decoded or any(part.partition(";")[0] in (".", "..") for part in decoded.split("/")):
        return None
    return [unquote(part) for part in path.split("/") if part]


def target_of(url: str) -> str:
    """Path and query."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
