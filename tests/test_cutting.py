"""Long results: the note's words, whole pieces, reading on, finding and picking."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.cutting import LEAST_SHOWN, Cut, cut, cut_note, divide, find, fit, narrowing_names, pick, write

PEOPLE = [{"id": str(i), "name": f"Person {i}", "birthdate": "1987-04-21"} for i in range(642)]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
    max_leaves=40,
)
results = (
    st.lists(st.dictionaries(st.text(max_size=8), json_values, max_size=4), max_size=30)
    | json_values
    | st.text(alphabet=st.sampled_from("ab ,\né\U0001f600"), max_size=3000)
)


def part(**changes: Any) -> Cut:
    fields: dict[str, Any] = {
        "text": "", "unit": "items", "first": 0, "last": 118, "total": 642, "shown_chars": 39870, "total_chars": 214332, "next_from": 119,
    }  # fmt: skip
    return Cut(**(fields | changes))


@pytest.mark.parametrize(
    ("cut", "narrowing", "result_id", "kept_until", "note"),
    [
        (
            part(),
            ("family", "birthdate", "limit"),
            "r_7hK2mQ",
            "14:32",
            "[Showing items 0-118 of 642 (39,870 of 214,332 characters). Narrow the call with family, birthdate or limit; "
            'or read on: get_result {"result_id":"r_7hK2mQ","from":119}. Kept until 14:32 UTC.]',
        ),
        (
            part(),
            (),
            "r_7hK2mQ",
            "14:32",
            "[Showing items 0-118 of 642 (39,870 of 214,332 characters). "
            'Read on: get_result {"result_id":"r_7hK2mQ","from":119}. Kept until 14:32 UTC.]',
        ),
        (
            part(),
            ("limit",),
            None,
            None,
            "[Showing items 0-118 of 642 (39,870 of 214,332 characters). Narrow the call with limit.]",
        ),
        (part(), (), None, None, "[Showing items 0-118 of 642 (39,870 of 214,332 characters).]"),
        (
            part(unit="lines", first=600, last=641, next_from=None),
            ("limit",),
            "r_1",
            "14:32",
            "[Showing lines 600-641 of 642 (39,870 of 214,332 characters). Kept until 14:32 UTC.]",
        ),
        (
            part(unit="characters", last=3999, total=214332, next_from=4000),
            (),
            "r_1",
            None,
            '[Showing characters 0-3,999 of 214,332. Read on: get_result {"result_id":"r_1","from":4000}.]',
        ),
        (part(first=642, last=641, next_from=None), (), "r_1", None, "[Nothing from 642 on: there are 642 items.]"),
    ],
)
def test_the_note_says_what_is_shown_and_how_to_get_the_rest(
    cut: Cut, narrowing: tuple[str, ...], result_id: str | None, kept_until: str | None, note: str
) -> None:
    assert cut_note(cut, narrowing=narrowing, result_id=result_id, kept_until=kept_until) == note


def test_a_result_within_its_limit_is_given_whole_without_a_note() -> None:
    text = write(PEOPLE)
    for limit in (len(text), 0):
        shown, told = fit(divide(text, PEOPLE, limit), limit)
        assert told == text
        assert shown.is_whole


def test_a_cut_list_is_whole_items_after_its_note() -> None:
    text = write(PEOPLE)
    assert text.count("\n") == 641
    shown, told = fit(divide(text, PEOPLE, 2000), 2000, narrowing=("limit",), result_id="r_1", kept_until="14:32")
    note, rest = told.split("\n", 1)
    assert note.startswith(f"[Showing items 0-{shown.last} of 642 (")
    assert json.loads(rest) == PEOPLE[: shown.last + 1]
    assert shown.next_from == shown.last + 1
    assert len(told) <= 2000
    # one more item wouldn't have fitted beside the longest note
    assert len(told) + len(json.dumps(PEOPLE[shown.last + 1])) > 2000 - 40


def test_one_big_object_is_cut_by_lines_that_each_end_where_a_value_does() -> None:
    value = {"total": 642, "entry": PEOPLE, "note": "a" * 150}
    text = write(value)
    assert "\n" not in text
    whole = divide(text, value, 3000)
    assert whole.unit == "lines"
    assert json.loads(whole.text) == value
    _, told = fit(whole, 3000)
    lines = told.split("\n")
    assert lines[1:4] == ["{", '"total":642,', '"entry":[']
    assert all(json.loads(line.rstrip(",")) in PEOPLE for line in lines[4:])


def test_an_item_longer_than_the_limit_is_laid_out_over_lines_and_a_longer_text_cut_at_words() -> None:
    assert divide(write(PEOPLE), PEOPLE, 2000).unit == "items"
    wide = [{"rows": PEOPLE}]
    assert divide(write(wide), wide, 2000).unit == "lines"
    words = "word " * 1000
    whole = divide(words, words, 1000)
    assert whole.unit == "characters"
    shown, _ = fit(whole, 1000)
    assert shown.text.endswith("word ")
    endless = "x" * 5000
    assert cut(divide(endless, endless, 1000), 700).shown_chars == 700


@pytest.mark.parametrize("limit", [1, 50, 200])
def test_a_limit_smaller_than_the_note_still_shows_something_and_goes_on(limit: int) -> None:
    text = "word " * 1000
    shown, told = fit(divide(text, text, limit), limit, result_id="r_1")
    assert told.startswith("[Showing characters 0-")
    assert 0 < shown.shown_chars <= LEAST_SHOWN
    assert shown.next_from == shown.shown_chars


def test_reading_past_the_end_says_so() -> None:
    _, told = fit(divide(write(PEOPLE), PEOPLE, 2000), 2000, 9999, result_id="r_1")
    assert told.startswith("[Nothing from 642 on: there are 642 items.]")


@given(value=results, limit=st.integers(500, 3000))
def test_reading_on_gives_everything_exactly_once(value: Any, limit: int) -> None:
    text = write(value)
    whole = divide(text, value, limit)
    start: int | None = 0
    parts: list[Cut] = []
    while start is not None:
        shown, told = fit(whole, limit, start, narrowing=("limit",), result_id="r_1234567", kept_until="14:32")
        assert len(told) <= limit
        assert shown.next_from is None or shown.next_from > start
        parts.append(shown)
        start = shown.next_from
    if whole.unit == "items" and len(parts) > 1:
        assert [item for shown in parts for item in json.loads(shown.text)] == value
    elif whole.unit == "lines":
        assert "\n".join(shown.text for shown in parts) == whole.text
    elif len(parts) > 1:
        assert "".join(shown.text for shown in parts) == text
    else:
        assert parts[0].is_whole


@given(value=results, limit=st.integers(1, 3000), start=st.integers(-5, 4000))
def test_a_cut_is_the_same_every_time_and_never_broken_json(value: Any, limit: int, start: int) -> None:
    text = write(value)
    first, second = (fit(divide(text, value, limit), limit, start) for _ in range(2))
    assert first == second
    if first[0].unit == "items":
        json.loads(first[0].text)
    if not first[0].is_whole:
        assert first[1].startswith("[")
        assert "]" in first[1].split("\n", 1)[0]


@given(value=results, limit=st.integers(1, 3000))
def test_laying_json_out_over_lines_keeps_the_value(value: Any, limit: int) -> None:
    whole = divide(write(value), value, limit)
    if not isinstance(value, str):
        assert json.loads(whole.text) == value


def test_find_keeps_the_items_and_lines_that_hold_a_text_ignoring_case() -> None:
    found = find(divide(write(PEOPLE), PEOPLE, 2000), "PERSON 64")
    assert json.loads(found.text) == [PEOPLE[64], *PEOPLE[640:642]]
    assert found.total == 3
    text = "\n".join(f"line {i}" for i in range(500))
    assert find(divide(text, text, 1000), "Line 49").parts == ("line 49", *(f"line {i}" for i in range(490, 500)))
    words = "alpha beta " * 300
    assert find(divide(words, words, 1000), "BETA").text == words
    assert find(divide(words, words, 1000), "gamma").total == 0


def test_pick_is_the_mask_of_a_filter() -> None:
    assert pick(PEOPLE[:1], ["id"]) == [{"id": "0"}]
    assert pick(PEOPLE[:1], []) == PEOPLE[:1]
    for value, fields in (("text", ["id"]), (PEOPLE, ["a..b"])):
        with pytest.raises(ValueError, match=r"fields needs|not a path"):
            pick(value, fields)


@pytest.mark.parametrize(
    ("names", "narrowing"),
    [
        (["family", "birthdate", "limit"], ("family", "birthdate", "limit")),
        (
            ["page_size", "pageToken", "birthDateFrom", "q", "_count"],
            ("page_size", "pageToken", "birthDateFrom", "q", "_count"),
        ),
        (["id", "amount", "note", "body", "counterparty", "typewriter"], ()),
        (["limit", "offset", "fields", "filter", "status", "since"], ("limit", "offset", "fields", "filter", "status")),
    ],
)
def test_the_names_that_narrow_come_from_the_schema(names: list[str], narrowing: tuple[str, ...]) -> None:
    assert narrowing_names({"properties": {name: {"type": "string"} for name in names}}) == narrowing


@pytest.mark.parametrize(
    "schema", [{}, {"properties": None}, {"properties": {"limit": {"x-fixed": True, "const": 5}, "x": True}}]
)
def test_a_schema_without_such_names_offers_none(schema: dict[str, Any]) -> None:
    assert narrowing_names(schema) == ()
