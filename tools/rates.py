"""How many calls in which time: a token bucket for each key, integration and workspace. Per process.

A rate is written as operators say it: `600/min` lets 600 calls through at once and then ten a second.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

RATE = r"^[1-9][0-9]{0,6}/(s|min|h)$"
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_MOST_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class Rate:
    """`calls` at once, and as many again in `seconds`."""

    calls: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.calls / self.seconds


@lru_cache(maxsize=4096)
def rate_of(text: str) -> Rate:
    """Raises ValueError for anything but RATE."""
    if not re.fullmatch(RATE, text):
        raise ValueError('a rate is written as "10/s", "600/min" or "1000/h"')
    calls, _, unit = text.partition("/")
    return Rate(int(calls), _SECONDS[unit])


class Rates:
    """Buckets by name; the one that was used longest ago is forgotten first. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, name: str, rate: Rate) -> float:
        """Seconds until one more call fits; 0 where it fits now."""
        level = self._level(name, rate)
        return 0.0 if level >= 1 else (1 - level) / rate.per_second

    def take(self, name: str, rate: Rate) -> None:
        """Counts one call. Ask `wait_s` first: a call counts in all of its buckets or in none."""
        self._buckets[name] = (self._level(name, rate) - 1, self._clock())
        self._buckets.move_to_end(name)
        if len(self._buckets) > _MOST_KEPT:
            self._buckets.popitem(last=False)

    def _level(self, name: str, rate: Rate) -> float:
        known = self._buckets.get(name)
        if known is None:
            return float(rate.calls)
        return min(float(rate.calls), known[0] + (self._clock() - known[1]) * rate.per_second)
