"""What is found out about a prompt while it is computed, piece by piece.

An examiner is given the rows of each piece, in order. When the sequence loses its blocks and is
computed again, its first piece comes again, and everything found before is forgotten.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from actors.engines.base import Request
from actors.engines.prompts import unpack
from actors.engines.transformers.sampler import logprobs_of
from actors.messages.sampling import Findings, Logprobs, TokenLogprob

Rows = npt.NDArray[np.float64]
Wanted = Literal["states", "logits"]


class Examiner(ABC):
    """One prompt's."""

    wanted: ClassVar[Wanted]
    """Of which kind the rows must be: last hidden states, or logits."""

    @abstractmethod
    def add(self, start: int, rows: Rows) -> None:
        """The rows of the tokens from position `start` on."""

    @abstractmethod
    def findings(self) -> Findings:
        """Once all tokens of the prompt were added."""


class Mean(Examiner):
    """The mean of all last hidden states, scaled to length 1."""

    wanted: ClassVar[Wanted] = "states"

    def __init__(self) -> None:
        self._sum: Rows | float = 0.0

    def add(self, start: int, rows: Rows) -> None:
        total = rows.sum(axis=0)
        self._sum = total if start == 0 else self._sum + total

    def findings(self) -> Findings:
        length = float(np.linalg.norm(self._sum)) or 1.0
        return Findings(embedding=np.asarray(self._sum / length, dtype="<f4").tobytes())


class PromptLogprobs(Examiner):
    """What the model would have given each token of the prompt."""

    wanted: ClassVar[Wanted] = "logits"

    def __init__(self, tokens: bytes, top: int) -> None:
        self._tokens = unpack(tokens)
        self._top = top
        self._entries: list[Logprobs] = []

    def add(self, start: int, rows: Rows) -> None:
        if start == 0:
            self._entries = [Logprobs(TokenLogprob(self._tokens[0], math.nan))]
        # The last token's row tells of the one that is generated next.
        following = self._tokens[start + 1 : start + 1 + len(rows)]
        self._entries += [
            logprobs_of(row, token, self._top) for row, token in zip(rows, following, strict=False)
        ]

    def findings(self) -> Findings:
        return Findings(self._entries)


def examiner_of(request: Request) -> Examiner | None:
    """What finds out about a request's prompt what is wanted."""
    match request.sampling.prompt:
        case "embedding":
            return Mean()
        case "logprobs":
            return PromptLogprobs(request.prompt, request.sampling.logprobs or 0)
        case "none":
            return None
