"""Tokens that come for requests which are over. Pure."""

from __future__ import annotations

from collections import OrderedDict

from actors.messages.frame import Chunk
from actors.runtime.address import Address

REPEAT_S = 0.5
"""A worker is told at most this often: its next frames are sent before it can have heard."""
KEPT = 4096
"""Attempts remembered; the oldest is forgotten, and told once more."""


class Unwanted:
    """Which worker has been told, and when, that nobody waits for an attempt."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[Address, int, int], float] = OrderedDict()

    def is_news(self, worker: Address, chunk: Chunk, now: float) -> bool:
        """Whether the worker has to be told (again); it is then taken to have been."""
        attempt = (worker, chunk.number, chunk.epoch)
        told_at = self._told.pop(attempt, None)
        if told_at is not None and now < told_at + REPEAT_S:
            self._told[attempt] = told_at
            return False
        self._told[attempt] = now
        if len(self._told) > KEPT:
            self._told.popitem(last=False)
        return True
