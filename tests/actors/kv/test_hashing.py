from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.kv.hashing import CHUNK_BLOCKS, PrefixHasher, block_hash, chain, sequence_hashes


def packed(tokens: Iterable[int]) -> bytes:
    listed = list(tokens)
    return struct.pack(f"<{len(listed)}I", *listed)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (range(32), 5756925433886871916),
        (range(1, 33), 6399025751206689338),
        (range(64), 3480597578098033343),
        ([1, 2, 3, 4], 14643705804678351452),
        ([0] * 32, 8078176463474809903),
    ],
)
def test_block_hashes_are_those_that_dynamo_computes(tokens: Iterable[int], expected: int) -> None:
    assert block_hash(packed(tokens)) == expected


def test_sequence_hashes_chain_over_full_blocks_only() -> None:
    tokens = packed(range(10))
    first, second = block_hash(packed(range(4))), block_hash(packed(range(4, 8)))

    assert sequence_hashes(tokens, 4) == [first, chain(first, second)]
    assert sequence_hashes(packed(range(3)), 4) == []


@given(
    tokens=st.lists(st.integers(0, 2**32 - 1), max_size=60),
    block_tokens=st.integers(1, 9),
    data=st.data(),
)
def test_hashing_may_go_on_where_it_was_left(
    tokens: list[int], block_tokens: int, data: st.DataObject
) -> None:
    whole = sequence_hashes(packed(tokens), block_tokens)
    start = data.draw(st.integers(0, len(whole)))
    parent = whole[start - 1] if start else None

    rest = sequence_hashes(packed(tokens), block_tokens, parent=parent, start=start)

    assert whole[:start] + rest == whole


@given(st.lists(st.integers(0, 3), min_size=4, max_size=40), st.integers(0, 39))
def test_a_changed_token_changes_its_block_and_every_later_one(tokens: list[int], at: int) -> None:
    at %= len(tokens)
    other = [*tokens[:at], 9, *tokens[at + 1 :]]
    before, after = sequence_hashes(packed(tokens), 4), sequence_hashes(packed(other), 4)

    same = [a == b for a, b in zip(before, after, strict=True)]

    assert same == [number < at // 4 for number in range(len(same))]


@given(
    turns=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 4 * CHUNK_BLOCKS * 2 + 5)), max_size=12
    ),
    max_chunks=st.integers(1, 9),
)
def test_remembered_beginnings_change_no_hash(
    turns: list[tuple[int, int]], max_chunks: int
) -> None:
    hasher = PrefixHasher(max_chunks)
    for conversation, tokens in turns:
        prompt = packed((conversation + at // 300) % 7 for at in range(tokens))
        for block_tokens in (2, 4):
            hashes = hasher.hashes(prompt, block_tokens)
            assert hashes == sequence_hashes(prompt, block_tokens)
        assert len(hasher) <= max_chunks


def test_what_is_given_out_is_not_what_is_remembered() -> None:
    hasher = PrefixHasher()
    prompt = packed(range(4 * CHUNK_BLOCKS * 3))

    hasher.hashes(prompt, 4).clear()

    assert hasher.hashes(prompt, 4) == sequence_hashes(prompt, 4)
