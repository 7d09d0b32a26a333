"""What the reader of the cache events knows, and what it has yet to be told.

Kept as net changes, not as a list of all events: a block that came and went between two readings
is never mentioned. So what waits here is bounded by twice the size of the pool, however seldom
somebody reads.
"""

from __future__ import annotations

from collections.abc import Iterable

from actors.kv.blocks import Added, Change
from actors.messages.cache import CacheEvent, Removed, Stored


class CacheJournal:
    """Applies a pool's changes and hands them out as events."""

    def __init__(self) -> None:
        self._parents: dict[int, int | None] = {}
        """Every published block, parents before children."""
        self._stored: dict[int, None] = {}
        self._removed: dict[int, None] = {}

    def apply(self, changes: Iterable[Change]) -> None:
        """Take note of a pool's changes, in their order."""
        for change in changes:
            hashes = change.hashes
            if isinstance(change, Added):
                self._parents.update(zip(hashes, (change.parent, *hashes[:-1]), strict=True))
                _note(hashes, self._stored, undoing=self._removed)
            else:
                for sequence_hash in hashes:
                    del self._parents[sequence_hash]
                _note(hashes, self._removed, undoing=self._stored)

    def take(self) -> list[CacheEvent]:
        """The difference to what was taken before."""
        events: list[CacheEvent] = []
        if self._removed:
            events.append(Removed(tuple(self._removed)))
        events += self._chains(self._stored)
        self._stored.clear()
        self._removed.clear()
        return events

    def snapshot(self) -> list[CacheEvent]:
        """Everything published now; the reader is up to date then."""
        self._stored.clear()
        self._removed.clear()
        return list(self._chains(self._parents))

    def _chains(self, hashes: Iterable[int]) -> list[Stored]:
        """One event for each run of blocks in which every one continues the one before."""
        runs: list[tuple[int | None, list[int]]] = []
        for sequence_hash in hashes:
            parent = self._parents[sequence_hash]
            if runs and parent is not None and parent == runs[-1][1][-1]:
                runs[-1][1].append(sequence_hash)
            else:
                runs.append((parent, [sequence_hash]))
        return [Stored(parent, tuple(run)) for parent, run in runs]


def _note(hashes: tuple[int, ...], where: dict[int, None], undoing: dict[int, None]) -> None:
    """Put hashes on one list; those on the other one only leave that."""
    if undoing.keys().isdisjoint(hashes):
        where.update(dict.fromkeys(hashes))
        return
    for sequence_hash in hashes:
        if sequence_hash in undoing:
            del undoing[sequence_hash]
        else:
            where[sequence_hash] = None
