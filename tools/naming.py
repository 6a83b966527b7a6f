"""Names that hosts and models see: tool names, property names that every provider takes, and did-you-mean.

Contract: semantics "Names"; property keys as published match `^[A-Za-z0-9_-]{1,64}$` (dots are legal but not liked).
"""

import base64
import difflib
import hashlib
import re
from collections.abc import Iterable

TOOL_NAME_MAX = 48
"""Hosts put `mcp__gateway__` before a name and count to 60 or 64."""

RESERVED = frozenset(
    {
        "list_integrations",
        "create_integration",
        "get_integration",
        "update_integration",
        "delete_integration",
        "test_integration_endpoint",
        "integration_health_check",
        "test_connection",
        "create_endpoint",
        "update_endpoint",
        "delete_endpoint",
        "import_integration",
        "preview_result",
        "read_audit",
        "read_calls",
        "get_result",
        "find_tools",
        "call_tool",
    }
)
"""Tool names of the gateway itself; compare with `name.lower()`."""

PROPERTY_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

_NOT_NAME = re.compile(r"[^A-Za-z0-9_-]")
_HASH_CHARS = 6
_MOST_COMPARED = 500


def tool_name(integration: str, endpoint: str, limit: int = TOOL_NAME_MAX) -> str:
    """`{integration}_{endpoint}` within `limit` characters of A-Za-z0-9_-.

    A longer one keeps whole words of the head, then `_` and 6 base32 characters of a hash of both names.
    """
    name = _NOT_NAME.sub("_", f"{integration}_{endpoint}")
    return name if len(name) <= limit else _shortened(name, limit, f"{integration}\0{endpoint}")


def property_aliases(names: Iterable[str]) -> dict[str, str]:
    """Stored property name -> published one, for those that some provider would refuse; unique among all `names`.

    `filter[name]` becomes `filter_name`; where that is taken already, a hash is put behind it.
    """
    stored = list(dict.fromkeys(names))
    taken = {name for name in stored if PROPERTY_NAME.fullmatch(name)}
    aliases: dict[str, str] = {}
    for name in stored:
        if name in taken:
            continue
        alias = re.sub(r"_+", "_", _NOT_NAME.sub("_", name)).strip("_")
        if not alias or len(alias) > 64 or alias in taken:
            alias = _shortened(alias, 64, name)
        taken.add(alias)
        aliases[name] = alias
    return aliases


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, or None. Case and separators don't count."""
    by_letters = {_letters(k): k for k in list(known)[:_MOST_COMPARED]}
    wanted = _letters(name[:128])
    if wanted in by_letters:
        return by_letters[wanted]
    found = difflib.get_close_matches(wanted, by_letters, n=1, cutoff=0.6)
    return by_letters[found[0]] if found else None


def _shortened(name: str, limit: int, of: str) -> str:
    digest = hashlib.sha256(of.encode("utf-8", "surrogatepass")).digest()
    tail = base64.b32encode(digest).decode()[:_HASH_CHARS].lower()
    room = limit - _HASH_CHARS - 1
    head = name[:room]
    if len(name) > room and name[room] not in "_-":
        words = max(head.rfind("_"), head.rfind("-"))
        head = head[:words] if words > 0 else head
    return f"{head.rstrip('_-')}_{tail}"


def _letters(name: str) -> str:
    return _NOT_NAME.sub("", name).lower().replace("_", "").replace("-", "") or name
