"""Token buckets against the sentence that describes them: at most `calls` at once, and as many again in the time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.rates import Rate, Rates, rate_of


@pytest.mark.parametrize(
    ("text", "rate"), [("10/s", Rate(10, 1)), ("600/min", Rate(600, 60)), ("1000/h", Rate(1000, 3600))]
)
def test_a_rate_is_read_as_operators_write_it(text: str, rate: Rate) -> None:
    assert rate_of(text) == rate


@pytest.mark.parametrize("text", ["", "10", "0/s", "-1/s", "1/d", "10 /s", "1.5/s", "10/s\n", "99999999/s"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="600/min"):
        rate_of(text)


@given(
    calls=st.integers(1, 20),
    seconds=st.sampled_from([1.0, 60.0]),
    steps=st.lists(st.floats(0, 30, allow_nan=False), max_size=120),
)
def test_in_no_span_are_there_more_calls_than_the_rate_allows(calls: int, seconds: float, steps: list[float]) -> None:
    now, taken = [0.0], list[float]()
    rates, rate = Rates(lambda: now[0]), Rate(calls, seconds)
    for step in steps:
        now[0] += step
        wait = rates.wait_s("x", rate)
        if wait == 0:
            rates.take("x", rate)
            taken.append(now[0])
        else:
            assert wait <= seconds / calls + 1e-6
    for i, first in enumerate(taken):
        for j in range(i, len(taken)):
            assert j - i + 1 <= calls + (taken[j] - first) * rate.per_second + 1e-6


def test_after_the_time_that_was_told_one_more_call_fits() -> None:
    now = [0.0]
    rates, rate = Rates(lambda: now[0]), Rate(3, 60)
    for _ in range(3):
        assert rates.wait_s("x", rate) == 0
        rates.take("x", rate)
    wait = rates.wait_s("x", rate)
    assert wait == pytest.approx(20)
    now[0] += wait
    assert rates.wait_s("x", rate) == pytest.approx(0)
    assert rates.wait_s("y", rate) == 0
