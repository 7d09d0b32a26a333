"""Structured output: which tokens a grammar admits next (llguidance).

A grammar is compiled in a thread beside the engine's, the first time in milliseconds to seconds,
later from a store in microseconds. What is followed is a function of the grammar and the tokens
behind it, so a replay on another worker goes on as if nothing had happened.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer

from actors.messages.sampling import Grammar
from actors.text.grammar import GrammarError, grammar_source

COMPILERS = 2
"""Grammars compiled at the same time; more wait, no more than requests may."""
KEPT_GRAMMARS = 128
"""Compiled grammars kept for later requests, those used last."""


class GuideFailed(Exception):
    """The matcher gave up, at one of its limits or on a token that does not fit."""


class Guide:
    """One sequence's place in its grammar. Used from one thread at a time."""

    def __init__(self, matcher: LLMatcher, ends: Sequence[int], vocabulary: int) -> None:
        self._matcher = matcher
        self._ends = list(ends)
        self._vocabulary = vocabulary

    @property
    def over(self) -> bool:
        """Whether the answer is complete and nothing can follow."""
        return self._matcher.is_stopped()

    def allowed(self) -> npt.NDArray[np.bool_]:
        """One flag a token of the model: whether it may be next. The model's end tokens may be
        where the answer could end. Raises GuideFailed."""
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise GuideFailed(self._matcher.get_error())
        flags = np.unpackbits(packed, bitorder="little", count=self._vocabulary).astype(np.bool_)
        # The matcher knows one end token; a model may have several.
        flags[self._ends] = self._matcher.is_accepting()
        return flags

    def consume(self, token: int) -> bool:
        """Go on behind a token; whether the answer is then `over`. Raises GuideFailed."""
        if not self._matcher.consume_token(token):
            raise GuideFailed(self._matcher.get_error())
        return self._matcher.is_stopped()


class Guides:
    """Makes guides, each in a thread of its own pool. `close` when the engine ends."""

    def __init__(self, tokenizer: Path, vocabulary: int, eos_token_ids: Sequence[int]) -> None:
        """`tokenizer` is a tokenizer.json; `vocabulary` the width of the logits."""
        self._file = tokenizer
        self._vocabulary = vocabulary
        self._ends = [token for token in eos_token_ids if token < vocabulary]
        self._threads = ThreadPoolExecutor(COMPILERS, thread_name_prefix="grammar")
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._kept: OrderedDict[tuple[str, str], LLMatcher] = OrderedDict()

    def begin(
        self,
        grammar: Grammar,
        tokens: Iterable[int],
        made: Callable[[Guide | None, str], None],
    ) -> None:
        """Make a guide that stands behind `tokens`. `made` gets it in another thread, or None
        and a sentence."""
        self._threads.submit(self._make, grammar, list(tokens), made)

    def close(self) -> None:
        """Returns when nothing is compiled any more."""
        self._threads.shutdown(cancel_futures=True)

    def _make(
        self, grammar: Grammar, tokens: list[int], made: Callable[[Guide | None, str], None]
    ) -> None:
        try:
            guide = Guide(self._matcher(grammar), self._ends, self._vocabulary)
            for token in tokens:
                guide.consume(token)
        except Exception as error:  # noqa: BLE001 - llguidance raises bare ones; one request ends
            made(None, f"the grammar cannot be followed: {error}")
        else:
            made(guide, "")

    def _matcher(self, grammar: Grammar) -> LLMatcher:
        key = grammar.kind, grammar.text
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept.deep_copy()
            tokenizer = self._tokenizer = self._tokenizer or self._load()
        matcher = LLMatcher(tokenizer, grammar_source(*key), log_level=0)
        if matcher.is_error():
            raise GrammarError(matcher.get_error())
        # What it works out for the first token it keeps for all copies.
        matcher.compute_bitmask()
        with self._lock:
            self._kept[key] = matcher
            if len(self._kept) > KEPT_GRAMMARS:
                self._kept.popitem(last=False)
        return matcher.deep_copy()

    def _load(self) -> LLTokenizer:
        text = self._file.read_text(encoding="utf-8")
        eos = self._ends[0] if self._ends else None
        return LLTokenizer(text, n_vocab=self._vocabulary, eos_token=eos)
