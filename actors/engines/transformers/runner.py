"""Forward passes over the paged pool: rows of tokens in, one row of logits for each out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from actors.engines.transformers.attention import CHUNK, ROWS
from actors.engines.transformers.examiner import Wanted
from actors.engines.transformers.graphs import DecodeGraphs
from actors.engines.transformers.paged_cache import PagedCache, Slots
from actors.engines.transformers.work import Work


class Runner:
    """A model and its pool. Used from one thread.

    In a batch, rows end together (they are padded on the left), so the last column of every row
    is its newest token and the model computes logits for that column only. Padding is harmless
    since every position and the whole mask are given explicitly.
    """

    def __init__(
        self,
        model: Any,
        pool: torch.Tensor,
        *,
        deterministic: bool = False,
        graphs: bool = False,
        answers: bool = True,
    ) -> None:
        """With `graphs`, for a CUDA device alone, the pool's last block must be nobody's.

        `answers`: whether logits are wanted of it. A rank that follows has no use for them, and
        its `run` returns as many rows without columns."""
        self._model = model if answers else model.base_model
        self._answers = answers
        self.blocks = len(pool) - graphs
        """That sequences may have."""
        self._pool = pool
        self._device = pool.device
        self._block_tokens = pool.shape[3]
        self.deterministic = deterministic
        self.cache = PagedCache(pool)
        self._graphs = DecodeGraphs(model, self.cache, pool) if graphs else None

    def run(self, works: Sequence[Work]) -> torch.Tensor:
        """Compute all tokens of all works; logits [works, vocabulary] of each one's last token,
        on the model's device.

        Works of similar length go through the model together, so little of a batch is padding.
        """
        groups = _groups(works)
        logits: list[torch.Tensor] = []
        order: list[int] = []
        with torch.inference_mode():
            for indices in groups:
                logits.append(self._compute([works[index] for index in indices]))
                order += indices
            if len(logits) == 1:
                return logits[0]
            places = torch.empty(len(order), dtype=torch.long, device=self._device)
            places[torch.tensor(order, device=self._device)] = torch.arange(
                len(order), device=self._device
            )
            return torch.cat(logits)[places]

    def examine(self, works: Sequence[Work], wanted: Wanted) -> list[npt.NDArray[np.float64]]:
        """Compute all tokens of all works; of each work, for each of its tokens, a row on the host:
        the model's last hidden state, or the logits of the token after it."""
        found: dict[int, npt.NDArray[np.float64]] = {}
        with torch.inference_mode():
            for indices in _groups(works):
                group = [works[index] for index in indices]
                rows = self._forward(group, wanted)
                for index, work, own in zip(indices, group, rows, strict=True):
                    found[index] = own[-len(work.tokens) :].double().cpu().numpy()
        return [found[index] for index in range(len(works))]

    def most_likely(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int | None]:
        """The most likely token of each of these rows, the smallest id among equals; None where
        the model computed something that is not a number."""
        if not rows:
            return []
        with torch.inference_mode():
            chosen = logits if len(rows) == len(logits) else logits[list(rows)]
            best = chosen.argmax(-1)
            sound = chosen.gather(-1, best[:, None])[:, 0].isfinite()
            pairs = zip(best.tolist(), sound.tolist(), strict=True)
            return [token if ok else None for token, ok in pairs]

    def rows(self, logits: torch.Tensor, rows: Sequence[int]) -> npt.NDArray[np.float64]:
        """Some rows of logits on the host."""
        if not rows:
            return np.empty((0, logits.shape[1]))
        return logits[list(rows)].double().cpu().numpy()

    def _compute(self, works: Sequence[Work]) -> torch.Tensor:
        if self._graphs is not None and all(len(work.tokens) == 1 for work in works):
            replayed = self._graphs.run(works)
            if replayed is not None:
                return replayed
            self._graphs = None
        return self._forward(works)

    def _forward(self, works: Sequence[Work], wanted: Wanted | None = None) -> torch.Tensor:
        """Logits [works, vocabulary] of the last tokens; or rows [works, tokens, ...] of all, which
        are padded on the left."""
        rows = max(len(work.tokens) for work in works)
        batch = len(works)
        width = max(-(-(work.start + len(work.tokens)) // self._block_tokens) for work in works)
        keep = 1
        if self.deterministic:
            # A product of few rows takes another kernel: never fewer than ROWS, and multiples.
            if rows == 1:
                batch = _up(batch, ROWS)
            else:
                rows = _up(rows, ROWS)
                keep = ROWS
            width = _chunked(width, self._block_tokens)
        ids = np.zeros((batch, rows), np.int64)
        positions = np.zeros((batch, rows), np.int64)
        written = np.zeros((batch, rows), np.bool_)
        table = np.zeros((len(works), width), np.int64)
        for row, work in enumerate(works):
            first = rows - len(work.tokens)
            ids[row, first:] = work.tokens
            positions[row, first:] = np.arange(work.start, work.start + len(work.tokens))
            written[row, first:] = True
            used = work.blocks[:width]
            table[row, : len(used)] = used
        flat = np.flatnonzero(written)
        at = positions.reshape(-1)[flat]
        block = table[flat // rows, at // self._block_tokens]
        self.cache.slots = Slots(
            None if len(flat) == written.size else self._tensor(flat),
            self._tensor(block),
            self._tensor(at % self._block_tokens),
            self._tensor(table),
        )
        where = self._tensor(positions)
        keys = torch.arange(width * self._block_tokens, device=self._device)
        model = self._model.base_model if wanted == "states" else self._model
        keeps = self._answers and wanted != "states"
        output = model(
            input_ids=self._tensor(ids),
            position_ids=where,
            attention_mask=(keys <= where[:, None, :, None]),
            past_key_values=self.cache,
            use_cache=True,
            **({"logits_to_keep": 0 if wanted else keep} if keeps else {}),
        )
        if not self._answers:
            return torch.empty((len(works), 0), device=self._device)
        if wanted == "states":
            states: torch.Tensor = output.last_hidden_state[: len(works)]
            return states
        logits: torch.Tensor = output.logits[: len(works)]
        return logits if wanted else logits[:, -1]

    def _tensor(self, array: np.ndarray[Any, Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)


def _groups(works: Sequence[Work]) -> list[list[int]]:
    """Works of similar length, by their place. The same on every rank of an engine."""
    groups: dict[int, list[int]] = {}
    for index, work in enumerate(works):
        groups.setdefault(len(work.tokens).bit_length(), []).append(index)
    return [*groups.values()]


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _chunked(width: int, block_tokens: int) -> int:
    """The smallest number of blocks, at least `width`, that is whole chunks of keys."""
    while width * block_tokens % CHUNK:
        width += 1
    return width
