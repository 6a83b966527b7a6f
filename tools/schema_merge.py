"""Two schemas as one: both at once (`$ref`, allOf) or either (anyOf, oneOf). Loose where exact would be unreadable.

The published schema may allow more than the stored one, never less by intent: the stored one judges.
"""

from collections.abc import Sequence
from typing import Any

from tools.json_schema import Schema, is_array, is_object

TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
_LARGER_WINS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_SMALLER_WINS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def both(one: Schema, other: Schema) -> Schema:
    """A value must fit both; what `one` says of itself (description, default, x-) comes first."""
    merged: Schema = {**other, **one}
    for keyword in one.keys() & other.keys():
        a, b = one[keyword], other[keyword]
        if a == b:
            continue
        if keyword in _LARGER_WINS:
            merged[keyword] = max(a, b)
        elif keyword in _SMALLER_WINS:
            merged[keyword] = min(a, b)
        elif keyword in ("properties", "patternProperties") and is_object(a) and is_object(b):
            merged[keyword] = {**b, **a, **{k: {"allOf": [a[k], b[k]]} for k in a if k in b and a[k] != b[k]}}
        elif keyword == "required":
            merged[keyword] = list(dict.fromkeys([*a, *b]))
        elif keyword == "type":
            merged[keyword] = _common_types(_as_list(a), _as_list(b))
        elif keyword == "enum" and is_array(a) and is_array(b):
            merged[keyword] = [v for v in a if v in b]
        elif keyword in ("items", "additionalProperties"):
            merged[keyword] = {"allOf": [a, b]} if a is not False and b is not False else False
    return merged


def either(type_name: str, pieces: Sequence[Schema]) -> Schema:
    """A value fits one of several schemas of one type."""
    if len(pieces) == 1:
        return dict(pieces[0])
    merged: Schema = {"type": type_name}
    for keyword in ("description", "format"):
        found = [p.get(keyword) for p in pieces]
        if found[0] is not None and (keyword == "description" or all(f == found[0] for f in found)):
            merged[keyword] = found[0]
    values = [_values(p) for p in pieces]
    if all(v is not None for v in values):
        merged["enum"] = _unique([v for some in values for v in some or ()])
    if type_name == "object":
        merged["properties"] = properties_of_either([p.get("properties", {}) for p in pieces])
        required = [p.get("required", ()) for p in pieces]
        merged["required"] = [name for name in required[0] if all(name in r for r in required)]
        if all(is_object(p.get("additionalProperties")) for p in pieces):
            merged["additionalProperties"] = {"anyOf": [p["additionalProperties"] for p in pieces]}
    items = [item_forms(p) for p in pieces]
    if type_name == "array" and all(items):
        merged["items"] = {"anyOf": [form for forms in items for form in forms]}
    return merged


def item_forms(array: Schema) -> list[Any]:
    """What an array says of its items, wherever they stand, each form once; [] where it says nothing."""
    rest = array.get("items", False)
    forms: list[Any] = []
    for form in (*array.get("prefixItems", ()), *([] if rest is False else [rest])):
        if form not in forms:
            forms.append(form)
    return forms


def properties_of_either(maps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All properties; one that several describe differently fits any of its descriptions."""
    found: dict[str, list[Any]] = {}
    for properties in maps:
        for name, prop in properties.items():
            if prop not in found.setdefault(name, []):
                found[name].append(prop)
    return {name: props[0] if len(props) == 1 else {"anyOf": props} for name, props in found.items()}


def discriminated(pieces: Sequence[Schema]) -> bool:
    """2 to 4 objects that one required property tells apart by a string of its own in each."""
    if not 2 <= len(pieces) <= 4:
        return False
    for name in pieces[0].get("required", ()):
        seen: list[Any] = []
        for piece in pieces:
            prop = piece.get("properties", {}).get(name)
            values = _values(prop) if is_object(prop) and name in piece.get("required", ()) else None
            if not values or not all(isinstance(v, str) and v for v in values) or any(v in seen for v in values):
                break
            seen.extend(values)
        else:
            return True
    return False


def _values(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _common_types(one: list[Any], other: list[Any]) -> list[Any]:
    wide: set[Any] = set(other) | ({"integer"} if "number" in other else set[Any]())
    also = ["integer"] if "number" in one and "integer" in other and "integer" not in one else []
    return [t for t in [*one, *also] if t in wide]


def _as_list(value: Any) -> list[Any]:
    return list(value) if is_array(value) else [value]


def _unique(values: list[Any]) -> list[Any]:
    kept: list[Any] = []
    for value in values:
        if not any(value == k and type(value) is type(k) for k in kept):
            kept.append(value)
    return kept
