"""The block index, against a model that keeps a set of blocks for each worker."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from actors.router.index import PREDICTED_LIMIT, SHARDS, BlockIndex, slots_of

PLENTY = 10_000
BLOCKS = st.lists(st.integers(0, 40).map(lambda n: n * 2**58 + n), max_size=12)
"""Few enough to meet again, spread over the 64 bits."""


def prefix(held: set[int], prompt: list[int]) -> int:
    """How many of a prompt's first blocks are held."""
    for depth, block in enumerate(prompt):
        if block not in held:
            return depth
    return len(prompt)


class IndexMachine(RuleBasedStateMachine):
    """Any order of events: duplicates, removals of parents before children and of blocks never
    stored, workers that come and go, sweeps in between."""

    slots = Bundle("slots")

    def __init__(self) -> None:
        super().__init__()
        self.index = BlockIndex()
        self.held: dict[int, set[int]] = {}

    @rule(target=slots)
    def open(self) -> int:
        slot = self.index.open(PLENTY)
        assert slot not in self.held, "a slot has one worker at a time"
        self.held[slot] = set()
        return slot

    @rule(slot=slots, blocks=BLOCKS)
    def store(self, slot: int, blocks: list[int]) -> None:
        self.index.store(slot, blocks)
        self.held[slot].update(blocks)

    @rule(slot=slots, blocks=BLOCKS)
    def remove(self, slot: int, blocks: list[int]) -> None:
        self.index.remove(slot, blocks)
        self.held[slot].difference_update(blocks)

    @rule(slot=consumes(slots))
    def drop(self, slot: int) -> None:
        self.index.drop(slot)
        del self.held[slot]

    @rule(steps=st.integers(1, SHARDS + 2))
    def sweep(self, steps: int) -> None:
        for _ in range(steps):
            self.index.sweep()

    @rule(prompt=BLOCKS, among=st.integers(0, 2**6 - 1))
    def match(self, prompt: list[int], among: int) -> None:
        runs = self.index.match(prompt, among)

        found = {slot: depth for depth, workers in runs for slot in slots_of(workers)}
        expected = {
            slot: depth
            for slot, held in self.held.items()
            if among & (1 << slot) and (depth := prefix(held, prompt))
        }
        assert found == expected
        assert runs == sorted(runs), "shortest first"

    @invariant()
    def counts_agree(self) -> None:
        for slot, held in self.held.items():
            assert self.index.count(slot) == len(held)

    def teardown(self) -> None:
        while self.index.sweep():
            pass
        assert len(self.index) == len(set().union(*self.held.values()))


IndexMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestIndex = IndexMachine.TestCase


def match(index: BlockIndex, prompt: list[int], **options: Any) -> list[tuple[int, int]]:
    return index.match(prompt, -1, **options)


def test_a_lost_worker_matches_nothing_at_once_and_its_slot_comes_back_after_a_sweep() -> None:
    index = BlockIndex()
    first, second = index.open(PLENTY), index.open(PLENTY)
    index.store(first, [1, 2, 3])
    index.store(second, [1])

    index.drop(first)

    assert match(index, [1, 2, 3]) == [(1, 1 << second)]
    assert index.open(PLENTY) not in {first, second}, "its traces are still there"
    while index.sweep():
        pass
    assert len(index) == 1
    assert index.open(PLENTY) == first


def test_a_worker_holds_no_more_than_its_limit() -> None:
    index = BlockIndex()
    slot = index.open(2)

    index.store(slot, [1, 2, 3])

    assert (index.count(slot), index.refused) == (2, 1)
    assert match(index, [1, 2, 3]) == [(2, 1 << slot)]


def test_the_whole_is_bounded_and_more_workers_of_a_known_block_cost_nothing() -> None:
    index = BlockIndex(max_blocks=2)
    first, second = index.open(PLENTY), index.open(PLENTY)
    index.store(first, [1, 2, 3])
    index.store(second, [1, 2])

    assert (len(index), index.refused) == (2, 1)
    assert match(index, [1, 2]) == [(2, 0b11)]


def test_a_prediction_counts_until_the_second_rotation() -> None:
    index = BlockIndex()
    slot = index.open(PLENTY)
    index.store(slot, [1])
    index.predict(slot, [2, 3])

    assert match(index, [1, 2, 3]) == [(3, 1 << slot)]
    assert match(index, [1, 2, 3], predicted=False) == [(1, 1 << slot)]
    index.rotate()
    assert match(index, [1, 2, 3]) == [(3, 1 << slot)]
    index.rotate()
    assert match(index, [1, 2, 3]) == [(1, 1 << slot)]


def test_predictions_are_bounded() -> None:
    index = BlockIndex()
    slot = index.open(PLENTY)

    for start in range(0, 5 * PREDICTED_LIMIT, 1000):
        index.predict(slot, range(start, start + 1000))

    assert index.predicted <= 2 * (PREDICTED_LIMIT + 1000)


def test_a_successor_in_a_swept_slot_inherits_no_prediction() -> None:
    index = BlockIndex()
    slot = index.open(PLENTY)
    index.predict(slot, [1])
    index.drop(slot)
    while index.sweep():
        pass

    assert index.open(PLENTY) == slot
    assert match(index, [1]) == []
