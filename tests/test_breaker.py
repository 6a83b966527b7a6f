"""The circuit breaker: when it opens, who is let through, and what closes it; at the far end nothing arrives while it is open."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.upstreams import Hostile, answer, drop, silence
from tests.world import World, gateway
from tools.breaker import Breaker, BreakerRules
from tools.errors import (
    CallError,
    CertificateRefused,
    CircuitOpen,
    InvalidArguments,
    OutcomeUnknown,
    UpstreamStatus,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from tools.parsing import parse_update

X = ("i_1", 1, "https://x:443")
DOWN = UpstreamUnreachable("no connection")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(BreakerRules(failures=3, rest_s=10), clock)
    for _ in range(3):
        breaker.check(X)
        breaker.ended(X, DOWN, answered=False)
    return breaker


def test_it_opens_after_failures_in_a_row_and_says_when_to_come_back() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 4
    with pytest.raises(CircuitOpen, match="failed 3 calls in a row") as e:
        breaker.check(X)
    assert e.value.retry_after_s == pytest.approx(6)
    breaker.check(("i_1", 1, "https://other:443"))
    breaker.check(("i_1", 2, "https://x:443"))


def test_a_success_between_failures_begins_the_count_anew() -> None:
    breaker = Breaker(BreakerRules(failures=3), Clock())
    for error in (DOWN, DOWN, None, DOWN, DOWN):
        breaker.check(X)
        breaker.ended(X, error, answered=error is None)
    breaker.check(X)


def test_after_the_rest_one_call_is_let_through_and_its_success_closes_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    breaker.check(X)
    with pytest.raises(CircuitOpen):
        breaker.check(X)
    breaker.ended(X, None, answered=True)
    breaker.check(X)
    breaker.check(X)


def test_a_failed_trial_doubles_the_rest_up_to_six_times() -> None:
    clock = Clock()
    breaker, rests = opened(clock), list[float]()
    for _ in range(4):
        with pytest.raises(CircuitOpen) as e:
            breaker.check(X)
        assert e.value.retry_after_s is not None
        rests.append(e.value.retry_after_s)
        clock.now += e.value.retry_after_s
        breaker.check(X)
        breaker.ended(X, DOWN, answered=False)
    assert rests == [10, 20, 40, 60]


def test_a_trial_that_says_nothing_lets_the_next_one_try() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    breaker.check(X)
    breaker.ended(X, None, answered=False)  # cancelled by its caller
    breaker.check(X)


def test_calls_that_were_under_way_when_it_opened_change_nothing() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 5
    breaker.ended(X, DOWN, answered=False)
    with pytest.raises(CircuitOpen) as e:
        breaker.check(X)
    assert e.value.retry_after_s == pytest.approx(5)


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (UpstreamTimeout("t", sent="yes", retryable=True), True),
        (UpstreamUnavailable("u", upstream_status=503), True),
        (UpstreamUnavailable("busy", upstream_status=429), False),
        (OutcomeUnknown("lost"), True),
        (OutcomeUnknown("answered", upstream_status=500), False),
        (OutcomeUnknown("answered", upstream_status=504), True),
        (UpstreamStatus("s", upstream_status=500), False),
        (CertificateRefused("c"), False),
        (InvalidArguments([], ()), False),
    ],
)
def test_only_an_upstream_that_is_down_counts(error: CallError, counts: bool) -> None:
    breaker = Breaker(BreakerRules(failures=1), Clock())
    breaker.ended(X, error, answered=error.sent == "yes")
    if counts:
        with pytest.raises(CircuitOpen):
            breaker.check(X)
    else:
        breaker.check(X)


def test_zero_failures_switch_it_off() -> None:
    breaker = Breaker(BreakerRules(failures=0), Clock())
    for _ in range(100):
        breaker.ended(X, DOWN, answered=False)
    breaker.check(X)


# -- through the gateway


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


async def written(world: World, upstream: Hostile, **fields: object) -> None:
    read = {
        "name": "read",
        "description": "d",
        "method": "GET",
        "path": "/x",
        "retry_config": {"max_retries": 0},
        **fields,
    }
    await world.create({"name": "sy", "display_name": "S", "base_url": upstream.url, "endpoints": [read]})


@pytest.mark.anyio
async def test_nothing_reaches_an_upstream_that_rests_and_agents_are_told(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path, breaker_failures=3, breaker_rest=600) as world:
        await written(world, upstream)
        upstream.script("/x", answer(503))
        for _ in range(3):
            assert "[upstream_unavailable]" in await world.call("sy_read")
        text = await world.call("sy_read")
        assert text.startswith("Not sent: the sy's server failed 3 calls in a row, and the gateway gives it a rest.")
        assert "[circuit_open]" in text
        assert "its Retry-After" not in text
        assert len(upstream.received) == 3
        health = await world.app.admin.health(world.owner)
        (circuit,) = health["integrations"][0]["circuits"]
        assert (circuit["state"], circuit["failures"]) == ("open", 3)
        assert 590 <= circuit["tries_again_s"] <= 600


@pytest.mark.anyio
async def test_a_test_connection_that_reaches_it_closes_the_circuit(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path, breaker_failures=1, breaker_rest=600) as world:
        await written(world, upstream)
        upstream.script("/x", drop, answer(200, b"fine"))
        assert "[answer_lost]" in await world.call("sy_read")
        assert "[circuit_open]" in await world.call("sy_read")
        found = await world.app.admin.test_connection(world.owner, "sy")
        assert found["status"] == "healthy"
        assert "circuits" not in found
        assert await world.call("sy_read") == "fine"


@pytest.mark.anyio
async def test_an_operators_test_is_sent_all_the_same_and_its_success_closes_it(
    tmp_path: Path, upstream: Hostile
) -> None:
    async with gateway(tmp_path, breaker_failures=1, breaker_rest=600) as world:
        await written(world, upstream)
        upstream.script("/x", drop, answer(200, b"fine"))
        assert "[answer_lost]" in await world.call("sy_read")
        outcome = await world.app.admin.test(world.owner, "sy", "read", {})
        assert outcome.text == "fine"
        assert await world.call("sy_read") == "fine"


@pytest.mark.anyio
async def test_a_changed_integration_begins_with_a_closed_circuit(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path, breaker_failures=1, breaker_rest=600) as world:
        await written(world, upstream, timeout_seconds=0.2)
        upstream.script("/x", silence, answer(200, b"fine"))
        assert "[upstream_timeout]" in await world.call("sy_read")
        assert "[circuit_open]" in await world.call("sy_read")
        await world.app.admin.update(world.owner, "sy", parse_update({"display_name": "S2"}, "sy"))
        assert await world.call("sy_read") == "fine"
