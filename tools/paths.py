"""Plain paths: names joined by dots (`entry.resource.id`), a number indexes an array, `*` is any key.

A path goes through arrays by itself. `follow` picks by one path; a `Mask` keeps what several paths name (response_filter, and the
`fields` of get_result).
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tools.json_values import is_array, is_object, kind_of
from tools.models import MAX_EXPRESSION_CHARS

MAX_SEGMENTS: Final = 64
MAX_MASKS: Final = 10_000
"""Bound of a compiled filter: paths that mix `*` and names can need a mask for every combination of them."""

_PLAIN = re.compile(r"(?:\*|[\w$@:-]+)(?:\.(?:\*|[\w$@:-]+))*")
_ABSENT: Final = object()


class PathSyntaxError(ValueError):
    """Not a path, or too many of them. The message is for the person who wrote it."""


class PathFailed(ValueError):
    """A path over a value that isn't an object or an array."""


def plain_path(text: str) -> tuple[str, ...] | None:
    """The segments of a plain path; None when `text` isn't one. A lone `@` is JMESPath's current value."""
    if text == "@" or not _PLAIN.fullmatch(text) or text.count(".") >= MAX_SEGMENTS:
        return None
    return tuple(text.split("."))


def follow(value: Any, path: Sequence[str], pay: Callable[[int], None]) -> Any:
    """What a plain path picks: the value itself, or one flat list once the path goes through an array or a `*`.

    What isn't found is None, in a list it is skipped. `pay` is told of every four values that are gone through.
    """
    # Most paths lead through objects only: nothing is gone through then, and nothing has to be collected.
    at = 0
    for name in path:
        if not is_object(value) or name == "*":
            break
        if name not in value:
            return None
        value = value[name]
        at += 1
    else:
        return value
    return _collected(value, path, at, pay)


def _collected(value: Any, path: Sequence[str], at: int, pay: Callable[[int], None]) -> Any:
    def go(value: Any, at: int) -> tuple[Any, bool]:
        while at < len(path):
            name = path[at]
            if is_object(value):
                if name == "*":
                    return collect(value.values(), at + 1)
                if name not in value:
                    return _ABSENT, False
                value = value[name]
            elif is_array(value):
                if not _is_index(name):
                    return collect(value, at)
                index = int(name)
                if index >= len(value):
                    return _ABSENT, False
                value = value[index]
            else:
                return _ABSENT, False
            at += 1
        return value, False

    def collect(values: Collection[Any], at: int) -> tuple[list[Any], bool]:
        pay(1 + len(values) // 4)
        collected: list[Any] = []
        for item in values:
            found, _ = go(item, at)
            if is_array(found):
                collected.extend(found)
            elif found is not _ABSENT:
                collected.append(found)
        return collected, True

    found, _ = go(value, at)
    return found if found is not _ABSENT else None


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 10


# --------------------------------------------------------------------------- the filter


@dataclass(slots=True)
class Mask:
    """What stays of a value: `whole` keeps it; else the named members of an object and the items of an array.

    Masks of `names` already hold what `*` (`rest`) keeps as well; `at` are the indexed items, `each` is for the others.
    """

    whole: bool = False
    names: "dict[str, Mask] | None" = None
    rest: "Mask | None" = None
    at: "dict[int, Mask] | None" = None
    each: "Mask | None" = None

    def keep(self, value: Any) -> Any:
        """The value with only what the mask keeps; a new value, the old one is shared, never changed."""
        if value is None or value == "":
            return value  # an empty answer has nothing to take away
        if not (is_object(value) or is_array(value)):
            raise PathFailed(f"a filter needs an object or an array; there was {kind_of(value)}")
        kept = self._keep(value)
        return kept if kept is not _ABSENT else type(value)()

    def _keep(self, value: Any) -> Any:
        if self.whole or value == {} or value == []:
            return value
        if is_object(value):
            return self._members(value)
        if is_array(value):
            return self._items(value)
        return _ABSENT

    def _members(self, value: dict[str, Any]) -> Any:
        kept: dict[str, Any] = {}
        names, rest = self.names or {}, self.rest
        for name, member in value.items():
            mask = names.get(name, rest)
            if mask is not None and (below := member if mask.whole else mask._keep(member)) is not _ABSENT:
                kept[name] = below
        return kept or _ABSENT

    def _items(self, value: list[Any]) -> Any:
        each, at = self.each, self.at or {}
        kept: list[Any] = []
        for index, item in enumerate(value):
            mask = at.get(index, each)
            if mask is not None and (below := mask._keep(item)) is not _ABSENT:
                kept.append(below)
        return kept or _ABSENT


def compile_mask(paths: Sequence[str]) -> Mask:
    """The mask of a filter's plain paths. Raises PathSyntaxError."""
    for path in paths:
        if (fault := path_fault(path)) is not None:
            raise PathSyntaxError(fault)
    made = 0

    def build(rows: tuple[tuple[str, ...], ...], memo: dict[tuple[tuple[str, ...], ...], Mask]) -> Mask:
        nonlocal made
        if rows in memo:
            return memo[rows]
        if () in rows:
            memo[rows] = Mask(whole=True)
            return memo[rows]
        made += 1
        if made > MAX_MASKS:
            raise PathSyntaxError("these paths combine * and names in too many ways; use fewer of them")
        mask = memo[rows] = Mask()
        anything = tuple(row[1:] for row in rows if row[0] == "*")
        mask.rest = build(anything, memo) if anything else None
        heads = dict.fromkeys(row[0] for row in rows if row[0] != "*")
        mask.names = {
            head: build(_unique((*(row[1:] for row in rows if row[0] == head), *anything)), memo) for head in heads
        }
        through = tuple(row for row in rows if not _is_index(row[0]))
        mask.each = build(through, memo) if through else None
        mask.at = {
            int(head): build(_unique((*(row[1:] for row in rows if row[0] == head), *through)), memo)
            for head in heads
            if _is_index(head)
        }
        return mask

    return build(_unique(tuple(path.split(".")) for path in paths), {})


def _unique(rows: Iterable[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    return tuple(dict.fromkeys(rows))


def path_fault(text: str) -> str | None:
    """Why `text` is not a plain path; None when it is one."""
    if len(text) > MAX_EXPRESSION_CHARS:
        return f"a path has at most {MAX_EXPRESSION_CHARS} characters"
    if not _PLAIN.fullmatch(text):
        return f"{text!r} is not a path: names joined by dots (entry.resource.id); a number indexes, * is any key"
    if text.count(".") >= MAX_SEGMENTS:
        return f"a path has at most {MAX_SEGMENTS} names"
    return None
