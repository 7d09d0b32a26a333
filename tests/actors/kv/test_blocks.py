from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.kv.blocks import Added, BlockPool, Evicted, OutOfBlocks


def test_more_blocks_than_there_are_cannot_be_taken() -> None:
    pool = BlockPool(3)
    pool.allocate(2)

    with pytest.raises(OutOfBlocks, match="2 KV blocks wanted, 1 available"):
        pool.allocate(2)
    assert pool.available == 1


def test_the_block_let_go_longest_ago_is_evicted_first() -> None:
    pool = BlockPool(3)
    for sequence_hash in (10, 20, 30):
        (block,) = pool.allocate(1)
        pool.release(pool.publish([block], [sequence_hash], None))
    pool.release(pool.match([10]))
    pool.take_changes()

    pool.allocate(2)

    assert pool.take_changes() == [Evicted((20, 30))]


def test_a_block_goes_before_its_parent() -> None:
    pool = BlockPool(2)
    first, second = pool.publish(pool.allocate(2), [1, 2], None)
    pool.release([first, second])
    pool.take_changes()

    pool.allocate(1)

    assert pool.take_changes() == [Evicted((2,))]
    assert pool.match([1, 2]) == [first]


def test_a_block_computed_twice_is_kept_once() -> None:
    pool = BlockPool(2)
    mine, yours = pool.allocate(2)
    assert pool.publish([mine], [7], None) == [mine]

    [kept] = pool.publish([yours], [7], None)

    assert kept == mine
    assert pool.take_changes() == [Added(None, (7,))]
    assert pool.available == 1
    pool.release([mine])
    assert pool.held == 1
    pool.release([kept])
    assert pool.held == 0


class PoolMachine(RuleBasedStateMachine):
    """Sequences that come, grow and go, on prompts that share their beginnings."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(8)
        self.sequences: list[tuple[tuple[int, ...], list[int]]] = []
        self.known: dict[int, int | None] = {}

    @rule(path=st.lists(st.integers(0, 1), max_size=4).map(tuple))
    def arrive(self, path: tuple[int, ...]) -> None:
        hashes = [hash(path[: i + 1]) for i in range(len(path))]
        matched = self.pool.match(hashes)
        wanted = len(path) - len(matched)
        if wanted > self.pool.available:
            self.pool.release(matched)
            return
        blocks = matched + self.pool.allocate(wanted)
        known = len(matched)
        parent = hashes[known - 1] if known else None
        blocks[known:] = self.pool.publish(blocks[known:], hashes[known:], parent)
        self.sequences.append((path, blocks))

    @rule(
        path=st.lists(st.integers(0, 1), min_size=1, max_size=4).map(tuple), cut=st.integers(0, 4)
    )
    def compute_side_by_side(self, path: tuple[int, ...], cut: int) -> None:
        """Without looking into the cache first, as two equal prompts in one step do; in two parts,
        as a long prompt."""
        if len(path) > self.pool.available:
            return
        hashes = [hash(path[: i + 1]) for i in range(len(path))]
        blocks = self.pool.allocate(len(path))
        cut = min(cut, len(path))
        blocks[:cut] = self.pool.publish(blocks[:cut], hashes[:cut], None)
        parent = hashes[cut - 1] if cut else None
        blocks[cut:] = self.pool.publish(blocks[cut:], hashes[cut:], parent)
        self.sequences.append((path, blocks))

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.sequences:
            at = data.draw(st.integers(0, len(self.sequences) - 1))
            _, blocks = self.sequences.pop(at)
            self.pool.release(blocks)

    @invariant()
    def blocks_are_counted(self) -> None:
        held = {block for _, blocks in self.sequences for block in blocks}
        assert self.pool.held == len(held)

    @invariant()
    def one_block_holds_one_path(self) -> None:
        paths: dict[int, tuple[int, ...]] = {}
        for path, blocks in self.sequences:
            for number, block in enumerate(blocks):
                assert paths.setdefault(block, path[: number + 1]) == path[: number + 1]

    @invariant()
    def changes_tell_what_is_published_with_all_its_ancestors(self) -> None:
        for change in self.pool.take_changes():
            parent = change.parent if isinstance(change, Added) else None
            for sequence_hash in change.hashes:
                if isinstance(change, Added):
                    assert sequence_hash not in self.known
                    self.known[sequence_hash], parent = parent, sequence_hash
                else:
                    del self.known[sequence_hash]
        assert self.known.keys() == set(self.pool.published())
        assert all(parent is None or parent in self.known for parent in self.known.values())


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
