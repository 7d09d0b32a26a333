"""Time, injected: nothing in the runtime reads a clock of its own."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Where an actor gets the time from."""

    def now(self) -> float:
        """Monotonic seconds. Only differences mean anything."""
        ...

    def precise(self) -> float:
        """Monotonic seconds for measuring how long something took, to the microsecond; not those
        of `now`, which stands still while a callback runs and may tick in milliseconds."""
        ...

    def wall(self) -> float:
        """Seconds since 1970, for people and for other hosts."""
        ...


class LoopClock:
    """The running event loop's time: the one timers fire by, also when a test drives it."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def precise(self) -> float:
        return time.perf_counter()

    def wall(self) -> float:
        return time.time()
