"""An event loop whose clock jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from actors.runtime.clock import LoopClock

T = TypeVar("T")


class _Jumping(selectors.SelectSelector):
    """Never waits for longer than nothing; the loop's clock moves by what it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits, and no timer is set: a deadlock"
            self.now_s += max(0.0, timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """For code that only waits on timers, futures and the like: no threads, no sockets."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s

    def jump(self, delay_s: float) -> None:
        self._jumping.now_s += delay_s


def jump(delay_s: float) -> None:
    """Let time pass as it does while a callback blocks the running virtual loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.jump(delay_s)


class VirtualClock(LoopClock):
    """The loop's time for everything."""

    def precise(self) -> float:
        return self.now()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a test or a simulation in virtual time, which starts at 0."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)
