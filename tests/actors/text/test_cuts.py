"""Texts cut in parts: the parts' ids are those of the whole, whatever the tokenizer."""

from __future__ import annotations

from functools import cache
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from actors.text.cuts import MAX_MARKS, cut, safe_marks
from tests.actors.text import vocabularies

SAFE = ["<|eot|>", "<|start|>", "<|end|>", "[INST]", "</s>"]
LONGEST = ["<|x|>", "<|z|>more"]
"""Safe, since the longest token that begins in a place is read."""
UNSAFE = [
    AddedToken("<|y|>", special=True),  # `a<|y` may cover its start
    AddedToken("a<|y", special=True),  # begins like a word
    AddedToken("<|z|>", special=True),  # another contains it
    AddedToken("<|left|>", lstrip=True, special=True),
    AddedToken("<|right|>", rstrip=True, special=True),
    AddedToken("<|word|>", single_word=True, special=True),
    AddedToken("<|Form|>", normalized=True, special=False),
    AddedToken("word", special=False),
    AddedToken("alone", single_word=True, normalized=False),
    AddedToken("==x==", special=True),  # overlaps itself
    AddedToken(" gap", special=True),
]
OTHERS = [AddedToken("<|x", normalized=False), AddedToken("|>x", normalized=False)]


def _byte_level() -> Tokenizer:
    return vocabularies.byte_level()


def _with_prefix_space() -> Tokenizer:
    tokenizer = vocabularies.byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    return tokenizer


def _first_only() -> Tokenizer:
    tokenizer = vocabularies.metaspace()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return tokenizer


@cache
def tokenizer(kind: str) -> Tokenizer:
    made = {
        "byte_level": _byte_level,
        "with_prefix_space": _with_prefix_space,
        "byte_fallback": vocabularies.byte_fallback,
        "metaspace": vocabularies.metaspace,
        "first_only": _first_only,
        "word_piece": vocabularies.word_piece,
    }[kind]()
    made.add_special_tokens([AddedToken(token, special=True) for token in SAFE + LONGEST])
    made.add_tokens([*UNSAFE, *OTHERS])
    return made


KINDS = (
    "byte_level",
    "with_prefix_space",
    "byte_fallback",
    "metaspace",
    "first_only",
    "word_piece",
)
CONTENTS = [*SAFE, *LONGEST, *(token.content for token in [*UNSAFE, *OTHERS])]
PIECES = st.one_of(
    st.sampled_from(SAFE),
    st.sampled_from(CONTENTS),
    st.sampled_from(CONTENTS).flatmap(
        lambda token: st.integers(1, len(token)).map(lambda end: token[:end])
    ),
    st.sampled_from(
        [" ", "  ", "\n", "\n\n", "\u3000", "the quick", "Über", "x", "_", "=", "日本"]
    ),
    st.text(max_size=5),
)


def marks_of(kind: str) -> tuple[str, ...]:
    return safe_marks(tokenizer(kind).get_added_tokens_decoder().values(), CONTENTS)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(pieces=st.lists(PIECES, max_size=14), min_part=st.integers(1, 9))
@example(pieces=["alone", "<|eot|>", "alone"], min_part=1)
@example(pieces=["x", "<|right|>", "  ", "<|eot|>", "  ", "<|left|>"], min_part=1)
@example(pieces=["<|", "<|eot|>", "the", " the", "</s>", "the"], min_part=1)
def test_the_parts_have_the_ids_of_the_whole(kind: str, pieces: list[str], min_part: int) -> None:
    text = "".join(pieces)
    if any("\ud800" <= character <= "\udfff" for character in text):
        return
    encode = tokenizer(kind).encode

    def ids(part: str) -> list[int]:
        found: list[int] = encode(part, add_special_tokens=False).ids
        return found

    parts = cut(text, marks_of(kind), min_part)

    assert "".join(parts) == text
    assert [one for part in parts for one in ids(part)] == ids(text)


@pytest.mark.parametrize("kind", KINDS)
def test_only_tokens_that_stand_alone_are_cut_at(kind: str) -> None:
    assert set(marks_of(kind)) == {*SAFE, *LONGEST}


def test_a_longer_text_is_cut_in_the_same_places() -> None:
    turn = "<|start|>user" + "x" * 1200 + "<|eot|>"
    before = cut("head" + turn * 3, ["<|start|>", "<|eot|>"])

    after = cut("head" + turn * 5, ["<|start|>", "<|eot|>"])

    assert after[: len(before) - 1] == before[:-1]
    assert len(before) == 4


def test_a_text_without_marks_stays_whole() -> None:
    assert cut("x" * 1000, ["<|eot|>"]) == ["x" * 1000]
    assert cut("<|eot|>" * 1000, []) == ["<|eot|>" * 1000]
    assert cut("", ["<|eot|>"]) == [""]


def test_few_marks_are_searched_for() -> None:
    many: list[Any] = [AddedToken(f"<|{number}|>", special=True) for number in range(300)]

    assert len(safe_marks(many, [token.content for token in many])) == MAX_MARKS
