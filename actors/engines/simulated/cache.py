"""The pool's changes as a router wants to hear them."""

from __future__ import annotations

from collections.abc import Iterable

from actors.kv.blocks import Added, Change
from actors.messages.cache import CacheEvent, Removed, Stored


class CacheJournal:
    """Keeps the difference between the cache and what its reader has been told.

    Only the net difference is kept: a block stored and evicted between two readings is not
    mentioned. So the journal never holds more than twice the pool, even if nobody reads it.
    """

    def __init__(self) -> None:
        # Parents come before children: a block is published after its parent and evicted before.
        self._parents: dict[int, int | None] = {}
        self._added: dict[int, None] = {}
        self._removed: dict[int, None] = {}

    def record(self, changes: Iterable[Change]) -> None:
        """Note what the pool reports, in its order."""
        for change in changes:
            name = change.sequence_hash
            if isinstance(change, Added):
                self._parents[name] = change.parent
                gone, new = self._removed, self._added
            else:
                del self._parents[name]
                gone, new = self._added, self._removed
            if name in gone:
                del gone[name]
            else:
                new[name] = None

    def take(self) -> list[CacheEvent]:
        """What a reader has not been told yet."""
        events: list[CacheEvent] = []
        if self._removed:
            events.append(Removed(tuple(self._removed)))
        events += self._chains(self._added)
        self._forget()
        return events

    def snapshot(self) -> list[CacheEvent]:
        """Everything in the cache; what `take` would have returned is dropped."""
        self._forget()
        return [*self._chains(self._parents)]

    def _forget(self) -> None:
        self._added.clear()
        self._removed.clear()

    def _chains(self, names: Iterable[int]) -> list[Stored]:
        """Runs of blocks, each the child of the one before, as one event a run."""
        stored: list[Stored] = []
        run: list[int] = []
        for name in names:
            parent = self._parents[name]
            if run and parent != run[-1]:
                stored.append(Stored(self._parents[run[0]], tuple(run)))
                run = []
            run.append(name)
        if run:
            stored.append(Stored(self._parents[run[0]], tuple(run)))
        return stored
