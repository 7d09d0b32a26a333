"""How long first tokens take, so that a worker with a queue is not asked for each request in it."""

from __future__ import annotations

from actors.runtime.address import Address

SHARE = 0.25
"""Of each new time in the usual one: a burst is forgotten after a few requests."""


class FirstTokens:
    """The usual time from being assigned to a worker to the first token."""

    def __init__(self) -> None:
        self._usual_s: dict[str, float] = {}
        """By name, so that what arrives late of a worker that has gone leaves nothing behind."""

    def took(self, worker: Address, seconds: float) -> None:
        """One more has come."""
        before = self._usual_s.get(worker.name, seconds)
        self._usual_s[worker.name] = before + SHARE * (seconds - before)

    def usual_s(self, worker: Address) -> float:
        """An exponential average of the latest; 0 as long as there was none."""
        return self._usual_s.get(worker.name, 0.0)

    def forget(self, worker: Address) -> None:
        """The worker has gone; its successor has no queue."""
        self._usual_s.pop(worker.name, None)
