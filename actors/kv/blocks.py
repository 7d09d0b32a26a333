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
    """Blocks became known by their sequence hashes, each the parent of the next. `parent` is that
    of the first, None at the start of a prompt."""

    parent: int | None
    hashes: tuple[int, ...]


class Evicted(NamedTuple):
    """Blocks are known no longer."""

    hashes: tuple[int, ...]


Change = Added | Evicted


class OutOfBlocks(Exception):
    """More blocks were asked for than are free or reusable."""

    def __init__(self, wanted: int, available: int) -> None:
        super().__init__(f"{wanted} KV blocks wanted, {available} available")


class BlockPool:
    """Hands out block numbers 0..total-1 and remembers which can be reused.

    A prompt has many blocks, and nearly always all of them have the same fate: what is done to one
    after the other is done to a run of them at once, by few steps of Python's.
    """

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError(f"a block pool needs at least one block, not {total}")
        self.total = total
        self._free = list(range(total - 1, -1, -1))
        self._shared: dict[int, int] = {}
        """Holders beyond the first, of blocks that have more than one."""
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
        if len(self._free) < count:
            self._evict(count - len(self._free))
        blocks = self._free[-count:] if count else []
        del self._free[len(self._free) - count :]
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
            self._hold(block)
        return blocks

    def publish(
        self, blocks: Sequence[int], hashes: Sequence[int], parent: int | None
    ) -> list[int]:
        """Make a run of held, completely computed blocks known, the first of which has this parent,
        and return the blocks to hold from now on.

        One of them is another where the same contents are published already; the hold on the one
        given is then exchanged for a hold on the other.
        """
        assert parent is None or parent in self._published, "a block's parent is published first"
        assert self._shared.keys().isdisjoint(blocks), "who has several holders is published"
        assert self._hash_of.keys().isdisjoint(blocks), "published already"
        if not self._published.keys().isdisjoint(hashes):
            return self._publish_each(blocks, hashes, parent)
        self._note_published(blocks, hashes, parent)
        return list(blocks)

    def release(self, blocks: Sequence[int]) -> None:
        """Let go of blocks given in the order of their sequence."""
        if not self._shared.keys().isdisjoint(blocks):
            blocks = [block for block in blocks if not self._let_go_of_shared(block)]
        last_first = blocks[::-1]
        assert self._reusable.keys().isdisjoint(last_first), "a block was let go too often"
        known = self._hash_of
        self._reusable.update(dict.fromkeys([block for block in last_first if block in known]))
        self._free += [block for block in last_first if block not in known]
        assert self.available <= self.total, "a block was let go too often"

    def take_changes(self) -> list[Change]:
        """What was published and evicted since the last call, in order."""
        changes, self._changes = self._changes, []
        return changes

    def published(self) -> Iterable[int]:
        """Every sequence hash known now."""
        return self._published.keys()

    def _hold(self, block: int) -> None:
        """Another holder for a published block."""
        if block in self._reusable:
            del self._reusable[block]
        else:
            self._shared[block] = self._shared.get(block, 0) + 1

    def _let_go_of_shared(self, block: int) -> bool:
        """One holder less; False when the block has only one."""
        others = self._shared.get(block, 0)
        if others > 1:
            self._shared[block] = others - 1
        elif others:
            del self._shared[block]
        return others > 0

    def _publish_each(
        self, blocks: Sequence[int], hashes: Sequence[int], parent: int | None
    ) -> list[int]:
        """`publish`, where some are published already."""
        kept: list[int] = []
        for block, sequence_hash in zip(blocks, hashes, strict=True):
            twin = self._published.get(sequence_hash)
            if twin is None:
                self._note_published([block], [sequence_hash], parent)
            else:
                self._hold(twin)
                self._free.append(block)
            kept.append(block if twin is None else twin)
            parent = sequence_hash
        return kept

    def _note_published(
        self, blocks: Sequence[int], hashes: Sequence[int], parent: int | None
    ) -> None:
        self._published.update(zip(hashes, blocks, strict=True))
        self._hash_of.update(zip(blocks, hashes, strict=True))
        self._changes.append(Added(parent, tuple(hashes)))

    def _evict(self, count: int) -> None:
        victims = [self._reusable.popitem(last=False)[0] for _ in range(count)]
        hashes = tuple(map(self._hash_of.pop, victims))
        for sequence_hash in hashes:
            del self._published[sequence_hash]
        self._free += victims
        self._changes.append(Evicted(hashes))
