"""Imports that are repeated keep the operator's edits: each imported endpoint carries a digest of every field as it was imported.

The mark stands in the stored input_schema as `x-imported` (hosts never see it) and goes along with export and apply. A field
whose digest still fits was not edited and follows the source; an edited one stays, and where the source changed it too that is
told. An endpoint without the mark is the operator's own.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from tools.json_schema import IMPORTED as MARK
from tools.json_schema import is_object
from tools.json_value import plain
from tools.models import EndpointConfig

_FIELDS = ("description", "method", "path", "base_url", "input_schema", "headers", "body_format", "annotations")


@dataclass(frozen=True, slots=True)
class Merged:
    """`changed` fields follow the source, `kept` are the operator's, `conflicts` those of them that the source changed too."""

    endpoint: EndpointConfig
    changed: tuple[str, ...]
    kept: tuple[str, ...]
    conflicts: tuple[str, ...]


def marked(endpoint: EndpointConfig, key: str) -> EndpointConfig:
    """The endpoint with its mark as the import of operation `key` made it."""
    bare = unmarked(endpoint)
    return _with_mark(bare, {"from": key, "form": _digests(bare)})


def unmarked(endpoint: EndpointConfig) -> EndpointConfig:
    schema = {k: v for k, v in endpoint.input_schema.items() if k != MARK}
    return endpoint.model_copy(update={"input_schema": schema})


def key_of(endpoint: EndpointConfig) -> str | None:
    """The operation that it was imported from; None for the operator's own."""
    mark = endpoint.input_schema.get(MARK)
    key = mark.get("from") if is_object(mark) else None
    return key if isinstance(key, str) else None


def merge(stored: EndpointConfig, new: EndpointConfig) -> Merged:
    """`stored` is marked; `new` is marked with the same key. The name stays, since agents know it; and so do fields that no import
    makes (shaping, retries)."""
    mark = stored.input_schema[MARK]
    last: dict[str, Any] = mark["form"] if is_object(mark.get("form")) else {}
    bare, fresh = unmarked(stored), unmarked(new)
    now, then = _digests(bare), _digests(fresh)
    taken: dict[str, Any] = {}
    kept: list[str] = []
    conflicts: list[str] = []
    for name in _FIELDS:
        if now[name] == then[name]:
            continue
        if now[name] == last.get(name):
            taken[name] = getattr(fresh, name)
            continue
        kept.append(name)
        if then[name] != last.get(name):
            conflicts.append(name)
    merged = _with_mark(bare.model_copy(update=taken), new.input_schema[MARK])
    return Merged(merged, tuple(taken), tuple(kept), tuple(conflicts))


def _with_mark(bare: EndpointConfig, mark: dict[str, Any]) -> EndpointConfig:
    return bare.model_copy(update={"input_schema": {**bare.input_schema, MARK: mark}})


def _digests(bare: EndpointConfig) -> dict[str, str]:
    fields = plain(bare)
    return {name: _digest(fields[name]) for name in _FIELDS}


def _digest(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
