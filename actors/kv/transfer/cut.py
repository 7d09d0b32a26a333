"""Which attention heads of a block go where, when two engines are split differently.

An engine over several ranks keeps on each rank the KV of its share of the heads, for the same
block numbers. A block on a rank is [rows, heads, head bytes] with rows = layers * 2 *
block_tokens, so the heads two ranks have in common are a slice of the middle axis on either side.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Part(NamedTuple):
    """One rank's share of an engine."""

    rank: int = 0
    size: int = 1

    def heads(self, kv_heads: int) -> range:
        """Which of the model's KV heads it has; `size` divides their number."""
        share = kv_heads // self.size
        return range(self.rank * share, (self.rank + 1) * share)


class Heads(NamedTuple):
    """Neighbouring heads of a block, counted from the block's first one."""

    first: int
    number: int


class Cut(NamedTuple):
    """What two ranks of two engines have in common."""

    shard: int
    """The exporter's rank."""
    source: Heads
    target: Heads


def cuts(kv_heads: int, shards: int, part: Part) -> Iterator[Cut]:
    """Where one rank's heads come from, of an engine over `shards` ranks; in their order."""
    mine = part.heads(kv_heads)
    for shard in range(shards):
        theirs = Part(shard, shards).heads(kv_heads)
        first, end = max(mine.start, theirs.start), min(mine.stop, theirs.stop)
        if first < end:
            count = end - first
            source, target = Heads(first - theirs.start, count), Heads(first - mine.start, count)
            yield Cut(shard, source, target)


class BlockShape(NamedTuple):
    """A block as bytes, on one rank."""

    rows: int
    heads: int
    head_bytes: int

    @property
    def block_bytes(self) -> int:
        return self.rows * self.heads * self.head_bytes

    def part_bytes(self, heads: Heads) -> int:
        """Size of a slice."""
        return self.rows * heads.number * self.head_bytes

    def is_whole(self, heads: Heads) -> bool:
        """Whether the slice is the block."""
        return heads.number == self.heads

    def take(self, block: memoryview, heads: Heads) -> memoryview:
        """A slice of a block, as contiguous bytes; the block itself where that is all of it."""
        if self.is_whole(heads):
            return block
        return np.ascontiguousarray(self._slice(block, heads)).data.cast("B")

    def put(self, block: memoryview, heads: Heads, part: memoryview) -> None:
        """Write a slice, contiguous bytes, into a block."""
        found = np.frombuffer(part, np.uint8).reshape(self.rows, heads.number, self.head_bytes)
        self._slice(block, heads)[:] = found

    def _slice(self, block: memoryview, heads: Heads) -> npt.NDArray[np.uint8]:
        whole = np.frombuffer(block, np.uint8).reshape(self.rows, self.heads, self.head_bytes)
        return whole[:, heads.first : heads.first + heads.number]
