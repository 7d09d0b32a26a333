"""Handing blocks over between engines that are split over different numbers of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.transfer import Exchange, Geometry, Part, Shard, SharedMemory, Ticket
from actors.kv.transfer.cut import BlockShape, Heads, cuts
from actors.kv.transfer.errors import AlreadyUsed, NotOffered
from actors.kv.transfer.exchange import TransportChoice

HEADS, BLOCKS = 8, 6
GEOMETRY = Geometry(layers=2, kv_heads=HEADS, head_dim=4, dtype="float32", block_tokens=4)
SHAPE = (BLOCKS, 2, 2, 4, HEADS, 4)
BOTH: list[TransportChoice] = ["shm", "tcp"]


class Ranks:
    """The ranks of one engine in one process; the first has the others as its peers."""

    def __init__(self, size: int, choice: TransportChoice, whole: npt.NDArray[np.float32]) -> None:
        self.memories: list[SharedMemory] = []
        self.arrays: list[npt.NDArray[np.float32]] = []
        for part in (Part(rank, size) for rank in range(size)):
            heads = part.heads(HEADS)
            memory = SharedMemory(BLOCKS, GEOMETRY.elements * 4 // size)
            shape = (*SHAPE[:4], len(heads), SHAPE[5])
            array = np.frombuffer(memory.view, np.float32).reshape(shape)
            array[:] = whole[:, :, :, :, heads.start : heads.stop]
            self.memories.append(memory)
            self.arrays.append(array)
        self.others = [
            Exchange(memory, GEOMETRY, choice, "127.0.0.1", part=Part(rank, size))
            for rank, memory in enumerate(self.memories)
            if rank
        ]
        self.first = Exchange(
            self.memories[0], GEOMETRY, choice, "127.0.0.1", part=Part(0, size), peers=self
        )

    @property
    def whole(self) -> npt.NDArray[np.float32]:
        return np.concatenate(self.arrays, axis=4)

    def offer(self, blocks: tuple[int, ...]) -> list[Shard]:
        return [other.offer_share(blocks) for other in self.others]

    def withdraw(self, offers: Sequence[int]) -> None:
        for other, offer in zip(self.others, offers, strict=True):
            other.withdraw_share(offer)

    def fetch(self, ticket: Ticket, skip: int, blocks: Sequence[int]) -> Callable[[], None]:
        def wait() -> None:
            for other in self.others:
                other.fetch_share(ticket, skip, blocks)

        return wait

    def close(self) -> None:
        for exchange in (self.first, *self.others):
            exchange.close()
        for memory in self.memories:
            memory.close()


def numbers() -> npt.NDArray[np.float32]:
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


@contextmanager
def pair(
    source: int, target: int, choice: TransportChoice
) -> Iterator[tuple[Ranks, Ranks, npt.NDArray[np.float32]]]:
    """Two engines; the target's pool is zeros. And what the source's pool holds."""
    whole = numbers()
    ends = Ranks(source, choice, whole), Ranks(target, choice, np.zeros_like(whole))
    try:
        yield *ends, whole
    finally:
        for end in ends:
            end.close()


@pytest.mark.parametrize("choice", BOTH)
@settings(max_examples=25, deadline=None)
@given(
    source=st.sampled_from([1, 2, 4, 8]),
    target=st.sampled_from([1, 2, 4, 8]),
    blocks=st.lists(st.integers(0, BLOCKS - 1), min_size=1, max_size=4, unique=True),
    data=st.data(),
)
def test_every_head_arrives_where_it_belongs_for_any_two_sizes(
    choice: TransportChoice, source: int, target: int, blocks: list[int], data: st.DataObject
) -> None:
    skip = data.draw(st.integers(0, len(blocks) - 1))
    into = data.draw(st.permutations(range(BLOCKS)))[: len(blocks) - skip]
    with pair(source, target, choice) as (exporting, importing, whole):
        ticket = exporting.first.offer(blocks, 4 * len(blocks))
        importing.first.fetch(Ticket.decode(ticket.encode()), skip, into)

        expected = np.zeros_like(whole)
        expected[into] = whole[blocks[skip:]]
        assert np.array_equal(importing.whole, expected)


@pytest.mark.parametrize("choice", BOTH)
def test_a_ticket_of_many_ranks_is_good_for_one_engine_only(choice: TransportChoice) -> None:
    with pair(4, 2, choice) as (exporting, importing, whole):
        ticket = exporting.first.offer([1, 2], 8)
        importing.first.fetch(ticket, 0, [3, 4])

        with pytest.raises(AlreadyUsed):
            importing.first.fetch(ticket, 0, [3, 4])
        assert not importing.arrays[0][[3, 4]].any()
        assert np.array_equal(importing.arrays[1][3], whole[1, :, :, :, 4:])


@pytest.mark.parametrize("choice", BOTH)
def test_what_nobody_has_claimed_is_not_read(choice: TransportChoice) -> None:
    with pair(1, 2, choice) as (exporting, importing, _):
        ticket = exporting.first.offer([1], 4)

        with pytest.raises(NotOffered):
            importing.others[0].fetch_share(ticket, 0, [3])


@pytest.mark.parametrize("choice", BOTH)
def test_a_withdrawn_offer_is_withdrawn_on_every_rank(choice: TransportChoice) -> None:
    with pair(2, 2, choice) as (exporting, importing, _):
        ticket = exporting.first.offer([1], 4)
        exporting.first.withdraw(ticket)

        with pytest.raises(NotOffered):
            importing.first.fetch(ticket, 0, [3])
        assert exporting.others[0]._offers.blocks(ticket.shards[1].offer) == ()


@pytest.mark.parametrize("choice", BOTH)
def test_a_failure_of_one_rank_is_one_of_the_engine(choice: TransportChoice) -> None:
    with pair(1, 2, choice) as (exporting, importing, _):
        ticket = exporting.first.offer([1], 4)
        fetch = importing.fetch

        def fetch_late(ticket: Ticket, skip: int, blocks: Sequence[int]) -> Callable[[], None]:
            wait = fetch(ticket, skip, blocks)

            def withdraw_first() -> None:
                exporting.first.withdraw(ticket)
                wait()

            return withdraw_first

        importing.fetch = fetch_late  # type: ignore[method-assign]  # ranks of different speed
        with pytest.raises(NotOffered):
            importing.first.fetch(ticket, 0, [3])
        assert not importing.whole[3].any()


def test_slices_of_a_block_put_together_are_the_block() -> None:
    shape = BlockShape(3, 4, 5)
    block = memoryview(bytes(range(60)))
    target = memoryview(bytearray(60))
    for heads in (Heads(0, 1), Heads(1, 3)):
        part = shape.take(block, heads)
        assert len(part) == shape.part_bytes(heads)
        shape.put(target, heads, part)

    assert target == block
    assert shape.take(block, Heads(0, 4)) is block


def test_cuts_name_each_head_once() -> None:
    found = [list(cuts(8, 4, Part(rank, 2))) for rank in range(2)]

    assert [[cut.shard for cut in side] for side in found] == [[0, 1], [2, 3]]
    assert [cut.target for cut in found[0]] == [Heads(0, 2), Heads(2, 2)]
    assert list(cuts(8, 1, Part(1, 2)))[0].source == Heads(4, 4)  # noqa: RUF015 - all of them is one
