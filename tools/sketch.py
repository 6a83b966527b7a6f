"""The shape of real data in a few words: `{"entry":[642 x {"id":"str","name":[1 x {"family":"str"}]}]}`. Pure.

Only member names and JSON types are shown, never values.
"""

from collections.abc import Iterator
from typing import Any

from tools.json_values import is_array, is_object, write_json

MOST_CHARACTERS = 1500
_MOST_ITEMS = 50
_MOST_NAMES = 40
_DEPTHS = (8, 6, 5, 4, 3, 2)


def sketch(value: Any) -> str:
    """At most 1,500 characters: what is deeper than fits is `...`."""
    text = ""
    for depth in _DEPTHS:
        text = _sketch([value], depth)
        if len(text) <= MOST_CHARACTERS:
            return text
    return text[: MOST_CHARACTERS - 1] + "…"


def _sketch(values: list[Any], depth: int) -> str:
    """One sketch for values that stand in the same place."""
    objects = [v for v in values if is_object(v)]
    arrays = [v for v in values if is_array(v)]
    scalars = list(dict.fromkeys(_scalar(v) for v in values if not is_object(v) and not is_array(v)))
    parts: list[str] = []
    if objects:
        parts.append(_object(objects, depth))
    if arrays:
        items = [item for array in arrays for item in array[:_MOST_ITEMS]][:_MOST_ITEMS]
        longest = max(map(len, arrays))
        parts.append(f"[{longest} x {_sketch(items, depth - 1) if depth > 0 else '...'}]" if items else "[]")
    return "|".join([*parts, *scalars])


def _object(objects: list[dict[str, Any]], depth: int) -> str:
    names = list(dict.fromkeys(name for o in objects for name in o))
    if depth <= 0:
        return "{...}" if names else "{}"
    members = [
        f"{write_json(name)}:{_sketch([o[name] for o in objects if name in o], depth - 1)}"
        for name in names[:_MOST_NAMES]
    ]
    more = [f"... {len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return "{" + ",".join([*members, *more]) + "}"


def _scalar(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return '"bool"'
        case str():
            return '"str"'
        case _:
            return '"num"'


def names_at(value: Any) -> list[str]:
    """The member names at this place, through arrays."""
    if is_array(value):
        return list(dict.fromkeys(name for item in value[:_MOST_ITEMS] for name in names_at(item)))
    return list(value) if is_object(value) else []


def paths_in(value: Any, most: int = 2000) -> list[str]:
    """Every plain path in the value, through arrays, outer ones first."""
    found: dict[str, None] = {}
    level: list[tuple[str, Any]] = [("", value)]
    while level and len(found) < most:
        following: list[tuple[str, Any]] = []
        for at, here in level:
            for name, member in _members(here):
                path = f"{at}.{name}" if at else name
                found[path] = None
                following.append((path, member))
        level = following[:most]
    return list(found)[:most]


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if is_array(value):
        for item in value[:_MOST_ITEMS]:
            yield from _members(item)
    elif is_object(value):
        yield from value.items()
