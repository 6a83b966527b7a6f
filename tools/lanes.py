"""How many calls run at once, and who is next: a bounded, fair queue for each integration, workspace and key.

Those who wait are served in turn by who they are (callers of an integration, integrations of a workspace or key), so that one
that asks for much can't keep the others waiting. Per process.
"""

import asyncio
from collections import OrderedDict, deque

from tools.errors import TooManyCalls

_WAITING_PER_SLOT = 10


class Lane:
    """Slots of one name. `what` is said to who is refused."""

    __slots__ = ("_queues", "_what", "active", "limit", "waiting")

    def __init__(self, what: str, limit: int) -> None:
        self._what, self.limit = what, limit
        self.active = 0
        self.waiting = 0
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def is_idle(self) -> bool:
        return self.active == 0 and not self.waiting

    def take(self) -> bool:
        """A slot at once, where nobody waits before."""
        if self.active >= self.limit or self.waiting:
            return False
        self.active += 1
        return True

    async def wait(self, who: str, seconds: float) -> None:
        """Until it is `who`'s turn; the slot is then taken. Raises TooManyCalls when the queue is full or the time is over."""
        if self.waiting >= self.limit * _WAITING_PER_SLOT:
            raise self._refused("and too many wait already")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(who, deque()).append(turn)
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await turn
        except TimeoutError:
            self._left(who, turn)
            raise self._refused(f"and none ended within {seconds:g} s") from None
        except asyncio.CancelledError:
            self._left(who, turn)
            raise

    def give_back(self) -> None:
        """One call has ended: the next in turn gets its slot."""
        self.active -= 1
        while self._queues and self.active < self.limit:
            who, queue = self._queues.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._queues[who] = queue  # behind the others
            self.waiting -= 1
            if not turn.done():
                self.active += 1
                turn.set_result(None)

    def _left(self, who: str, turn: "asyncio.Future[None]") -> None:
        if turn.done() and not turn.cancelled():
            self.give_back()  # the turn came while its owner was leaving
            return
        queue = self._queues.get(who)
        if queue is not None and turn in queue:
            queue.remove(turn)
            self.waiting -= 1
            if not queue:
                del self._queues[who]

    def _refused(self, why: str) -> TooManyCalls:
        return TooManyCalls(f"{self.limit} calls {self._what} run at once, {why}", retry_after_s=1.0)


class Lanes:
    """Lanes by name; only those in use are kept."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lanes: dict[str, Lane] = {}

    def lane(self, name: str, limit: int) -> Lane:
        """The lane with today's limit: a changed one holds for the next call."""
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(self._what, limit)
        lane.limit = limit
        return lane

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot, in all lanes."""
        return sum(lane.waiting for lane in self._lanes.values())

    def give_back(self, name: str) -> None:
        lane = self._lanes[name]
        lane.give_back()
        if lane.is_idle:
            del self._lanes[name]
