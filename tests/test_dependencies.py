"""Everything that is shipped is pinned and under a licence that may be shipped; the list itself is compared in test_docs."""

from importlib.metadata import distribution

import pytest

from tests.dependencies import ALLOWED, brought, licence_of, parts_of, pins


@pytest.mark.parametrize("name", sorted(brought()))
def test_what_is_shipped_is_pinned_as_it_was_tested_and_may_be_shipped(name: str) -> None:
    assert pins()[name] == distribution(name).version
    assert parts_of(licence_of(distribution(name))) <= ALLOWED
