"""Grammars at the preprocessor: good ones once, bad ones never."""

from __future__ import annotations

import pytest

from actors.messages.cards import WorkerCard
from actors.messages.sampling import Grammar
from actors.preprocessor.grammars import KEPT, Grammars
from actors.preprocessor.prompts import Unacceptable


def card(*, guided: bool = True) -> WorkerCard:
    return WorkerCard(
        model="m",
        tokenizer="t",
        duty="aggregated",
        engine="e",
        max_context_tokens=10,
        block_tokens=1,
        blocks_total=1,
        max_running=1,
        started_at=0.0,
        guided=guided,
    )


def test_a_good_grammar_is_known_from_then_on() -> None:
    grammars, good = Grammars(), Grammar("regex", "a+")
    assert not grammars.knows(good)
    grammars.check(good, card())
    assert grammars.knows(good)


def test_a_bad_grammar_names_its_field_and_stays_unknown() -> None:
    grammars, bad = Grammars(), Grammar("regex", "(", "guided_regex")
    with pytest.raises(Unacceptable, match="guided_regex") as caught:
        grammars.check(bad, card())
    assert (caught.value.why, caught.value.param) == ("invalid", "guided_regex")
    assert not grammars.knows(bad)


def test_an_engine_that_follows_none_is_said_so() -> None:
    with pytest.raises(Unacceptable, match="does not support structured output"):
        Grammars().check(Grammar("regex", "a"), card(guided=False))


def test_only_so_many_are_remembered() -> None:
    grammars = Grammars()
    for number in range(KEPT + 1):
        grammars.check(Grammar("choice", f'["{number}"]'), card())
    assert not grammars.knows(Grammar("choice", '["0"]'))
    assert grammars.knows(Grammar("choice", f'["{KEPT}"]'))
