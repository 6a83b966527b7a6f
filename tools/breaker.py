"""The circuit breaker: an upstream that fails again and again gets a rest, and its callers an answer at once.

Per integration and origin. Closed while calls succeed; open after `failures` of them in a row; after `rest_s` (doubling up to six
times that) one call is let through, and what becomes of it closes or opens it again. Per process: each finds out by itself.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tools.errors import (
    AnswerLost,
    CallError,
    CertificateRefused,
    CircuitOpen,
    OutcomeUnknown,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from tools.models import Integration
from tools.tool import Circuit

_DOWN = frozenset({502, 503, 504})
_MOST_REST = 6
_MOST_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """`failures` in a row open it (0: never); `rest_s` is the first rest, in seconds."""

    failures: int = 5
    rest_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Resting:
    """A circuit that isn't closed, as health shows it; `tries_again_s` is 0 when the next call is let through."""

    origin: str
    state: Literal["open", "half_open"]
    failures: int
    tries_again_s: float


@dataclass(slots=True)
class _Entry:
    failures: int = 0
    rest_s: float = 0.0
    open_until: float | None = None
    trial: bool = False


class Breaker:
    """`clock` is monotonic seconds. Only upstreams that failed last are remembered."""

    def __init__(self, rules: BreakerRules = BreakerRules(), clock: Callable[[], float] = time.monotonic) -> None:
        self._rules, self._clock = rules, clock
        self._entries: dict[Circuit, _Entry] = {}

    def check(self, circuit: Circuit, *, insists: bool = False) -> None:
        """Raises CircuitOpen where nothing may be sent now. What `insists` is let through, and its end counts as any other's."""
        entry = self._entries.get(circuit)
        if entry is None or entry.open_until is None or insists:
            return
        left = entry.open_until - self._clock()
        if left > 0 or entry.trial:
            raise CircuitOpen(
                f"failed {entry.failures} calls in a row, and the gateway gives it a rest",
                retry_after_s=max(1.0, left),
            )
        entry.trial = True

    def ended(self, circuit: Circuit, error: CallError | None, *, answered: bool) -> None:
        """How the call went that `check` let through. Neither a failure nor `answered` says nothing about the upstream."""
        if error is not None and _is_failure(error):
            self._failed(circuit)
        elif circuit not in self._entries:
            return
        elif answered:
            del self._entries[circuit]
        else:
            self._entries[circuit].trial = False

    def close(self, integration: Integration) -> None:
        """A probe has reached it: the next calls may too."""
        for key in [k for k in self._entries if k[0] == integration.id]:
            del self._entries[key]

    def resting(self, integration: Integration) -> tuple[Resting, ...]:
        """The circuits of the integration's present version that aren't closed."""
        if not self._entries:
            return ()
        now, found = self._clock(), list[Resting]()
        for (whose, version, origin), entry in self._entries.items():
            if whose == integration.id and version == integration.version and entry.open_until is not None:
                left = max(0.0, entry.open_until - now)
                found.append(Resting(origin, "open" if left else "half_open", entry.failures, left))
        return tuple(found)

    def _failed(self, circuit: Circuit) -> None:
        if self._rules.failures == 0:
            return
        entry = self._entries.get(circuit)
        if entry is None:
            if len(self._entries) >= _MOST_KEPT:
                self._entries.pop(next(iter(self._entries)))
            entry = self._entries[circuit] = _Entry()
        was_trial, entry.trial = entry.trial, False
        entry.failures += 1
        if entry.failures < self._rules.failures:
            return
        if entry.open_until is None:
            entry.rest_s = self._rules.rest_s
        elif was_trial:
            entry.rest_s = min(entry.rest_s * 2, self._rules.rest_s * _MOST_REST)
        else:
            return  # calls that were under way when it opened
        entry.open_until = self._clock() + entry.rest_s


def _is_failure(error: CallError) -> bool:
    """Whether the upstream is down or can't be reached; a busy one (429) is not, nor a certificate that will not mend itself."""
    match error:
        case CertificateRefused():
            return False
        case UpstreamUnreachable() | AnswerLost() | UpstreamTimeout():
            return True
        case OutcomeUnknown():
            return error.upstream_status is None or error.upstream_status in _DOWN
        case UpstreamUnavailable():
            return error.upstream_status in _DOWN
        case _:
            return False
