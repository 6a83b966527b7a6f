"""Names: what hosts and models see."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.models import ENDPOINT_NAME, INTEGRATION_NAME
from tools.naming import RESERVED, nearest, property_aliases, tool_name


def test_a_short_name_is_both_names_joined() -> None:
    assert tool_name("clinic", "search_patients") == "clinic_search_patients"


def test_a_dot_is_not_a_character_of_tool_names() -> None:
    assert tool_name("clinic", "patient.get") == "clinic_patient_get"


def test_a_long_name_keeps_whole_words_and_ends_in_a_hash() -> None:
    name = tool_name("clinic", "search_patients_by_family_name_and_birthdate_and_more")
    assert re.fullmatch(r"clinic_search_patients_by_family_name_and_[a-z2-7]{6}", name)


def test_long_names_that_begin_alike_differ() -> None:
    head = "search_patients_by_family_name_and_birthdate_"
    assert tool_name("clinic", head + "one") != tool_name("clinic", head + "two")


def test_the_hash_depends_on_where_one_name_ends_and_the_other_begins() -> None:
    assert tool_name("a_b" * 10, "c" * 40) != tool_name("a_b" * 10 + "_c", "c" * 38)


@given(
    st.from_regex(INTEGRATION_NAME, fullmatch=True).filter(lambda n: n.isascii()),
    st.from_regex(ENDPOINT_NAME, fullmatch=True).filter(lambda n: n.isascii()),
    st.integers(24, 64),
)
@settings(max_examples=100, deadline=None)
def test_every_tool_name_is_within_the_limit_and_its_characters(integration: str, endpoint: str, limit: int) -> None:
    name = tool_name(integration, endpoint, limit)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", name)
    assert len(name) <= limit
    assert tool_name(integration, endpoint, limit) == name


def test_admin_and_result_tools_are_reserved() -> None:
    assert {"get_result", "find_tools", "call_tool", "test_integration_endpoint"} <= RESERVED
    assert all(name == name.lower() for name in RESERVED)


@pytest.mark.parametrize(
    ("given_name", "known", "meant"),
    [
        ("birthDate", ["family", "birth_date"], "birth_date"),
        ("fammily", ["family", "given"], "family"),
        ("limits", ["limit", "offset"], "limit"),
        ("zebra", ["family", "given"], None),
        ("anything", [], None),
        ("", ["family"], None),
        ("filter[name]", ["filter_name", "name"], "filter_name"),
    ],
)
def test_the_nearest_name_is_the_one_that_was_probably_meant(
    given_name: str, known: list[str], meant: str | None
) -> None:
    assert nearest(given_name, known) == meant


def test_names_that_every_provider_takes_have_no_alias() -> None:
    assert property_aliases(["family", "birth-date", "_id", "n" * 64]) == {}


def test_brackets_become_underscores() -> None:
    assert property_aliases(["filter[name]"]) == {"filter[name]": "filter_name"}


def test_an_alias_never_takes_a_name_that_is_there() -> None:
    aliases = property_aliases(["filter[name]", "filter_name", "filter.name"])
    assert len({*aliases.values(), "filter_name"}) == 3


@given(st.lists(st.text(max_size=80), max_size=12))
@settings(max_examples=150, deadline=None)
def test_aliases_are_legal_and_unique(names: list[str]) -> None:
    aliases = property_aliases(names)
    published = [aliases.get(n, n) for n in dict.fromkeys(names)]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in published)
    assert len(set(published)) == len(published)
