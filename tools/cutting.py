"""The last stage: a result that is longer than its limit is cut by whole items, lines or words, and says so in its first line.

`divide` decides once how a whole result is counted; `cut` takes the part from `start` that fits; `cut_note` is the first line. What
is kept for get_result is the `Whole`, so that `from` means the same in every call. `find` and `fields` narrow a kept result.
All pure. Wording: docs/shaping.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from tools.json_values import is_array, is_object, kind_of, write_json
from tools.paths import compile_mask

Unit = Literal["items", "lines", "characters"]

LEAST_SHOWN: Final = 200
"""Characters: below this much room the note comes on top of the limit instead of leaving nothing to read."""
NOTE_ROOM: Final = 400
"""What `divide` leaves for the note when it asks whether whole items or lines fit."""
LINE: Final = 200
"""JSON that must be cut is laid out anew: what fits this many characters stays on one line."""
_NARROWING = frozenset(
    {
        "after",
        "before",
        "category",
        "count",
        "cursor",
        "date",
        "family",
        "fields",
        "filter",
        "first",
        "from",
        "given",
        "include",
        "kind",
        "last",
        "limit",
        "max",
        "name",
        "offset",
        "page",
        "query",
        "search",
        "select",
        "since",
        "size",
        "skip",
        "state",
        "status",
        "take",
        "to",
        "top",
        "type",
        "until",
        "where",
    }
)
_NARROWING_ALONE = frozenset({"q", "birthdate", "birthday", "elements", "summary", "perpage", "pagesize"})
MAX_NARROWING: Final = 5


def write(value: Any) -> str:
    """A result without a template: text is itself, an array of objects one item a line, anything else compact JSON."""
    if isinstance(value, str):
        return value
    if has_items(value):
        return "[" + ",\n".join(map(write_json, value)) + "]"
    return write_json(value)


def has_items(value: Any) -> bool:
    """Whether a value is written one item a line: a non-empty array of objects."""
    return is_array(value) and bool(value) and all(is_object(item) for item in value)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole result and how it is counted. `parts` are its items (JSON texts) or lines; empty for characters."""

    text: str
    unit: Unit
    parts: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return len(self.text) if self.unit == "characters" else len(self.parts)


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a whole: positions `first` to `last` (inclusive; last < first when nothing is shown) of `total`."""

    text: str
    unit: Unit
    first: int
    last: int
    total: int
    shown_chars: int
    total_chars: int
    next_from: int | None

    @property
    def is_whole(self) -> bool:
        return self.first == 0 and self.next_from is None


def divide(text: str, value: Any, limit: int) -> Whole:
    """How a result is counted under this limit: by items, else by lines, else by characters (cut between words).

    `value` is the JSON value that `text` was written from by `write`; a template's text is given as its own value. A unit is
    taken only if each of its pieces fits. JSON that isn't an array of objects is laid out over lines first, so that a line never
    ends within a member.
    """
    room = max(limit - NOTE_ROOM, LEAST_SHOWN)
    if has_items(value):
        items = tuple(map(write_json, value))
        if max(map(len, items)) + 2 <= room:
            return Whole(text, "items", items)
    lines = text.split("\n") if isinstance(value, str) else _layout(value)
    if len(lines) > 1 and max(map(len, lines)) < room:
        return Whole("\n".join(lines), "lines", tuple(lines))
    return Whole(text, "characters")


def _layout(value: Any) -> list[str]:
    """JSON over lines: an object or array opens only where it doesn't fit one; each line ends where a value does."""
    lines: list[str] = []

    def lay(value: Any, head: str, tail: str) -> None:
        text = write_json(value)
        if len(text) <= LINE or not (is_object(value) or is_array(value)):
            lines.append(head + text + tail)
            return
        opening, closing = "{}" if is_object(value) else "[]"
        members: list[tuple[str, Any]] = (
            [(write_json(name) + ":", member) for name, member in value.items()]
            if is_object(value)
            else [("", item) for item in value]
        )
        lines.append(head + opening)
        for index, (name, member) in enumerate(members):
            lay(member, name, "," if index < len(members) - 1 else "")
        lines.append(closing + tail)

    try:
        lay(value, "", "")
    except RecursionError:
        return [write_json(value)]
    return lines


def cut(whole: Whole, limit: int, start: int = 0) -> Cut:
    """As much of `whole` from position `start` as `limit` characters hold; at least one piece. `start` past the end shows nothing."""
    total = whole.total
    first = min(max(start, 0), total)
    if whole.unit == "characters":
        end = _word_end(whole.text, first, max(limit, 1))
        text = whole.text[first:end]
    else:
        brackets, between = (2, 2) if whole.unit == "items" else (0, 1)
        end, used = first, brackets - between
        while end < total and (end == first or used + between + len(whole.parts[end]) <= limit):
            used += between + len(whole.parts[end])
            end += 1
        shown = whole.parts[first:end]
        text = "[" + ",\n".join(shown) + "]" if whole.unit == "items" else "\n".join(shown)
    return Cut(text, whole.unit, first, end - 1, total, len(text), len(whole.text), end if end < total else None)


