"""Workers that did not take what they were sent. Pure."""

from __future__ import annotations

from collections.abc import Container

from actors.runtime.address import Address

SUSPICION_S = 1.0
"""How long such a worker gets nothing more. One that died has left the registry by then."""


class Suspects:
    """Who is under suspicion, by life: a successor is not."""

    def __init__(self) -> None:
        self._until: dict[Address, float] = {}

    def add(self, address: Address, now: float) -> None:
        """It has just refused something, or not been there."""
        self._until[address] = now + SUSPICION_S

    def at(self, now: float) -> Container[Address]:
        """Those suspected at this time."""
        if self._until:
            self._until = {who: until for who, until in self._until.items() if until > now}
        return self._until
