"""Frames of tokens."""

from __future__ import annotations

import pytest

from actors.messages.frame import Chunk, Frame
from actors.runtime.address import Address

WORKER = Address("generation", 0, 3)


@pytest.mark.parametrize(
    ("plain", "repeats"),
    [
        ([], False),
        ([1, 0, 5, 77], False),
        ([1, 0, 5, 77, 2, 0, 5, 77], False),
        ([1, 0, 5, 77, 2, 0, 5, 78, 1, 0, 6, 79], True),
    ],
)
def test_a_frame_repeats_when_a_sequence_has_several_plain_tokens(
    plain: list[int], *, repeats: bool
) -> None:
    assert Frame(WORKER, [], plain).repeats is repeats


def test_everything_is_the_chunks_and_then_the_plain_tokens() -> None:
    chunk = Chunk(1, 0, 4, [70, 71])

    assert Frame(WORKER, [chunk], [1, 0, 6, 72]).everything() == [chunk, Chunk(1, 0, 6, [72])]
