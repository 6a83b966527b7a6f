"""What a write changed, as JSON pointers with before and after. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from tools.json_values import is_array, is_object, write_json

MOST_CHANGES = 50
_MOST_CHARACTERS = 400


def changes_of(before: Any, after: Any) -> list[dict[str, Any]]:
    """`{at, before, after}` rows, at most 50 and one that counts the rest. Lists of named objects are compared by name."""
    rows = list(_changes(before, after, ""))
    if len(rows) > MOST_CHANGES:
        return [
            *rows[:MOST_CHANGES],
            {"at": "", "before": None, "after": f"and {len(rows) - MOST_CHANGES} more changes"},
        ]
    return rows


def merge_patch(value: Any, patch: Any) -> Any:
    """RFC 7396: objects are merged, null removes, anything else replaces."""
    if not is_object(patch):
        return patch
    merged: dict[str, Any] = dict(value) if is_object(value) else {}
    for name, part in patch.items():
        if part is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), part)
    return merged


def pointer(*parts: str | int) -> str:
    """RFC 6901."""
    return "".join("/" + str(p).replace("~", "~0").replace("/", "~1") for p in parts)


def _changes(before: Any, after: Any, at: str) -> Iterator[dict[str, Any]]:
    if before == after:
        return
    if is_object(before) and is_object(after):
        for name in dict.fromkeys([*before, *after]):
            yield from _changes(before.get(name), after.get(name), at + pointer(name))
    elif is_array(before) and is_array(after) and (names := _names(before)) and _names(after):
        old = dict(zip(names, before, strict=True))
        for i, item in enumerate(after):
            yield from _changes(old.pop(item["name"], None), item, at + pointer(i))
        for name, item in old.items():
            yield {"at": at + pointer(names.index(name)), "before": _short(item), "after": None}
    else:
        yield {"at": at, "before": _short(before), "after": _short(after)}


def _names(items: Sequence[Any]) -> list[str]:
    """The items' names where each has one of its own."""
    names = [item["name"] for item in items if is_object(item) and isinstance(item.get("name"), str)]
    return names if len(set(names)) == len(items) else []


def _short(value: Any) -> Any:
    """A value as it is (an object without what is empty in it), or the beginning of its text."""
    if is_object(value):
        value = {n: v for n, v in value.items() if v is not None and v != {} and v != []}
    text = value if isinstance(value, str) else write_json(value)
    return value if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"
