from __future__ import annotations

import math
import statistics

from hypothesis import given
from hypothesis import strategies as st

from actors.engines.transformers.noise import uniform


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**31))
def test_noise_lies_in_the_unit_interval_and_is_a_function(seed: int, position: int) -> None:
    noise = uniform(seed, position)

    assert 0.0 <= noise < 1.0
    assert noise == uniform(seed, position)


def test_noise_is_pinned() -> None:
    """Other versions and machines must draw the same."""
    assert [uniform(0, 0), uniform(0, 1), uniform(1, 0), uniform(2**63 - 1, 7)] == [
        0.28176129772258496,
        0.6524484863740322,
        0.8628561488610587,
        0.9058234958246422,
    ]


def test_noise_is_spread_evenly_over_positions_and_over_seeds() -> None:
    count = 4000
    for draws in (
        [uniform(5, position) for position in range(count)],
        [uniform(seed, 5) for seed in range(count)],
    ):
        ordered = sorted(draws)
        distance = max(abs(x - i / count) for i, x in enumerate(ordered))
        # Kolmogorov-Smirnov at the 0.1 % level.
        assert distance < 1.95 / math.sqrt(count)


def test_neighbouring_positions_and_seeds_are_not_correlated() -> None:
    draws = [uniform(9, position) for position in range(4001)]
    seeds = [uniform(seed, 3) for seed in range(4001)]

    for values in (draws, seeds):
        assert abs(statistics.correlation(values[:-1], values[1:])) < 0.06
