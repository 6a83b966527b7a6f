"""The noun "scope": what may be asked for (rules B3, C7) and what of it wasn't granted."""

import re
from collections.abc import Iterable, Sequence

_TOKEN = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+", re.ASCII)  # RFC 6749 3.3
_SMART = re.compile(r"(system|user|patient)/(\*|[A-Z][A-Za-z]*)\.(read|write|\*|c?r?u?d?s?)(\?.+)?", re.ASCII)
_V1 = {"read": "rs", "write": "cud", "*": "cruds"}


def scope_fault(scope: str) -> str | None:
    """Why `scope` is not one RFC 6749 scope-token; None when it is."""
    if not scope:
        return "a scope is empty"
    if " " in scope:
        return f"{scope!r} holds a blank: each scope is its own element of the list"
    if not _TOKEN.fullmatch(scope):
        return f"{scope!r} holds characters that a scope can't have (quotes, backslash, controls or non-ASCII)"
    return None


def smart_scope_fault(scope: str) -> str | None:
    """Why `scope` can't be asked for in a backend service: system/ scopes in v1 or v2 form only (rules C7)."""
    if not scope.startswith("system/"):
        return f"{scope!r} is for a user's login; a backend service asks for system/ scopes only (system/Patient.rs)"
    match = _SMART.fullmatch(scope)
    if match is None or not match[3]:
        return f"{scope!r} is not a SMART scope: system/Type.read, system/Type.cruds or system/*.rs"
    return None


def distinct(scopes: Iterable[str] | None) -> tuple[str, ...]:
    """Duplicates go, order stays."""
    return tuple(dict.fromkeys(scopes or ()))


def missing(asked: Sequence[str], granted: str | None) -> tuple[str, ...]:
    """The asked scopes that no granted one covers. `granted` is the answer's `scope`; None means as asked (RFC 6749 5.1)."""
    if granted is None:
        return ()
    got = granted.split()
    return tuple(scope for scope in asked if scope not in got and not _covered(scope, got))


def _covered(scope: str, granted: Sequence[str]) -> bool:
    """SMART: `.read` = `.rs`, `.write` = `.cud`, `.*` = `.cruds`, `system/*` covers single types (rules B3)."""
    wanted = _SMART.fullmatch(scope)
    if wanted is None:
        return False
    level, resource, _, query = wanted.groups()
    allowed: set[str] = set()
    for other in granted:
        match = _SMART.fullmatch(other)
        if match and match[1] == level and match[2] in ("*", resource) and match[4] in (None, query):
            allowed |= set(_operations(match[3]))
    return set(_operations(wanted[3])) <= allowed


def _operations(letters: str) -> str:
    return _V1.get(letters, letters)
