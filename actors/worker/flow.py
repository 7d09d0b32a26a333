"""Sequences that say one plain token a step, side by side. Pure.

Most of what a worker does for a token is to find out whose it is, though the answer hardly changes
from step to step: the same sequences in the same order, but for a few that end and begin. So what
is needed of them lies in columns in the engine's order, and for all that go on nothing is looked
up: a step is a few calls that go along the columns. Of a thousand sequences whose tokens come one
by one nothing would be in a cache when its turn comes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain
from operator import add

from actors.runtime.address import Address
from actors.worker.history import TOKENS_KEPT
from actors.worker.job import Job, Parcel


class Flow:
    """Those whose last token was a plain one, in the order of the engine's steps."""

    def __init__(self) -> None:
        self._whose: dict[int, _Columns] = {}
        """By the engine's number, in order."""
        self._columns: dict[Address, _Columns] = {}
        """By ingress; none is empty."""
        self._steps = 0

    def __len__(self) -> int:
        return len(self._whose)

    @property
    def parcels(self) -> Collection[Parcel]:
        """Where their tokens go."""
        return [columns.parcel for columns in self._columns.values()]

    def join(self, job: Job) -> None:
        """A job's token came behind those of all others here."""
        # Appending by columns looks at no length.
        job.history.trim()
        ingress = job.parcel.ingress
        columns = self._columns.get(ingress)
        if columns is None:
            columns = self._columns[ingress] = _Columns(job.parcel)
        self._whose[job.id] = columns
        columns.add(job)

    def leave(self, job: Job) -> None:
        """A job has something else to say, or has ended. Nothing happens to who is not here."""
        columns = self._whose.pop(job.id, None)
        if columns is not None:
            columns.remove(job)
            if not columns.numbers:
                del self._columns[columns.parcel.ingress]

    def take(self, ids: Sequence[int], tokens: Sequence[int]) -> int:
        """Take one token of each, with which a step's plain ones must begin; how many that were.
        If they do not, all leave: who goes on joins again, in the order that holds now."""
        known = list(self._whose)
        count = len(known)
        if not count:
            return 0
        self._steps += 1
        if ids[:count] != known or self._steps >= TOKENS_KEPT:
            self._whose.clear()
            self._columns.clear()
            self._steps = 0
            return 0
        if len(self._columns) == 1:
            [columns] = self._columns.values()
            columns.take(tokens[:count])
        else:
            said = dict(zip(ids, tokens, strict=True))
            for columns in self._columns.values():
                columns.take([said[number] for number in columns.numbers])
        return count


class _Columns:
    """What plain tokens of one ingress's sequences need, by the engine's number."""

    __slots__ = ("epochs", "firsts", "histories", "numbers", "parcel")

    def __init__(self, parcel: Parcel) -> None:
        self.parcel = parcel
        self.numbers: dict[int, int] = {}
        self.epochs: dict[int, int] = {}
        self.firsts: dict[int, int] = {}
        self.histories: dict[int, list[int]] = {}

    def add(self, job: Job) -> None:
        self.numbers[job.id], self.epochs[job.id] = job.number, job.epoch
        self.firsts[job.id], self.histories[job.id] = job.history.first, job.history.tokens

    def remove(self, job: Job) -> None:
        for column in (self.numbers, self.epochs, self.firsts, self.histories):
            del column[job.id]

    def take(self, tokens: Sequence[int]) -> None:
        """Put one token of each into the parcel, and into its history."""
        histories = self.histories.values()
        offsets = map(add, self.firsts.values(), list(map(len, histories)))
        rows = zip(self.numbers.values(), self.epochs.values(), offsets, tokens, strict=True)
        self.parcel.plain += chain.from_iterable(rows)
        any(map(list.append, histories, tokens))  # none of them says anything
