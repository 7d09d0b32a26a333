"""What a worker tells the routers of itself. Pure.

Reports are numbered; a router that misses a number asks for the inventory. What is said is what has
changed: an engine at rest says nothing but a heartbeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from actors.messages.cache import CacheEvent, Load, Stored
from actors.messages.events import INVENTORY_PART_BLOCKS, Inventory, Report
from actors.messages.key import RequestKey
from actors.runtime.address import Address

MAX_TAKEN = 4096
"""Keys remembered for the next report; of more, the newest. A router's own estimate of what it
sent runs out anyway."""


class Reports:
    """Numbers a worker's reports."""

    def __init__(self) -> None:
        self._number = 0
        self._load = Load()
        self._taken: list[RequestKey] = []

    def take(self, key: RequestKey) -> None:
        """Note that work has arrived."""
        self._taken.append(key)

    def changes(
        self,
        worker: Address,
        load: Load,
        events: Sequence[CacheEvent],
        at: float,
        unneeded: Sequence[tuple[RequestKey, Address]] = (),
    ) -> Report | None:
        """The next report; None when there is nothing new."""
        if load == self._load and not events and not self._taken and not unneeded:
            return None
        self._number += 1
        self._load = load
        taken, self._taken = tuple(self._taken[-MAX_TAKEN:]), []
        return Report(worker, self._number, load, at, tuple(events), taken, tuple(unneeded))

    def heartbeat(self, worker: Address, at: float) -> Report:
        """That nothing is new. It has a number too: so the loss of the report before shows."""
        self._number += 1
        return Report(worker, self._number, self._load, at)

    def inventory(self, worker: Address, events: Iterable[CacheEvent]) -> list[Inventory]:
        """A snapshot of the cache in parts; complete up to the last report."""
        blocks = [one for event in events if isinstance(event, Stored) for one in event.blocks]
        starts = range(0, max(1, len(blocks)), INVENTORY_PART_BLOCKS)
        return [
            Inventory(
                worker,
                self._number,
                part,
                part == len(starts) - 1,
                tuple(blocks[start : start + INVENTORY_PART_BLOCKS]),
                self._load,
            )
            for part, start in enumerate(starts)
        ]
