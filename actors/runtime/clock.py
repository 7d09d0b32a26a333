"""Time, injected: nothing in the runtime reads a clock of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
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
    """The time of the event loop it is first used in: the one timers fire by, also when a test
    drives it."""

    def __init__(self) -> None:
        self._time: Callable[[], float] | None = None

    def now(self) -> float:
        # To ask which loop is running makes a system call, in Python 3.11, and this is asked often.
        if self._time is None:
            self._time = asyncio.get_running_loop().time
        return self._time()

    def precise(self) -> float:
        return time.perf_counter()

    def wall(self) -> float:
        return time.time()
