"""From one row of logits to a token. Pure NumPy in float64, so that it is the same everywhere.

The order is the customary one: penalties and biases on the logits, temperature, then `top_k`,
`top_p` and `min_p` cut the distribution, each on what the one before it left. What is left is
sampled by inversion: the noise of (seed, position) is one number in [0, 1), and the token is where
the cumulative probability, in order of token ids, passes it. Nearly equal logits so give nearly
always the same token, on whichever worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from actors.engines.transformers.noise import uniform
from actors.messages.sampling import Logprobs, Sampling, TokenLogprob

Row = npt.NDArray[np.float64]
Allowed = npt.NDArray[np.bool_]


class BrokenLogits(ArithmeticError):
    """The model gave no distribution over tokens."""

    def __init__(self) -> None:
        super().__init__("the model computed logits that are not numbers")


class History:
    """Which tokens a sequence has, kept only as far as the penalties ask for it."""

    def __init__(self, sampling: Sampling, prompt: Iterable[int], output: Iterable[int]) -> None:
        self._sampling = sampling
        self.wanted = (
            sampling.repetition_penalty != 1.0
            or sampling.presence_penalty != 0.0
            or sampling.frequency_penalty != 0.0
        )
        self._output = Counter(output) if self.wanted else Counter[int]()
        self._seen = {*prompt, *self._output} if sampling.repetition_penalty != 1.0 else set[int]()

    def append(self, token: int) -> None:
        """A token was generated."""
        if self.wanted:
            self._output[token] += 1
            if self._sampling.repetition_penalty != 1.0:
                self._seen.add(token)

    def penalise(self, logits: Row) -> None:
        """Change the logits in place. Repetition counts prompt and output (Keskar et al.,
        "CTRL", 2019); presence and frequency count output, as the OpenAI API defines them."""
        sampling = self._sampling
        if self._seen:
            ids = np.fromiter(self._seen, np.int64, len(self._seen))
            seen = logits[ids]
            penalty = sampling.repetition_penalty
            logits[ids] = np.where(seen > 0, seen / penalty, seen * penalty)
        if self._output:
            ids = np.fromiter(self._output.keys(), np.int64, len(self._output))
            counts = np.fromiter(self._output.values(), np.float64, len(self._output))
            logits[ids] -= sampling.presence_penalty + sampling.frequency_penalty * counts


def choose(
    logits: Row,
    sampling: Sampling,
    position: int,
    *,
    history: History | None = None,
    banned: Iterable[int] = (),
    allowed: Allowed | None = None,
) -> int:
    """The next token, at `position` (from 0) of the whole sequence.

    `logits` is one row as the model gave it and is not changed. Tokens in `banned` cannot win
    unless nothing else is left; of `allowed`, one flag a token, those that are False cannot win at
    all. Raises BrokenLogits.
    """
    adjusted = logits.astype(np.float64, copy=True)
    if history is not None:
        history.penalise(adjusted)
    for token, bias in sampling.logit_bias.items():
        adjusted[token] += bias
    banned = list(banned)
    if allowed is not None:
        adjusted[~allowed] = -np.inf
    if banned:
        kept = adjusted[banned]
        adjusted[banned] = -np.inf
        if not np.isfinite(adjusted.max()):
            adjusted[banned] = kept
    best = int(np.argmax(adjusted))
    peak = adjusted[best]
    if not np.isfinite(peak):
        raise BrokenLogits
    if sampling.greedy:
        return best
    ids, weights = _cut(np.exp((adjusted - peak) / sampling.temperature), sampling)
    cumulative = np.cumsum(weights)
    mark = uniform(sampling.seed, position) * cumulative[-1]
    # Rounding may put the mark on the very end.
    at = min(int(np.searchsorted(cumulative, mark, side="right")), len(ids) - 1)
    return int(ids[at])


def logprobs_of(logits: Row, token: int, top: int) -> Logprobs:
    """Natural log-probabilities by the model alone, before penalties, biases and temperature.

    Of equally likely tokens the one with the smaller id comes first.
    """
    row = logits.astype(np.float64)
    shifted = row - row.max()
    row = shifted - np.log(np.exp(shifted).sum())
    ranked = _largest(row, top)
    return Logprobs(
        TokenLogprob(token, float(row[token])),
        tuple(TokenLogprob(int(other), float(row[other])) for other in ranked),
    )


def _cut(weights: Row, sampling: Sampling) -> tuple[npt.NDArray[np.int64], Row]:
    """Token ids in rising order and their unnormalised weights, after top_k, top_p and min_p."""
    kept = np.flatnonzero(weights)
    if 0 < sampling.top_k < len(kept):
        kept = np.sort(_largest(weights, sampling.top_k))
    if sampling.top_p < 1.0:
        total = weights[kept].sum()
        # Tokens below this weight have less than 1 - top_p between them, so none of them is in
        # the nucleus; what is left is short enough to sort.
        floor = (1.0 - sampling.top_p) * total / len(kept)
        likely = kept[weights[kept] >= floor]
        ranked = likely[np.argsort(-weights[likely], kind="stable")]
        enough = int(np.searchsorted(np.cumsum(weights[ranked]), sampling.top_p * total))
        kept = np.sort(ranked[: enough + 1])
    if sampling.min_p > 0.0:
        left = weights[kept]
        kept = kept[left >= sampling.min_p * left.max()]
    return kept, weights[kept]


def _largest(values: Row, count: int) -> npt.NDArray[np.int64]:
    """Indices of the largest values, largest first, smaller index first among equals."""
    if count <= 0:
        return np.empty(0, np.int64)
    count = min(count, len(values))
    threshold = np.partition(values, -count)[-count]
    candidates = np.flatnonzero(values >= threshold)
    return candidates[np.argsort(-values[candidates], kind="stable")][:count]
