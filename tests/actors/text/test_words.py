"""Words that are looked up: the same ids as the library's, whatever the text."""

from __future__ import annotations

from functools import cache

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from actors.text.tokenizer import packed
from actors.text.words import WORDS_KEPT, Words, for_ascii
from tests.actors.text import vocabularies

GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|"
    r"\s*[\r\n]|\s+(?!\S)|\s+"
)
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",  # noqa: RUF001 - the expression as the model has it
    (
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
        r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
)
WITH_GAPS = (r"\p{N}+",)
KINDS = {
    "gpt_2": (),
    "cl100k": (CL100K,),
    "llama_3": (LLAMA_3,),
    "qwen_2": (QWEN_2,),
    "o200k": (O200K,),
    "deepseek_3": DEEPSEEK_3,
    "with_gaps": WITH_GAPS,
}
ADDED = ["<|eot|>", "<|x", "<|x|>", "|>x", "word"]


@cache
def tokenizer(kind: str) -> Tokenizer:
    made = vocabularies.byte_level(added=[])
    splits = [pre_tokenizers.Split(Regex(one), "isolated") for one in KINDS[kind]]
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not splits)]
    )
    if kind == "qwen_2":
        made.normalizer = normalizers.NFC()
    made.add_tokens([AddedToken(token, normalized=False) for token in ADDED])
    return made


def by_the_library(made: Tokenizer, texts: list[str]) -> list[bytes]:
    return [packed(made.encode(text, add_special_tokens=False).ids) for text in texts]


def words_of(kind: str, look: int = 16) -> Words:
    made = tokenizer(kind)
    words = Words.of(made, lambda texts: by_the_library(made, texts), look)
    assert words is not None
    return words


PIECES = st.one_of(
    st.sampled_from(ADDED),
    st.sampled_from(
        ["the", " quick", "'s", "'LL", "don't", "123", "4567", " 1", "a_b", "HTTPServer"]
    ),
    st.sampled_from([" ", "  ", "\n", "\r\n", "\t", "\x0b", "\x1c", "\x85", "\u3000", "\x00"]),
    st.sampled_from(["é", "e\u0301", "日本", "🙂", "Ⅷ", "ſ", "K"]),  # noqa: RUF001 - kin of k and s
    st.text(st.characters(max_codepoint=127), max_size=6),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50)
@given(pieces=st.lists(PIECES, max_size=14))
@example(pieces=["x" * 100, "1" * 40, " " * 50, "word"])
@example(pieces=[" the", "  ", "\n", "  ", "quick"])
@example(pieces=["<|x", "|>x", "<|x|>", "<|eot|", "<|eot|>"])
def test_the_ids_are_those_of_the_library(kind: str, pieces: list[str]) -> None:
    text = "".join(pieces)

    assert [words_of(kind).encode(text)] == by_the_library(tokenizer(kind), [text])


def test_a_word_is_asked_for_once() -> None:
    made, asked = tokenizer("llama_3"), list[str]()

    def encode_each(texts: list[str]) -> list[bytes]:
        asked.extend(texts)
        return by_the_library(made, texts)

    words = Words.of(made, encode_each)
    assert words is not None
    asked.clear()

    words.encode("See one fox, two fox")
    words.encode("See two fox, one fox")

    assert sorted(asked) == sorted(["See", " one", " fox", " two"])


def test_no_more_words_are_kept_than_the_limit() -> None:
    words = words_of("llama_3")
    for first in range(0, 2 * WORDS_KEPT, 4096):
        words.encode(
            " ".join(f"x{number:x}".replace("0", "g") for number in range(first, first + 4096))
        )

    assert len(words) <= WORDS_KEPT


def test_a_tokenizer_that_is_not_known_to_work_by_words_is_left_to_the_library() -> None:
    for made in (
        vocabularies.byte_fallback(),
        vocabularies.metaspace(),
        vocabularies.word_piece(),
        vocabularies.byte_level(added=[AddedToken("left", lstrip=True, normalized=False)]),
        vocabularies.byte_level(added=[AddedToken("Form", normalized=True)]),
    ):
        assert Words.of(made, lambda texts: [b"" for _ in texts]) is None


def test_a_tokenizer_that_gives_other_ids_than_expected_is_left_to_the_library() -> None:
    made = tokenizer("llama_3")

    def contrary(texts: list[str]) -> list[bytes]:
        return by_the_library(made, [text[::-1] for text in texts])

    assert Words.of(made, contrary) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "a{1,3}+",
        r"\P{L}",
        r"(a)\1",
        "^a",
        "a.b",
        "[a&&b]",
        "[[a]b]",
        r"\d+",
        r"(?<=a)b",
        r"a(?!bc)",
    ],
)
def test_what_two_libraries_may_read_differently_is_not_translated(pattern: str) -> None:
    assert for_ascii(pattern) is None
