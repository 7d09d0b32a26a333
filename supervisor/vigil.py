"""The watchdog on the event loop: it keeps the time, and passes on who has to go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors.runtime.link import Beat
from supervisor.watchdog import Deadlines, Watchdog


class Vigil:
    """Calls `on_verdict(name, reason)` once for each watched child that fails."""

    def __init__(self, on_verdict: Callable[[str, str], None]) -> None:
        self._on_verdict = on_verdict
        self._watchdog = Watchdog()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, name: str, deadlines: Deadlines | None, *, grace_s: float = 0.0) -> None:
        """Expect signs of life from now on; with None as deadlines nothing is expected."""
        if deadlines is not None:
            self._watchdog.watch(name, deadlines, self._loop.time(), grace_s=grace_s)
            self._set_timer()

    def watches(self, name: str) -> bool:
        return self._watchdog.watches(name)

    def forget(self, name: str) -> None:
        """Expect nothing more of a child that has ended, or was told to."""
        self._watchdog.forget(name)

    def hear(self, name: str, beat: Beat | None = None) -> None:
        """A sign of life; without a beat it says nothing of work."""
        now = self._loop.time()
        if beat is None:
            self._watchdog.hear(name, now)
        else:
            self._watchdog.hear(
                name, now, progress=beat.progress, busy=beat.busy, patience_s=beat.patience_s
            )

    def close(self) -> None:
        """No call comes after this."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        if self._timer is None and self._watchdog.wake_at is not None:
            self._timer = self._loop.call_at(self._watchdog.wake_at, self._look)

    def _look(self) -> None:
        self._timer = None
        verdicts = self._watchdog.look(self._loop.time())
        self._set_timer()
        for name, reason in verdicts:
            self._on_verdict(name, reason)
