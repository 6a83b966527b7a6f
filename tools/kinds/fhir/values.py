"""Search values as FHIR writes them: lists are OR, lists of lists AND, and what separates is escaped in what doesn't (rules G4)."""

import json
import re
from typing import Any

from tools.json_values import is_array

_SEPARATORS = re.compile(r"([\\,$|])")
_BUT_BARS = re.compile(r"([\\,$])")


def search_value(wire: str, value: Any, kind: str | None = None, *, as_written: bool = False) -> str | list[str] | None:
    """What stands behind `wire=`; a list stands for the name repeated. None is left out.

    `kind` is the parameter's FHIR type where it is known. `as_written`: a text is FHIR's own syntax already (a fixed value, or
    what the generic search is given); the items of a list are values all the same.
    """
    if value is None:
        return None
    if not is_array(value):
        text = _text(value)
        return text if as_written or _is_control(wire) else _escaped(text, kind)
    if any(is_array(item) for item in value):
        return [found for item in value if (found := _or(wire, item if is_array(item) else [item], kind))]
    return _or(wire, value, kind) or None


def _or(wire: str, items: list[Any], kind: str | None) -> str:
    texts = (_text(item) for item in items if item is not None)
    return ",".join(text if _is_control(wire) else _escaped(text, kind) for text in texts)


def _escaped(text: str, kind: str | None) -> str:
    match kind:
        case "string" | "date" | "number":
            return _SEPARATORS.sub(r"\\\1", text)
        case "token":
            system, bar, code = text.partition("|")
            return f"{_SEPARATORS.sub(_BACKSLASHED, system)}{bar}{_SEPARATORS.sub(_BACKSLASHED, code)}"
        case "composite":
            return text.replace("\\", "\\\\").replace(",", "\\,")
        case _:
            return _BUT_BARS.sub(_BACKSLASHED, text)  # a bar separates the parts of tokens, quantities and canonicals


_BACKSLASHED = r"\\\1"


def _is_control(wire: str) -> bool:
    """`_sort`, `_include` and the like, whose commas and colons are syntax."""
    return wire.startswith("_") and wire not in ("_text", "_content")


def _text(value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case _:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
