"""What a cursor is bound to (rules G2). Pure."""

import pytest

from tools.cursors import LIVES_S, Cursors
from tools.errors import InvalidArguments

OF = ("acme", "i-1", "find", "key-1")
ARGUMENTS = {"status": "a", "ward": 10**30}
TARGET = "/fhir/Patient?page=2"


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_cursor_says_nothing_and_gives_back_what_was_sealed() -> None:
    cursors = Cursors(bytes(32))
    cursor = cursors.seal(TARGET, OF, ARGUMENTS)
    assert cursors.open(cursor, OF, dict(reversed(ARGUMENTS.items()))) == TARGET
    assert cursor != cursors.seal(TARGET, OF, ARGUMENTS)


@pytest.mark.parametrize("place", range(4))
def test_each_of_workspace_integration_endpoint_and_caller_counts(place: int) -> None:
    cursors = Cursors(bytes(32))
    other = tuple("other" if n == place else part for n, part in enumerate(OF))
    with pytest.raises(InvalidArguments):
        cursors.open(cursors.seal(TARGET, OF, ARGUMENTS), other, ARGUMENTS)


def test_other_arguments_another_key_and_an_hour_later_are_refused() -> None:
    clock = Clock()
    cursors = Cursors(bytes(32), now=clock)
    cursor = cursors.seal(TARGET, OF, ARGUMENTS)
    with pytest.raises(InvalidArguments):
        cursors.open(cursor, OF, {**ARGUMENTS, "status": "b"})
    with pytest.raises(InvalidArguments):
        Cursors(b"x" * 32).open(cursor, OF, ARGUMENTS)
    clock.now += LIVES_S - 1
    assert cursors.open(cursor, OF, ARGUMENTS) == TARGET
    clock.now += 2
    with pytest.raises(InvalidArguments, match="older than an hour"):
        cursors.open(cursor, OF, ARGUMENTS)
