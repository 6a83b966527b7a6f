"""The filter as a law: it never adds, keeps the order, and doing it twice is doing it once."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tools.cutting import pick
from tools.paths import follow

names = st.sampled_from(["a", "b", "c", "x-y"])
trees = st.recursive(
    st.none() | st.integers(0, 9) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=25,
)
roots = st.lists(trees, max_size=4) | st.dictionaries(names, trees, max_size=4)
paths = st.lists(st.lists(names | st.just("*"), min_size=1, max_size=4).map(".".join), min_size=1, max_size=4)
indexed = st.lists(
    st.lists(names | st.just("*") | st.sampled_from("012"), min_size=1, max_size=4).map(".".join),
    min_size=1,
    max_size=4,
)


def is_within(kept: Any, whole: Any) -> bool:
    """`kept` is `whole` with things left out: members in their order, items as a subsequence."""
    match kept, whole:
        case dict(), dict():
            order = [name for name in whole if name in kept]
            return list(kept) == order and all(is_within(kept[name], whole[name]) for name in kept)
        case list(), list():
            rest = iter(whole)
            return all(any(is_within(item, other) for other in rest) for item in kept)
        case _:
            return kept == whole


@given(value=roots, fields=indexed)
def test_a_filter_never_adds_and_keeps_the_order(value: Any, fields: list[str]) -> None:
    assert is_within(pick(value, fields), value)


@given(value=roots, fields=paths)
def test_filtering_twice_is_filtering_once(value: Any, fields: list[str]) -> None:
    once = pick(value, fields)
    assert pick(once, fields) == once


@given(value=roots, fields=paths, more=paths)
def test_more_paths_keep_at_least_as_much(value: Any, fields: list[str], more: list[str]) -> None:
    assert is_within(pick(value, fields), pick(value, fields + more))


@given(value=roots, path=paths.map(lambda rows: rows[0]))
def test_a_path_finds_the_same_in_what_the_filter_kept_of_it(value: Any, path: str) -> None:
    def found(value: Any) -> Any:
        return follow(value, path.split("."), lambda _: None)

    # An array in which nothing stayed is left out whole, so that nothing found can be [] or None.
    assert (found(pick(value, [path])) or None) == (found(value) or None)
