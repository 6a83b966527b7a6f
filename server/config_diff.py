"""What differs between two integrations, field by field: pure, and secrets are never in it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tools.kinds.rest import SECRET_REFERENCE
from tools.masking import is_secret_header
from tools.models import AuthConfig, Integration, IntegrationFields
from tools.secrets import MASK

ABSENT = "(none)"
"""Shown in place of a value that isn't there."""
_HEADER_FIELDS = frozenset({"headers", "mcp_headers", "mcp_env"})


@dataclass(frozen=True, slots=True)
class Change:
    """One field: `at` is its place with dots (endpoints by name); values as JSON, those of secret-looking headers masked."""

    at: str
    before: Any
    after: Any


def written_fields(integration: Integration) -> dict[str, Any]:
    """What an operator writes of an integration, as JSON."""
    return integration.model_dump(mode="json", include={*IntegrationFields.model_fields, "auth"})


def changes_between(before: Integration, after: Integration) -> list[Change]:
    """Empty when a write of `after` would change nothing."""
    return list(_compare(written_fields(before), written_fields(after), ()))


def _compare(before: Any, after: Any, at: tuple[str, ...]) -> Iterator[Change]:
    if before == after and type(before) is type(after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        b, a = cast("dict[str, Any]", before), cast("dict[str, Any]", after)
        for key in [*b, *(k for k in a if k not in b)]:
            yield from _compare(b.get(key, ABSENT), a.get(key, ABSENT), (*at, key))
    elif at == ("endpoints",):
        b, a = _by_name(cast("list[dict[str, Any]]", before)), _by_name(cast("list[dict[str, Any]]", after))
        yield from _compare(b, a, at)
        if [n for n in b if n in a] != [n for n in a if n in b]:
            yield Change("endpoints (order)", list(b), list(a))
    else:
        yield Change(".".join(at), _shown(before, at), _shown(after, at))


def _by_name(endpoints: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {e["name"]: e for e in endpoints}


def _shown(value: Any, at: tuple[str, ...]) -> Any:
    """Values of secret-looking headers are `[secret]`, also inside a whole endpoint that comes or goes."""
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value)
        return {k: _shown(v, (*at, k)) for k, v in items.items() if v is not None and v != _default(at, k)}
    if isinstance(value, str) and _is_masked(at) and value != ABSENT and not value.startswith(SECRET_REFERENCE):
        return MASK
    return value


def _is_masked(at: tuple[str, ...]) -> bool:
    return len(at) > 1 and at[-2] in _HEADER_FIELDS and is_secret_header(at[-1])


def _default(at: tuple[str, ...], key: str) -> Any:
    """Fields of an auth config that weren't written only make the line longer."""
    field = AuthConfig.model_fields.get(key) if at[-1:] == ("auth",) else None
    return field.default if field is not None else ...
