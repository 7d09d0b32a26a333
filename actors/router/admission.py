"""Who waits, in which order, and who is sent away. Pure.

Requests that the workers have no room for wait in one queue for each model. Its order is start-time
fair queueing (Goyal, Vin, Cheng, 1996): a request's start tag is the later of the queue's virtual
time and its tenant's last finish tag, the finish tag lies its cost in tokens behind, and the
smallest start tag goes first. So tenants that ask for more than their share wait behind themselves,
and one that comes now and then waits for nobody's backlog. Priorities come before tags.

The queue is bounded in number and in time. When it is full the last in line goes, which may be the
newcomer, and which is the tail of whoever has queued most. A newcomer that would wait too long, by
the rate at which the queue drains, is refused at once: what is admitted is also served.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from typing import Generic, TypeVar

import msgspec

from actors.router.options import AdmissionOptions

T = TypeVar("T")

RATE_SAMPLES = 64
"""Placements that the drain rate is measured over."""
RATE_MIN_SAMPLES = 8
RATE_HORIZON_S = 10.0
"""Placements longer ago say nothing of the rate now."""
MIN_RETRY_S, MAX_RETRY_S = 1.0, 60.0
RESUMED_PRIORITY = 1_000_000
"""Of requests that had begun when their worker was lost: their clients hold half an answer."""
MAX_TENANTS = 10_000
"""Whose finish tags are remembered; beyond it those with nothing owing are forgotten."""


class Waiting(msgspec.Struct, Generic[T], frozen=True):
    """A request in the queue."""

    item: T
    since: float
    deadline: float
    order: tuple[int, float, int]
    """(-priority, start tag, arrival): the smallest goes first."""


class Refused(msgspec.Struct, Generic[T], frozen=True):
    """A request that will not be served."""

    item: T
    text: str
    retry_after_s: float
    waited_s: float = 0.0
    """In vain."""


class DrainRate:
    """How many requests a second are being placed."""

    def __init__(self) -> None:
        self._at: deque[float] = deque(maxlen=RATE_SAMPLES)

    def note(self, now: float) -> None:
        """One was placed."""
        self._at.append(now)

    def at(self, now: float) -> float | None:
        """Requests a second; None when too little is known."""
        while self._at and self._at[0] < now - RATE_HORIZON_S:
            self._at.popleft()
        if len(self._at) < RATE_MIN_SAMPLES:
            return None
        return (len(self._at) - 1) / max(now - self._at[0], 1e-3)


class AdmissionQueue(Generic[T]):
    """The queue of one model."""

    def __init__(self, options: AdmissionOptions) -> None:
        self.rate = DrainRate()
        self._options = options
        self._line: list[Waiting[T]] = []
        self._orders: list[tuple[int, float, int]] = []
        self._arrivals = 0
        self._virtual = 0.0
        self._finish: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._line)

    def offer(
        self, item: T, *, tenant: int, priority: int, tokens: int, wait_s: float, now: float
    ) -> Refused[T] | None:
        """Let a request wait; whoever is refused for it, the newcomer or another, is returned.

        `wait_s` is how long whoever asked will wait; 0 for no limit of theirs.
        """
        start = max(self._virtual, self._finish.get(tenant, 0.0))
        self._arrivals += 1
        order = (-priority, start, self._arrivals)
        place = bisect.bisect(self._orders, order)
        longest_s = min(self._options.max_wait_s, wait_s or math.inf)
        expected_s = self._expected_s(place, now)
        if priority < RESUMED_PRIORITY and expected_s > longest_s:
            text = f"{place} requests are ahead, about {expected_s:.1f} s of work"
            return Refused(item, text, self.retry_after_s(now))
        self._note_finish(tenant, start + tokens)
        waiting = Waiting(item, now, now + longest_s, order)
        self._line.insert(place, waiting)
        self._orders.insert(place, order)
        if len(self._line) <= self._options.queue:
            return None
        self._orders.pop()
        text = f"{self._options.queue} requests are waiting already"
        last = self._line.pop()
        return Refused(last.item, text, self.retry_after_s(now), now - last.since)

    def take(self) -> Waiting[T] | None:
        """The next request; it leaves the queue. Call `placed` when it is."""
        if not self._line:
            return None
        waiting = self._line.pop(0)
        _, start, _ = self._orders.pop(0)
        self._virtual = max(self._virtual, start)
        return waiting

    def placed(self, now: float) -> None:
        """A request, queued or not, was given to a worker."""
        self.rate.note(now)

    def expire(self, now: float) -> list[Refused[T]]:
        """Take out all whose time is over."""
        late = [one for one in self._line if one.deadline <= now]
        if late:
            self._line = [one for one in self._line if one.deadline > now]
            self._orders = [one.order for one in self._line]
        retry_s = self.retry_after_s(now)
        return [
            Refused(one.item, f"no worker had room within {waited_s:.1f} s", retry_s, waited_s)
            for one in late
            for waited_s in [now - one.since]
        ]

    def clear(self) -> list[T]:
        """Empty the queue."""
        items = [one.item for one in self._line]
        self._line, self._orders = [], []
        return items

    def retry_after_s(self, now: float) -> float:
        """When the queue that is there now will have drained."""
        expected_s = self._expected_s(len(self._line), now)
        return min(max(expected_s, MIN_RETRY_S), MAX_RETRY_S)

    def _expected_s(self, ahead: int, now: float) -> float:
        rate = self.rate.at(now)
        return 0.0 if rate is None else ahead / rate

    def _note_finish(self, tenant: int, finish: float) -> None:
        self._finish[tenant] = finish
        if len(self._finish) > MAX_TENANTS:
            self._finish = {one: tag for one, tag in self._finish.items() if tag > self._virtual}
            if (
                len(self._finish) > MAX_TENANTS
            ):  # all owe something: begin anew, in order of arrival
                self._finish.clear()
