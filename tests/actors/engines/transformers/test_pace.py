from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines.transformers.pace import FIRST_STEP_S, MARGIN, Pace

STEPS = st.lists(st.tuples(st.integers(1, 4096), st.floats(1e-4, 100.0)), min_size=1, max_size=30)


def test_the_first_step_gets_long_as_nothing_is_known() -> None:
    assert Pace().patience_s(1) == FIRST_STEP_S


def test_a_long_prompt_after_decoding_gets_time_for_its_tokens() -> None:
    pace = Pace()
    for _ in range(10_000):
        pace.learn(1, 0.01)

    assert pace.patience_s(1) == pytest.approx(MARGIN * 0.01)
    assert pace.patience_s(512) == pytest.approx(MARGIN * 512 * 0.01)


def test_one_slow_step_is_forgotten_in_time() -> None:
    pace = Pace()
    pace.learn(1, 60.0)
    assert pace.patience_s(1) == MARGIN * 60.0

    for _ in range(10_000):
        pace.learn(1, 0.01)

    assert pace.patience_s(1) < 0.1


@given(STEPS)
def test_a_step_like_one_of_the_last_ones_always_has_time(steps: list[tuple[int, float]]) -> None:
    pace = Pace()
    for tokens, took_s in steps:
        pace.learn(tokens, took_s)

    for tokens, took_s in steps:
        assert pace.patience_s(tokens) >= 3.5 * took_s
