"""Which KV blocks are free, held or reusable. Bookkeeping only: no tensor is touched here.

A block is in one of three states.

    free       nothing of worth is in it.
    held       one or more sequences count on it. It may be *published* at the same time: known by
               its sequence hash, so that others can join in holding it.
    reusable   published and held by nobody. It waits for a prompt that begins like its own, or
               for eviction; the one let go longest ago is evicted first.

Who holds a block holds all blocks before it, and lets them go from the end. So a reusable block
is always evicted before its parent, and whatever is published has its whole chain published.
`publish` keeps this true when two sequences compute the same block side by side: the later one is
moved onto the block of the first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Added(NamedTuple):
    """A block became known by its sequence hash. `parent` is None at the start of a prompt."""

    sequence_hash: int
    parent: int | None


class Evicted(NamedTuple):
    """A block is known no longer."""

    sequence_hash: int


Change = Added | Evicted


class OutOfBlocks(Exception):
    """More blocks were asked for than are free or reusable."""

    def __init__(self, wanted: int, available: int) -> None:
        super().__init__(f"{wanted} KV blocks wanted, {available} available")


class BlockPool:
    """Hands out block numbers 0..total-1 and remembers which can be reused."""

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError(f"a block pool needs at least one block, not {total}")
        self.total = total
        self._free = list(range(total - 1, -1, -1))
        self._holders = [0] * total
        self._published: dict[int, int] = {}
        self._hash_of: dict[int, int] = {}
        # In the order of letting go: the next victim comes first. Not a plain dict, which looks
        # for its first item past all those that were deleted before it.
        self._reusable: OrderedDict[int, None] = OrderedDict()
        self._changes: list[Change] = []

    @property
    def available(self) -> int:
        """Blocks that `allocate` can give now, evicting where needed."""
        return len(self._free) + len(self._reusable)

    @property
    def held(self) -> int:
        """Blocks that somebody counts on."""
        return self.total - self.available

    def allocate(self, count: int) -> list[int]:
        """Take blocks with one holder each. Raises OutOfBlocks, and then takes none."""
        if count > self.available:
            raise OutOfBlocks(count, self.available)
        while len(self._free) < count:
            self._evict()
        blocks = [self._free.pop() for _ in range(count)]
        for block in blocks:
            self._holders[block] = 1
        return blocks

    def cached(self, hashes: Sequence[int]) -> int:
        """How many of these blocks are published, counted up to the first that is not."""
        for count, sequence_hash in enumerate(hashes):
            if sequence_hash not in self._published:
                return count
        return len(hashes)

    def match(self, hashes: Sequence[int]) -> list[int]:
        """Hold the longest run of published blocks that these hashes begin with."""
        blocks = [self._published[h] for h in hashes[: self.cached(hashes)]]
        for block in blocks:
            self._holders[block] += 1
            self._reusable.pop(block, None)
        return blocks

    def publish(self, block: int, sequence_hash: int, parent: int | None) -> int:
        """Make a held, completely computed block known, and return the block to hold from now on.

        That is another one when the same contents are published already; the hold on `block` is
        then exchanged for a hold on the other.
        """
        assert self._holders[block] == 1, f"block {block} must have one holder to be published"
        assert block not in self._hash_of, f"block {block} is published already"
        assert parent is None or parent in self._published, "a block's parent is published first"
        twin = self._published.get(sequence_hash)
        if twin is not None:
            self._holders[twin] += 1
            self._reusable.pop(twin, None)
            self.release([block])
            return twin
        self._published[sequence_hash] = block
        self._hash_of[block] = sequence_hash
        self._changes.append(Added(sequence_hash, parent))
        return block

    def release(self, blocks: Sequence[int]) -> None:
        """Let go of blocks given in the order of their sequence."""
        for block in reversed(blocks):
            assert self._holders[block] > 0, f"block {block} was let go too often"
            self._holders[block] -= 1
            if self._holders[block] > 0:
                continue
            if block in self._hash_of:
                self._reusable[block] = None
            else:
                self._free.append(block)

    def take_changes(self) -> list[Change]:
        """What was published and evicted since the last call, in order."""
        changes, self._changes = self._changes, []
        return changes

    def published(self) -> Iterable[int]:
        """Every sequence hash known now."""
        return self._published.keys()

    def _evict(self) -> None:
        block, _ = self._reusable.popitem(last=False)
        sequence_hash = self._hash_of.pop(block)
        del self._published[sequence_hash]
        self._free.append(block)
        self._changes.append(Evicted(sequence_hash))
