"""Grammars of structured output: what they say, and which are turned down."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from actors.text.grammar import MAX_SPACES, GrammarError, GrammarKind, check_grammar, grammar_source
from tests.service import CAPITALS

TOKENIZER = LLTokenizer((CAPITALS / "tokenizer.json").read_text(), eos_token=1)


def fits(kind: GrammarKind, grammar: str, text: str) -> bool:
    """Whether a whole answer follows a grammar."""
    matcher = LLMatcher(TOKENIZER, grammar_source(kind, grammar), log_level=0)
    assert not matcher.is_error()
    taken = TOKENIZER.tokenize_str(text)
    return matcher.try_consume_tokens(taken) == len(taken) and matcher.is_accepting()


@given(st.lists(st.text(st.characters(codec="ascii"), min_size=1), min_size=1, max_size=4))
def test_each_choice_and_nothing_else_fits_whatever_characters_it_has(choices: list[str]) -> None:
    grammar = json.dumps(choices)
    check_grammar("choice", grammar)
    assert all(fits("choice", grammar, choice) for choice in choices)
    assert not fits("choice", grammar, "no such choice" + "".join(choices))


@pytest.mark.parametrize(
    ("kind", "grammar", "good", "bad"),
    [
        ("json_schema", '{"type":"object","required":["a"]}', '{"a": [1, null]}', "{}"),
        ("regex", r"\d{3}(-\d{2})?", "123-45", "12"),
        ("grammar", 'start: "a"+ NUMBER\nNUMBER: /[0-9]+/', "aa12", "a"),
        ("grammar", 'root ::= "yes" | "no"', "no", "maybe"),
    ],
)
def test_a_grammar_admits_what_fits_it(
    kind: GrammarKind, grammar: str, good: str, bad: str
) -> None:
    check_grammar(kind, grammar)
    assert fits(kind, grammar, good)
    assert not fits(kind, grammar, bad)


def test_white_space_in_json_is_free_but_has_an_end() -> None:
    schema = '{"type":"array","items":{"type":"integer"}}'
    assert fits("json_schema", schema, "[1,\n" + " " * (MAX_SPACES - 1) + "2]")
    assert not fits("json_schema", schema, "[1," + " " * (MAX_SPACES + 1) + "2]")


@pytest.mark.parametrize(
    ("kind", "grammar", "complaint"),
    [
        ("json_schema", '{"type":', "line 1"),
        ("json_schema", '{"type":"nonsense"}', "nonsense"),
        ("json_schema", '{"not":{"const":1}}', "not"),
        ("regex", "(a", "unclosed"),
        ("grammar", "start: missing", "missing"),
    ],
)
def test_a_grammar_that_cannot_be_followed_is_turned_down_with_the_reason(
    kind: GrammarKind, grammar: str, complaint: str
) -> None:
    with pytest.raises(GrammarError, match=complaint):
        check_grammar(kind, grammar)
