from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines.simulated import Vocabulary, expected_token, expected_tokens
from actors.engines.simulated.tokens import sequence_key
from tests.actors.engines.contract import prompt_of

WORDS = Vocabulary(300, 900)
RECORDED = [875, 542, 465, 711]


def test_tokens_are_the_same_in_every_release() -> None:
    """Recorded values: a checker and an engine of different releases must agree."""
    assert expected_tokens(prompt_of(3), 7, 4, WORDS) == RECORDED


@given(
    prompt=st.binary(min_size=4, max_size=64).filter(lambda prompt: len(prompt) % 4 == 0),
    seed=st.integers(0, 2**63 - 1),
    position=st.integers(0, 2**31),
)
def test_token_lies_in_the_range_and_can_be_computed_again(
    prompt: bytes, seed: int, position: int
) -> None:
    token = expected_token(prompt, seed, position, WORDS)
    assert 300 <= token < 900
    assert token == expected_token(prompt, seed, position, WORDS)


def test_prompt_seed_and_position_all_matter() -> None:
    tokens = expected_tokens(prompt_of(8), 1, 50, WORDS)
    assert tokens != expected_tokens(prompt_of(9)[4:], 1, 50, WORDS)
    assert tokens != expected_tokens(prompt_of(8), 2, 50, WORDS)
    assert len(set(tokens)) > 25


@pytest.mark.parametrize("mean", [2, 20])
def test_ends_come_about_as_often_as_asked_for(mean: int) -> None:
    words = Vocabulary(300, 900, end_one_in=mean)
    key = sequence_key(prompt_of(8), 3)
    ends = sum(words.ends(key, position) for position in range(10_000))
    assert 0.8 < ends * mean / 10_000 < 1.2


def test_no_end_comes_unless_asked_for() -> None:
    key = sequence_key(prompt_of(8), 3)
    assert not any(WORDS.ends(key, position) for position in range(1000))
