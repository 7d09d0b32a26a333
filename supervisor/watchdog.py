"""Decides which child hangs, and which is busy without getting anywhere. Pure: no clock, no await.

    hung     nothing was heard for `heartbeat_s`: a stopped process, a blocked event loop
    stuck    it says that it has work, and its progress has stood still for `progress_s`

Two things must not be mistaken for either. A step that honestly takes long: the child says so
(`patience_s`), and the longer of both times holds. And a delay of our own: a supervisor that was
suspended, or starved of CPU, finds a silence that is nobody's fault. So it is woken at least every
`TICK_S`, and by whatever it comes late all silences count for less. Judging by the times at
which beats were sent instead would need the children's clocks, and would still not tell a beat
that lies unread in a socket from one that was never sent.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

TICK_S = 0.25
"""A delay of our own shorter than this may go unnoticed and count against a child."""
FRESH_S = 0.5
"""No child is called stuck on older evidence: since its last beat it may have got on."""


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """When a child that is ready has failed, although its process lives."""

    heartbeat_s: float = 1.5
    """Without a sign of life."""
    progress_s: float | None = 1.25
    """Busy and without progress, when it asks for no more patience. None: not watched."""
    sign: str = "heartbeat"
    """What is awaited, in the words of the verdict."""


class Verdict(NamedTuple):
    """A child that has to be replaced."""

    name: str
    reason: str


class _Watched:
    """What is known of one child. Times are those of the caller's clock."""

    __slots__ = ("busy", "deadlines", "heard_at", "moved_at", "patience_s", "progress")

    def __init__(self, deadlines: Deadlines, now: float) -> None:
        self.deadlines = deadlines
        self.heard_at = now
        self.moved_at = now
        """When it was last seen to get on, or to have nothing to do."""
        self.progress = 0
        self.busy = False
        self.patience_s = 0.0

    def forgive(self, late_s: float, now: float) -> None:
        # Not beyond now; and a time that lies ahead is a grace, to be left as it is.
        self.heard_at = max(self.heard_at, min(now, self.heard_at + late_s))
        self.moved_at = max(self.moved_at, min(now, self.moved_at + late_s))

    def hear(self, progress: int, patience_s: float, now: float, *, busy: bool) -> None:
        if not (busy and self.busy and progress == self.progress):
            self.moved_at = now
        self.heard_at = now
        self.progress, self.busy, self.patience_s = progress, busy, patience_s

    @property
    def hung_at(self) -> float:
        return self.heard_at + self.deadlines.heartbeat_s

    @property
    def stuck_at(self) -> float | None:
        if not self.busy or self.deadlines.progress_s is None:
            return None
        return self.moved_at + max(self.deadlines.progress_s, self.patience_s)

    def verdict(self, now: float) -> str:
        """Empty while there is none."""
        if now >= self.hung_at:
            return f"hung: no {self.deadlines.sign} for {now - self.heard_at:.1f} s"
        stuck_at = self.stuck_at
        if stuck_at is not None and now >= stuck_at and now <= self.heard_at + FRESH_S:
            return f"stuck: no progress for {now - self.moved_at:.1f} s while busy"
        return ""


class Watchdog:
    """Told what children say and asked at `wake_at`, it names those that have to go.

    All times are seconds on one clock that never goes back. A fault is seen at most
    `heartbeat_s`, or `progress_s` and one heartbeat, after it began, when nobody was late.
    """

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}
        self.wake_at: float | None = None
        """When `look` has to be called, or as soon after as possible; None: not at all."""

    def watch(self, name: str, deadlines: Deadlines, now: float, *, grace_s: float = 0.0) -> None:
        """From now on expect signs of life; the first one may take `grace_s` longer."""
        self._watched[name] = _Watched(deadlines, now + grace_s)
        if self.wake_at is None:
            self.wake_at = now + TICK_S

    def watches(self, name: str) -> bool:
        """Whether `watch` was called since the last verdict or `forget`."""
        return name in self._watched

    def forget(self, name: str) -> None:
        """Expect nothing more. Unknown names are no matter."""
        self._watched.pop(name, None)

    def hear(
        self, name: str, now: float, *, progress: int = 0, busy: bool = False, patience_s: float = 0
    ) -> None:
        """A sign of life. Of a child that is not watched it means nothing."""
        watched = self._watched.get(name)
        if watched is not None:
            watched.hear(progress, patience_s, now, busy=busy)

    def look(self, now: float) -> list[Verdict]:
        """The children that have failed. Each is named once, and is not watched any more."""
        late_s = 0.0 if self.wake_at is None else max(0.0, now - self.wake_at)
        verdicts = []
        for name, watched in list(self._watched.items()):
            watched.forgive(late_s, now)
            reason = watched.verdict(now)
            if reason:
                verdicts.append(Verdict(name, reason))
                del self._watched[name]
        self.wake_at = self._next(now)
        return verdicts

    def _next(self, now: float) -> float | None:
        if not self._watched:
            return None
        wake_at = now + TICK_S
        for watched in self._watched.values():
            for due in (watched.hung_at, watched.stuck_at):
                # What is overdue waits for evidence, and that comes with a beat.
                if due is not None and now < due < wake_at:
                    wake_at = due
        return wake_at
