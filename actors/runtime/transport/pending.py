"""Tells whose refusal is still of interest: a bounded, ageing table."""

from __future__ import annotations

from collections import OrderedDict

from actors.runtime.transport.base import Bounce

PENDING_LIMIT = 4096
"""Tells remembered at the most; the oldest is forgotten, as if it had been taken."""
PENDING_AGE_S = 5.0
"""A refusal comes within a round trip; what is older was taken, or lost."""


class PendingTells:
    """Numbers tells and finds their `Bounce` again."""

    def __init__(self) -> None:
        self._next = 0
        # Ordered by age. The first item of a plain dict is slow to find once many before it went.
        self._pending: OrderedDict[int, tuple[float, Bounce]] = OrderedDict()

    def add(self, bounce: Bounce, now: float) -> int:
        """Remember a tell; return the number under which its refusal will come."""
        self._forget_old(now)
        self._next += 1
        self._pending[self._next] = (now, bounce)
        return self._next

    def take(self, number: int) -> Bounce | None:
        found = self._pending.pop(number, None)
        return None if found is None else found[1]

    def __len__(self) -> int:
        return len(self._pending)

    def _forget_old(self, now: float) -> None:
        while self._pending:
            oldest = next(iter(self._pending))
            if (
                len(self._pending) < PENDING_LIMIT
                and now - self._pending[oldest][0] < PENDING_AGE_S
            ):
                return
            del self._pending[oldest]
