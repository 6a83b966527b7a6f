"""What may be sent now: rates, slots and the circuit breaker, asked in this order, once for each call (docs/limits.md)."""

from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from tools.breaker import Breaker
from tools.callers import Caller
from tools.errors import CallError, TooManyCalls
from tools.lanes import Lanes
from tools.models import Integration
from tools.rates import Rate, Rates, rate_of
from tools.tool import Circuit, Tool


@dataclass(frozen=True, slots=True)
class TrafficRules:
    """The operator's limits, for each key, integration and workspace; 0 and None are none. An integration's own can only be lower.

    `wait_s`: how long a call waits for a slot.
    """

    key_calls: int = 0
    integration_calls: int = 100
    workspace_calls: int = 0
    key_rate: Rate | None = None
    integration_rate: Rate | None = None
    workspace_rate: Rate | None = None
    wait_s: float = 10.0


class Traffic:
    """Shared by all calls of a process."""

    def __init__(
        self, rules: TrafficRules = TrafficRules(), breaker: Breaker | None = None, rates: Rates | None = None
    ) -> None:
        self.rules, self.breaker = rules, breaker or Breaker()
        self._rates = rates or Rates()
        self.integrations = Lanes("of this integration")
        self.workspaces = Lanes("of this workspace")
        self.keys = Lanes("with this key")

    def count(self, caller: Caller, integration: Integration) -> None:
        """One call by its rates. Raises TooManyCalls with the time to wait; then it counts nowhere."""
        rules, own = self.rules, _own_rate(integration, self.rules.integration_rate)
        if own is None and rules.key_rate is None and rules.workspace_rate is None:
            return
        wanted = [
            (f"key {caller.id}", rules.key_rate, "with this key"),
            (f"integration {integration.id}", own, f'of integration "{integration.name}"'),
            (f"workspace {caller.workspace}", rules.workspace_rate, "of this workspace"),
        ]
        waits = [(self._rates.wait_s(name, rate), rate, what) for name, rate, what in wanted if rate is not None]
        wait, rate, what = max(waits, key=lambda w: w[0])
        if wait > 0:
            raise TooManyCalls(f"calls {what} are limited to {rate.calls} in {rate.seconds:g} s", retry_after_s=wait)
        for name, bucket, _ in wanted:
            if bucket is not None:
                self._rates.take(name, bucket)

    def passage(self, caller: Caller, tool: Tool, *, insists: bool = False, wait_s: float | None = None) -> "Passage":
        """`insists`: an open circuit doesn't hold it back (an operator's test, an accepted background call)."""
        return Passage(self, caller, tool, insists, self.rules.wait_s if wait_s is None else wait_s)


class Passage:
    """One call's way out: `enter` before the first byte is sent; what was taken is given back when the block ends."""

    __slots__ = ("_caller", "_circuit", "_held", "_insists", "_tool", "_traffic", "_wait_s")

    def __init__(self, traffic: Traffic, caller: Caller, tool: Tool, insists: bool, wait_s: float) -> None:
        self._traffic, self._caller, self._tool, self._insists, self._wait_s = traffic, caller, tool, insists, wait_s
        self._held: list[tuple[Lanes, str]] = []
        self._circuit: Circuit | None = None

    async def enter(self) -> None:
        """Raises TooManyCalls where no slot gets free in time, CircuitOpen while the upstream rests."""
        traffic, rules, tool, caller = self._traffic, self._traffic.rules, self._tool, self._caller
        integration = tool.integration
        if limit := _own_calls(integration, rules.integration_calls):
            await self._take(traffic.integrations, integration.id, limit, caller.id)
        if rules.workspace_calls:
            await self._take(traffic.workspaces, caller.workspace, rules.workspace_calls, integration.id)
        if rules.key_calls:
            await self._take(traffic.keys, caller.id, rules.key_calls, integration.id)
        traffic.breaker.check(tool.circuit, insists=self._insists)
        self._circuit = tool.circuit

    async def _take(self, lanes: Lanes, name: str, limit: int, who: str) -> None:
        lane = lanes.lane(name, limit)
        if not lane.take():
            await lane.wait(who, self._wait_s)
        self._held.append((lanes, name))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if self._circuit is not None:
            fault = error if isinstance(error, CallError) else None
            answered = fault.sent == "yes" if fault is not None else error is None
            self._traffic.breaker.ended(self._circuit, fault, answered=answered)
        for lanes, name in reversed(self._held):
            lanes.give_back(name)
        return False


def _own_calls(integration: Integration, most: int) -> int:
    own = integration.limits.concurrency if integration.limits else None
    return most if own is None else min(own, most) if most else own


def _own_rate(integration: Integration, most: Rate | None) -> Rate | None:
    own = rate_of(integration.limits.rate) if integration.limits and integration.limits.rate else None
    if own is None or most is None:
        return own or most
    return own if own.per_second <= most.per_second else most
