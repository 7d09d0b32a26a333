"""What is found out about a prompt, piece by piece, against the plain model."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest

from actors.engines.base import Request
from actors.engines.transformers.examiner import Mean, PromptLogprobs, examiner_of
from actors.messages.sampling import Sampling


def rows(count: int, width: int = 5, seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype]:
    return np.random.default_rng(seed).normal(size=(count, width))


@pytest.mark.parametrize("cuts", [[7], [3, 7], [1, 2, 7]])
def test_the_mean_does_not_depend_on_the_pieces(cuts: list[int]) -> None:
    states = rows(7)
    examiner = Mean()
    examiner.add(0, rows(4, seed=1))  # preempted, and computed again
    for start, stop in zip([0, *cuts], cuts, strict=False):
        examiner.add(start, states[start:stop])

    mean = states.mean(axis=0)
    found = np.frombuffer(examiner.findings().embedding, "<f4")
    assert np.allclose(found, mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize("cuts", [[4], [1, 4], [2, 3, 4]])
def test_each_token_of_a_prompt_has_the_probability_that_the_one_before_gave_it(
    cuts: list[int],
) -> None:
    logits = rows(4)
    examiner = PromptLogprobs(array("I", [2, 0, 4, 1]).tobytes(), 1)
    for start, stop in zip([0, *cuts], cuts, strict=False):
        examiner.add(start, logits[start:stop])

    first, *others = examiner.findings().logprobs
    assert first.chosen.token == 2
    assert math.isnan(first.chosen.logprob)
    assert [entry.chosen.token for entry in others] == [0, 4, 1]
    exact = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for position, entry in enumerate(others):
        assert entry.chosen.logprob == pytest.approx(exact[position][entry.chosen.token])
        assert entry.top[0].token == int(exact[position].argmax())


def test_most_requests_are_not_examined() -> None:
    request = Request(1, array("I", [1]).tobytes(), Sampling(max_tokens=1))

    assert examiner_of(request) is None