def _word_end(text: str, first: int, limit: int) -> int:
    """Where the part from `first` ends: after the last blank or comma that fits, else (one long word) at the limit."""
    end = first + limit
    if end >= len(text):
        return len(text)
    breaks = [at for mark in (" ", "\n", "\t", ",") if (at := text.rfind(mark, first, end)) >= 0]
    return max(breaks) + 1 if breaks else end


def cut_note(cut: Cut, *, narrowing: Sequence[str], result_id: str | None, kept_until: str | None) -> str:
    """The first line of a cut result: what is shown, and how to get the rest. `kept_until` is a time of day in UTC: "14:32"."""
    size = f"({cut.shown_chars:,} of {cut.total_chars:,} characters)"
    if cut.last < cut.first:
        shown = f"Nothing from {cut.first:,} on: there are {cut.total:,} {cut.unit}."
    elif cut.unit == "characters":
        shown = f"Showing characters {cut.first:,}-{cut.last:,} of {cut.total:,}."
    else:
        shown = f"Showing {cut.unit} {cut.first:,}-{cut.last:,} of {cut.total:,} {size}."
    ways: list[str] = []
    if narrowing and cut.next_from is not None:
        ways.append(f"narrow the call with {_or(narrowing)}")
    if result_id is not None and cut.next_from is not None:
        ways.append(f'read on: get_result {{"result_id":"{result_id}","from":{cut.next_from}}}')
    rest = "; or ".join(ways)
    until = f" Kept until {kept_until} UTC." if result_id is not None and kept_until is not None else ""
    return f"[{shown}{f' {rest[0].upper()}{rest[1:]}.' if rest else ''}{until}]"


def _or(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def fit(
    whole: Whole,
    limit: int,
    start: int = 0,
    *,
    narrowing: Sequence[str] = (),
    result_id: str | None = None,
    kept_until: str | None = None,
) -> tuple[Cut, str]:
    """The part from `start` and the text to answer with: the whole as it is, or note, line break and part, within `limit`.

    `limit` 0 is none. The note counts inside the limit; where less than LEAST_SHOWN characters would be left it comes on top.
    """
    if limit <= 0 or (start <= 0 and len(whole.text) <= limit):
        everything = cut(whole, len(whole.text) + 2, start)
        if everything.is_whole:
            return everything, whole.text
        return everything, _noted(everything, narrowing, result_id, kept_until)
    total, chars = whole.total, len(whole.text)
    # The longest note that this whole can have: every number as long as the total's.
    longest = Cut("", whole.unit, total, total, total, chars, chars, total)
    note = cut_note(longest, narrowing=narrowing, result_id=result_id, kept_until=kept_until)
    part = cut(whole, max(limit - len(note) - 1, LEAST_SHOWN), start)
    return part, _noted(part, narrowing, result_id, kept_until)


def _noted(part: Cut, narrowing: Sequence[str], result_id: str | None, kept_until: str | None) -> str:
    note = cut_note(part, narrowing=narrowing, result_id=result_id, kept_until=kept_until)
    return f"{note}\n{part.text}" if part.text else note


def narrowing_names(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """Arguments of an input schema that make an answer shorter, in its order, at most five: paging, limits, fields, filters.

    Told by the words of their names (`page_size`, `birthDateFrom`); fixed arguments (`x-fixed`) are not the caller's to change.
    """
    properties: Any = schema.get("properties")
    if not is_object(properties):
        return ()
    names: list[str] = []
    for name, property in properties.items():
        fixed = is_object(property) and bool(property.get("x-fixed"))
        if not fixed and _narrows(name):
            names.append(name)
    return tuple(names[:MAX_NARROWING])


def _narrows(name: str) -> bool:
    spaced = "".join(f" {c.lower()}" if c.isupper() else c if c.isalnum() else " " for c in name)
    words = spaced.split()
    return not _NARROWING.isdisjoint(words) or words == ["id", "s"] or "".join(words) in _NARROWING_ALONE


def find(whole: Whole, text: str) -> Whole:
    """Only the items or lines that hold `text`, ignoring case; positions count among those. Characters are searched by line."""
    wanted = text.casefold()
    parts = whole.parts if whole.unit != "characters" else tuple(whole.text.split("\n"))
    kept = tuple(part for part in parts if wanted in part.casefold())
    if whole.unit == "items":
        return Whole("[" + ",\n".join(kept) + "]", "items", kept)
    return Whole("\n".join(kept), whole.unit, kept if whole.unit == "lines" else ())


def pick(value: Any, fields: Sequence[str]) -> Any:
    """Only these fields of a kept value, as response_filter keeps them. Raises ValueError in words for a model."""
    if not (is_object(value) or is_array(value)):
        raise ValueError(f"fields needs a result that is an object or an array; this one is {kind_of(value)}")
    return compile_mask(fields).keep(value) if fields else value
