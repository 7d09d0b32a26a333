"""Which worker served a session last. Pure, bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Literal

from actors.router.options import AffinityOptions
from actors.runtime.address import Address

Leg = Literal["context", "generation", "alone"]
"""What a worker is chosen for."""


class Sessions:
    """Remembers workers by session and leg; the longest unused is forgotten first."""

    def __init__(self, options: AffinityOptions) -> None:
        self._options = options
        self._last: OrderedDict[tuple[int, Leg], tuple[Address, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._last)

    def find(self, session: int, leg: Leg, now: float) -> Address | None:
        """Who served the session's last request; None when that is too long ago."""
        last = self._last.get((session, leg))
        if last is None or last[1] <= now:
            return None
        return last[0]

    def note(self, session: int, workers: Iterable[tuple[Leg, Address]], now: float) -> None:
        """These workers serve the session now."""
        if not self._options.blocks:
            return
        for leg, worker in workers:
            self._last[session, leg] = (worker, now + self._options.ttl_s)
            self._last.move_to_end((session, leg))
        while len(self._last) > self._options.sessions:
            self._last.popitem(last=False)
