"""Grammars of structured output, checked before a worker is troubled with them."""

from __future__ import annotations

import threading
from collections import OrderedDict

from actors.messages.cards import WorkerCard
from actors.messages.sampling import Grammar
from actors.preprocessor.prompts import Unacceptable
from actors.text.grammar import GrammarError, check_grammar

KEPT = 1024
"""Grammars known to be good, those used last."""


class Grammars:
    """Which grammars were found good. May be used from several threads."""

    def __init__(self) -> None:
        self._good: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()

    def knows(self, grammar: Grammar) -> bool:
        """Whether `check` will return at once."""
        return (grammar.kind, grammar.text) in self._good

    def check(self, grammar: Grammar, card: WorkerCard) -> None:
        """Raises Unacceptable when the model's engine follows no grammar, or not this one."""
        if not card.guided:
            raise Unacceptable(
                "invalid",
                f"The engine of '{card.model}' does not support structured output.",
                grammar.param,
            )
        key = grammar.kind, grammar.text
        if key not in self._good:
            try:
                check_grammar(*key)
            except GrammarError as error:
                text = f"Invalid '{grammar.param}': {error}."
                raise Unacceptable("invalid", text, grammar.param) from error
        with self._lock:
            self._good[key] = None
            self._good.move_to_end(key)
            if len(self._good) > KEPT:
                self._good.popitem(last=False)
