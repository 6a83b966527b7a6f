"""ETag and If-Match (RFC 9110 13.1.1): an integration's ETag is its version, so that a lost update is a 412."""

import re

from tools.errors import InvalidRequest, Issue

_TAGS = re.compile(r'\s*(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"\s*(?:,\s*(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"\s*)*')
_VERSION = re.compile(r'(?<!W/)"([0-9]{1,18})"')


def etag(version: int) -> str:
    return f'"{version}"'


def wanted_versions(if_match: str | None) -> frozenset[int] | None:
    """The versions that an If-Match accepts; None is any (no header, or `*`). Weak and foreign tags accept none.

    Raises InvalidRequest where the header isn't a list of entity tags.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    if not _TAGS.fullmatch(if_match):
        raise InvalidRequest(
            [Issue(("header", "if-match"), 'write the ETag with its quotes, like "3", or *', "value_error")]
        )
    return frozenset(int(number) for number in _VERSION.findall(if_match))
