"""JSON values as Python holds them: what kind they are, how heavy, and how they are written. Pure."""

import json
from typing import Any, Final, TypeGuard

import orjson

_LEVELS: Final = 200
MAX_VALUES: Final = 1_000_000
"""Of one answer. 10 MB can hold five million, which take seconds to be looked through."""
MAX_RESULT: Final = 10 * 1024 * 1024
"""Characters of JSON that an expression may make."""


class TooManyValues(ValueError):
    """JSON of so many values that going through them would keep everybody else waiting."""


class ValueTooDeep(ValueError):
    """The value is nested too deeply to be written."""


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def is_array(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def kind_of(value: Any) -> str:
    """A value's JSON type in words, for messages."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case list():
            return "an array"
        case _:
            return "an object"


def weigh(value: Any, most_nodes: int, most_characters: int = MAX_RESULT) -> tuple[int, int]:
    """(JSON values in `value`, about its characters as JSON); stops counting once either is over its bound.

    A value that an expression made can hold one list many times: it counts as often as it would be written.
    """
    nodes = size = 0
    stack = [value]
    while stack and nodes <= most_nodes and size <= most_characters:
        item = stack.pop()
        nodes += 1
        kind = type(item)  # pyright: ignore[reportUnknownVariableType] - on the path of every mapped call: isinstance costs three times as much
        if kind is str:
            size += len(item) + 3
        elif kind is dict:
            size += 2 + sum(map(len, item)) + 4 * len(item)
            stack.extend(item.values())
        elif kind is list:
            size += 2
            stack.extend(item)
        else:
            size += 5
    return nodes, size


def write_json(value: Any) -> str:
    """Compact JSON, in the value's own order. Raises ValueTooDeep.

    The slow way is for what orjson refuses: integers over 64 bits, more than 254 levels, lone surrogates.
    """
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        except RecursionError:
            raise ValueTooDeep("the value is nested too deeply to be written") from None
        return text.encode("utf-8", "replace").decode()


def read_json(text: bytes) -> Any:
    """JSON from outside that can be written again: integers exactly, no lone surrogates, NaN or more levels than fit into an answer.

    Raises ValueError (orjson.JSONDecodeError where it isn't JSON).
    """
    if len(text) > MAX_VALUES and sum(map(text.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise TooManyValues(f"more than {MAX_VALUES:,} JSON values")
    value = orjson.loads(text)
    if text.count(b"[") + text.count(b"{") > _LEVELS:
        try:
            orjson.dumps(_within(value))
        except orjson.JSONEncodeError:
            raise ValueTooDeep(f"it is nested deeper than {_LEVELS} levels") from None
    return json.loads(text) if may_round(text) else value


def _within(value: Any) -> Any:
    """As deep in other values as orjson leaves room for beside _LEVELS."""
    for _ in range(254 - _LEVELS):
        value = [value]
    return value


_DIGITS = bytes(ord("0") if chr(i).isdecimal() and i < 128 else ord(" ") for i in range(256))
_LONG = b"0" * 19


def may_round(body: bytes) -> bool:
    """Whether JSON text could hold an integer beyond 64 bits, which orjson would read as a float: 19 digits in a row."""
    return _LONG in body.translate(_DIGITS)
