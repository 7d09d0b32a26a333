"""When context workers are told that blocks have arrived: several times together.

What they are told lets them free blocks, for which there is time; a message by itself wakes NATS
and a worker, 100 µs each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors.messages.work import Fetched
from actors.runtime.address import Address

GATHER_S = 0.02
"""So long receipts gather."""
LINGER_S = 0.02
"""So long they wait afterwards for tokens to go along with."""


class Receipts:
    """Those of one generation worker."""

    def __init__(
        self, tell: Callable[[Address, Fetched], object], now: Callable[[], float]
    ) -> None:
        """`now`: the loop's time."""
        self._tell = tell
        self._now = now
        self._waiting: list[tuple[Address, Fetched]] = []
        """At most one for each job of the last GATHER_S and LINGER_S."""
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, receipts: list[tuple[Address, Fetched]]) -> None:
        """Have these context workers told, soon."""
        self._waiting += receipts
        if receipts and self._timer is None:
            self._due = self._now() + GATHER_S
            self._timer = asyncio.get_running_loop().call_at(self._due + LINGER_S, self.send)

    def along(self) -> None:
        """Tokens are being sent: receipts that are due leave with them."""
        if self._timer is not None and self._now() >= self._due:
            self.send()

    def send(self) -> None:
        """Tell all of them now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for context, fetched in waiting:
            self._tell(context, fetched)
