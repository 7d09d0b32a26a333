from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines.transformers.sampler import (
    BrokenLogits,
    History,
    Row,
    choose,
    logprobs_of,
)
from actors.messages.sampling import Sampling

ROWS = st.lists(st.floats(-20, 20), min_size=2, max_size=40).map(np.array)


def sampling(**options: Any) -> Sampling:
    return Sampling(max_tokens=1, **options)


def draws(logits: Row, options: Sampling, count: int = 3000) -> dict[int, float]:
    found = Counter(choose(logits, options, position) for position in range(count))
    return {token: number / count for token, number in found.items()}


def test_tokens_come_as_often_as_the_softmax_says() -> None:
    probabilities = np.array([0.5, 0.2, 0.2, 0.1])

    found = draws(np.log(probabilities), sampling())

    assert [found[token] for token in range(4)] == pytest.approx(list(probabilities), abs=0.03)


def test_temperature_sharpens() -> None:
    found = draws(np.log(np.array([0.6, 0.4])), sampling(temperature=0.5))

    assert found[0] == pytest.approx(0.36 / 0.52, abs=0.03)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 2}, {0, 2}),
        ({"top_p": 0.4}, {0}),
        ({"top_p": 0.41}, {0, 2}),
        ({"top_p": 0.0}, {0}),
        ({"top_p": 0.99}, {0, 1, 2, 3}),
        ({"min_p": 0.5}, {0, 2, 3}),
        ({"top_k": 3, "top_p": 0.5}, {0, 2}),
        ({"logit_bias": {0: -100.0}}, {1, 2, 3}),
        ({"temperature": 1e-9}, {0}),
    ],
)
def test_the_distribution_is_cut_as_asked(options: dict[str, Any], kept: set[int]) -> None:
    logits = np.log(np.array([0.4, 0.1, 0.3, 0.2]))

    assert set(draws(logits, sampling(**options), 300)) == kept


@given(ROWS, st.floats(0.01, 0.999))
def test_the_nucleus_is_the_smallest_that_has_the_mass(logits: Row, top_p: float) -> None:
    """Checked against a full sort; what can be drawn is exactly the nucleus."""
    weights = np.exp(logits - logits.max())
    ranked = np.argsort(-weights, kind="stable")
    share = np.cumsum(weights[ranked]) / weights.sum()
    nucleus = set(ranked[: int(np.searchsorted(share, top_p - 1e-9)) + 1].tolist())
    generous = set(ranked[: int(np.searchsorted(share, top_p + 1e-9)) + 1].tolist())

    found = {choose(logits, sampling(top_p=top_p, seed=s), 0) for s in range(30)}

    assert found <= nucleus | generous


@given(ROWS, st.integers(0, 2**62), st.integers(0, 10_000))
def test_the_choice_depends_on_nothing_but_its_arguments(
    logits: Row, seed: int, position: int
) -> None:
    options = sampling(seed=seed, top_p=0.9, top_k=7, min_p=0.01, temperature=0.8)
    before = logits.copy()

    assert choose(logits, options, position) == choose(logits, options, position)
    assert np.array_equal(logits, before)


@given(ROWS)
def test_greedy_takes_the_first_of_the_best(logits: Row) -> None:
    assert choose(logits, sampling(temperature=0.0), 3) == int(np.argmax(logits))
    assert choose(logits, sampling(top_k=1), 3) == int(np.argmax(logits))


def test_penalties_count_what_they_are_meant_to_count() -> None:
    options = sampling(presence_penalty=1.0, frequency_penalty=0.5, repetition_penalty=2.0)
    history = History(options, [0, 1], [1])
    history.append(2)
    history.append(2)
    logits = np.array([4.0, -4.0, 4.0, 4.0])

    history.penalise(logits)

    assert logits.tolist() == [2.0, -8.0 - 1.5, 2.0 - 2.0, 4.0]


def test_a_banned_token_does_not_come() -> None:
    assert choose(np.array([9.0, 1.0]), sampling(temperature=0.0), 0, banned=[0]) == 1
    assert choose(np.array([9.0, 1.0]), sampling(temperature=0.0), 0, banned=[0, 1]) == 0


@pytest.mark.parametrize("bad", [[np.nan, 1.0], [np.inf, 1.0], [-np.inf, -np.inf]])
def test_what_is_no_distribution_is_an_error(bad: list[float]) -> None:
    with pytest.raises(BrokenLogits):
        choose(np.array(bad), sampling(), 0)


def test_logprobs_are_ranked_with_the_smaller_id_first() -> None:
    found = logprobs_of(np.log(np.array([0.2, 0.3, 0.2, 0.3])), 2, 3)

    assert [entry.token for entry in found.top] == [1, 3, 0]
    assert found.chosen.logprob == pytest.approx(np.log(0.2))
    assert logprobs_of(np.zeros(3), 0, 0).top == ()
