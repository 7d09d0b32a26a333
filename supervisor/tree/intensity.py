"""The brake on restarts: how many there were lately."""

from __future__ import annotations

from collections import deque


class RestartWindow:
    """Times of the restarts of one life of a supervisor.

    The rule is OTP's (`add_restart` in supervisor.erl), with seconds as floats: an entry expires
    when it is strictly older than the period, so one exactly `period_s` old still counts. Holds
    at most `intensity` entries.
    """

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def admit(self, now: float, *, intensity: int, period_s: float) -> bool:
        """Count one restart at `now`; False when it is one too many."""
        while self._times and self._times[0] < now - period_s:
            self._times.popleft()
        if len(self._times) >= intensity:
            return False
        self._times.append(now)
        return True
