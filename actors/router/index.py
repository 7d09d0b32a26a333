"""Which worker holds which KV blocks. Pure.

A flat map from sequence hash to the set of workers that hold the block. A sequence hash names a
block together with everything in front of it (`actors.kv.hashing`), so no tree is needed: the
longest prefix of a prompt at a worker is found by walking the prompt's hashes until one is not
there.

A set of workers is an integer with one bit for each, so a step of the walk is one look-up and one
AND for all workers together. The map is cut into 256 dictionaries: one grows, and is rebuilt, in a
few milliseconds even at ten million blocks, where a single one would stop everything for a second.

Losing a worker clears one bit of a mask; from then on none of its blocks matches. Its traces are
swept out later, a dictionary at a time, and only then is the bit given to another.

Memory: see `docs/routing.md` for the measured bytes a block. `max_blocks` bounds the whole, and
`limit` of a slot the share of one worker; blocks beyond are not indexed, and counted.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

SHARDS = 256
_LOW = SHARDS - 1
PREDICTED_LIMIT = 30_000
"""Blocks predicted in one generation; at the limit the next one begins early."""
SHARED_MASKS_LIMIT = 65_536
"""Sets of workers kept for being shared between blocks."""

Run = tuple[int, int]
"""(blocks, workers): these workers, a mask, hold exactly so many of the first blocks."""


class BlockIndex:
    """The map. Workers are named by slots: small numbers, given by `open`."""

    def __init__(self, max_blocks: int = 10_000_000) -> None:
        self.max_blocks = max_blocks
        self.refused = 0
        """Blocks not indexed because a bound was reached, so far."""
        self._shards: list[dict[int, int]] = [{} for _ in range(SHARDS)]
        self._size = 0
        self._live = 0
        self._bits: list[int] = []
        self._counts: list[int] = []
        self._limits: list[int] = []
        self._free: list[int] = []
        self._masks: dict[int, int] = {}
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}
        self._dropped = 0
        self._sweeping = 0
        self._sweep_at = 0

    def __len__(self) -> int:
        """Blocks known of any worker, those of lost ones included until they are swept."""
        return self._size

    @property
    def predicted(self) -> int:
        """Blocks predicted at some worker."""
        return len(self._young) + len(self._old)

    def count(self, slot: int) -> int:
        """Blocks that the worker holds."""
        return self._counts[slot]

    # -- workers -------------------------------------------------------------------------------

    def open(self, limit: int) -> int:
        """A slot for a worker that holds nothing yet and never more than `limit` blocks."""
        if self._free:
            slot = heapq.heappop(self._free)
        else:
            slot = len(self._bits)
            self._bits.append(1 << slot)
            self._counts.append(0)
            self._limits.append(0)
        self._counts[slot] = 0
        self._limits[slot] = limit
        self._live |= self._bits[slot]
        return slot

    def drop(self, slot: int) -> None:
        """Forget a worker at once. `sweep` gives the memory back."""
        self._live &= ~self._bits[slot]
        self._dropped |= self._bits[slot]

    # -- blocks --------------------------------------------------------------------------------

    def store(self, slot: int, blocks: Iterable[int]) -> None:
        """The worker holds these blocks too. Those it has already change nothing."""
        bit, limit, count = self._bits[slot], self._limits[slot], self._counts[slot]
        shards, masks = self._shards, self._masks
        for block in blocks:
            shard = shards[block & _LOW]
            mask = shard.get(block, 0)
            if mask & bit:
                continue
            if count >= limit or (not mask and self._size >= self.max_blocks):
                self.refused += 1
                continue
            count += 1
            if mask:
                both = mask | bit
                shard[block] = masks.setdefault(both, both)
            else:
                shard[block] = bit
                self._size += 1
        self._counts[slot] = count
        if len(masks) > SHARED_MASKS_LIMIT:
            masks.clear()

    def remove(self, slot: int, blocks: Iterable[int]) -> None:
        """The worker holds these blocks no longer. Those it does not have change nothing."""
        bit = self._bits[slot]
        count = self._counts[slot]
        shards, masks = self._shards, self._masks
        for block in blocks:
            shard = shards[block & _LOW]
            mask = shard.get(block, 0)
            if not mask & bit:
                continue
            count -= 1
            rest = mask ^ bit
            if rest:
                shard[block] = masks.setdefault(rest, rest)
            else:
                del shard[block]
                self._size -= 1
        self._counts[slot] = count

    def predict(self, slot: int, blocks: Iterable[int]) -> None:
        """The worker will hold these blocks in a moment: a prompt that has them is on its way.

        Holds until the second `rotate` from now, whatever the worker says.
        """
        bit = self._bits[slot]
        young = self._young
        for block in blocks:
            young[block] = young.get(block, 0) | bit
        if len(young) > PREDICTED_LIMIT:
            self.rotate()

    def rotate(self) -> None:
        """Begin a new generation of predictions; the one before the last is forgotten."""
        self._old, self._young = self._young, {}

    # -- finding -------------------------------------------------------------------------------

    def match(self, blocks: Sequence[int], workers: int, *, predicted: bool = True) -> list[Run]:
        """How many of a prompt's first blocks each of `workers`, a mask, holds.

        Shortest runs first; workers that hold not even the first block are left out.
        """
        runs: list[Run] = []
        holders = workers & self._live
        shards, young, old = self._shards, self._young, self._old
        if not predicted:
            young = old = {}
        depth = 0
        for depth, block in enumerate(blocks):
            found = shards[block & _LOW].get(block, 0)
            if young or old:
                found |= young.get(block, 0) | old.get(block, 0)
            still = found & holders
            if still != holders:
                if depth:
                    runs.append((depth, holders ^ still))
                holders = still
                if not still:
                    return runs
        if holders and blocks:
            runs.append((depth + 1, holders))
        return runs

    # -- memory --------------------------------------------------------------------------------

    def sweep(self) -> bool:
        """Clear the traces of lost workers from one dictionary; whether there is more to do."""
        if not self._sweeping:
            if not self._dropped:
                return False
            self._sweeping, self._dropped, self._sweep_at = self._dropped, 0, 0
        gone = self._sweeping
        if self._sweep_at < SHARDS:
            before = self._shards[self._sweep_at]
            after = _without(before, gone)
            self._shards[self._sweep_at] = after
            self._size -= len(before) - len(after)
            self._sweep_at += 1
            return True
        if self._sweep_at == SHARDS:
            self._young = _without(self._young, gone)
            self._sweep_at += 1
            return True
        self._old = _without(self._old, gone)
        self._masks.clear()
        self._sweeping = 0
        for slot in slots_of(gone):
            self._counts[slot] = 0
            heapq.heappush(self._free, slot)
        return bool(self._dropped)


def _without(shard: dict[int, int], gone: int) -> dict[int, int]:
    """Also gives back what a dictionary keeps after deletions."""
    keep = ~gone
    return {
        block: rest
        for block, mask in shard.items()
        if (rest := mask & keep if mask & gone else mask)
    }


def slots_of(mask: int) -> list[int]:
    """The slots in a set of workers, lowest first."""
    slots = []
    while mask:
        lowest = mask & -mask
        slots.append(lowest.bit_length() - 1)
        mask ^= lowest
    return slots
