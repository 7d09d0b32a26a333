"""Detokenizers against whole-sequence decoding, for every kind of vocabulary."""

from __future__ import annotations

import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from actors.text.detokenizer import (
    WINDOW_LIMIT_TOKENS,
    ByteDetokenizer,
    Detokenizer,
    WindowDetokenizer,
)
from actors.text.token_bytes import TokenBytes, spelling_of
from tests.actors.text import vocabularies
from tests.actors.text.vocabularies import END, token_id

BYTE_LEVEL = vocabularies.byte_level()
BYTE_FALLBACK = vocabularies.byte_fallback()
METASPACE = vocabularies.metaspace()
WORD_PIECE = vocabularies.word_piece()

TEXTS = st.text(st.sampled_from("the quick, 日本語🙂👩\u200d👧é\u0301 \n\ufffdÿ<"), max_size=40)
CUTS = st.lists(st.integers(0, 4), min_size=1, max_size=60)


def _hidden(tokenizer: tokenizers.Tokenizer, *, skip: bool) -> frozenset[int]:
    added = tokenizer.get_added_tokens_decoder()
    return frozenset(token for token in added if skip and added[token].special)


def _stream(tokenizer: tokenizers.Tokenizer, *, skip: bool = True) -> Detokenizer:
    spelling = spelling_of(tokenizer)
    hidden = _hidden(tokenizer, skip=skip)
    if spelling is None:
        return WindowDetokenizer(tokenizer, hidden)
    return ByteDetokenizer(TokenBytes(tokenizer, spelling, hidden))


def _pieces(stream: Detokenizer, ids: list[int], cuts: list[int]) -> list[str]:
    pieces: list[str] = []
    position = 0
    while position < len(ids):
        step = cuts[len(pieces) % len(cuts)] if any(cuts) else 1
        pieces.append(stream.push(ids[position : position + step]))
        position += step
    return [*pieces, stream.flush()]


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK, METASPACE, WORD_PIECE])
@given(data=st.data())
def test_a_token_that_is_whole_by_itself_may_be_left_out(
    tokenizer: tokenizers.Tokenizer, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() + 5), max_size=40))
    pushed, spared = _stream(tokenizer), _stream(tokenizer)
    text = ""

    for token in ids:
        whole = None if spared.whole is None else spared.whole[token]
        text += json.loads(b'"%b"' % whole) if whole else spared.push([token])

    assert text + spared.flush() == "".join(map(pushed.push, [[i] for i in ids])) + pushed.flush()


def test_the_table_of_whole_tokens_holds_none_from_outside_the_vocabulary() -> None:
    stream = _stream(BYTE_LEVEL)
    stream.push([token_id(BYTE_LEVEL, "a")])
    whole = stream.whole
    assert whole is not None

    assert whole[10**6] == b""
    assert whole[token_id(BYTE_LEVEL, "a")] == b"a"
    assert list(whole) == [token_id(BYTE_LEVEL, "a")]


@pytest.mark.parametrize("skip", [True, False])
@given(ids=st.lists(st.integers(0, BYTE_LEVEL.get_vocab_size() + 5), max_size=40), cuts=CUTS)
def test_byte_level_pieces_join_to_the_whole_for_any_tokens_even_broken_utf8(
    skip: bool, ids: list[int], cuts: list[int]
) -> None:
    pieces = _pieces(_stream(BYTE_LEVEL, skip=skip), ids, cuts)
    assert "".join(pieces) == BYTE_LEVEL.decode(ids, skip_special_tokens=skip)


@given(ids=st.lists(st.integers(0, METASPACE.get_vocab_size() + 5), max_size=40), cuts=CUTS)
def test_metaspace_pieces_join_to_the_whole_for_any_tokens(ids: list[int], cuts: list[int]) -> None:
    assert "".join(_pieces(_stream(METASPACE), ids, cuts)) == METASPACE.decode(ids)


@given(ids=st.lists(st.integers(0, WORD_PIECE.get_vocab_size() + 2), max_size=30), cuts=CUTS)
def test_pieces_of_an_unknown_decoder_join_to_the_whole(ids: list[int], cuts: list[int]) -> None:
    assert "".join(_pieces(_stream(WORD_PIECE), ids, cuts)) == WORD_PIECE.decode(ids)


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["bytes", "fallback"])
@given(text=TEXTS, cuts=CUTS)
def test_pieces_of_any_text_join_to_the_whole(
    tokenizer: tokenizers.Tokenizer, text: str, cuts: list[int]
) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert "".join(_pieces(_stream(tokenizer), ids, cuts)) == tokenizer.decode(ids)


@given(ids=st.lists(st.integers(0, BYTE_FALLBACK.get_vocab_size() + 5), max_size=40), cuts=CUTS)
def test_pieces_do_not_depend_on_the_cuts_even_when_a_byte_run_is_broken(
    ids: list[int], cuts: list[int]
) -> None:
    whole = _pieces(_stream(BYTE_FALLBACK), ids, [len(ids) + 1])
    assert "".join(_pieces(_stream(BYTE_FALLBACK), ids, cuts)) == "".join(whole)


def test_a_character_spread_over_tokens_comes_out_once_complete() -> None:
    ids = [token_id(BYTE_FALLBACK, f"<0x{byte:02X}>") for byte in "🙂".encode()]
    stream = _stream(BYTE_FALLBACK)
    assert [stream.push([token]) for token in ids] == ["", "", "", "🙂"]


def test_an_unfinished_character_is_flushed_as_a_replacement_character() -> None:
    stream = _stream(BYTE_FALLBACK)
    assert stream.push([token_id(BYTE_FALLBACK, "<0xE4>")]) == ""
    assert (stream.flush(), stream.flush()) == ("\ufffd", "")


def test_a_good_character_before_a_broken_byte_stays() -> None:
    """The one stated difference to decoding the whole, which would replace it too."""
    ids = [token_id(BYTE_FALLBACK, f"<0x{byte:02X}>") for byte in "日".encode() + b"\xff"]
    assert "".join(_pieces(_stream(BYTE_FALLBACK), ids, [1])) == "日\ufffd"
    assert BYTE_FALLBACK.decode(ids) == "\ufffd" * 4


def test_a_long_run_of_broken_bytes_is_not_held_back() -> None:
    broken = token_id(BYTE_LEVEL, "ÿ")
    stream = _stream(BYTE_LEVEL)
    assert [stream.push([broken]) for _ in range(1000)] == ["\ufffd"] * 1000


def test_only_the_first_space_of_a_sentencepiece_text_is_dropped() -> None:
    ids = BYTE_FALLBACK.encode(" the the").ids
    assert "".join(_pieces(_stream(BYTE_FALLBACK), ids, [1])) == " the the"


def test_special_tokens_are_shown_when_asked_for() -> None:
    ids = [*BYTE_LEVEL.encode("the").ids, token_id(BYTE_LEVEL, END)]
    assert "".join(_pieces(_stream(BYTE_LEVEL, skip=False), ids, [1])) == f"the{END}"
    assert "".join(_pieces(_stream(BYTE_LEVEL), ids, [1])) == "the"


def test_the_table_does_not_grow_with_ids_outside_the_vocabulary() -> None:
    spelling = spelling_of(BYTE_LEVEL)
    assert spelling is not None
    table = TokenBytes(BYTE_LEVEL, spelling, frozenset())
    ByteDetokenizer(table).push(range(1_000, 5_000))
    assert len(table) == 0


def test_a_window_lets_text_go_that_stays_unfinished_for_too_long() -> None:
    """A decoder with bytes that is not recognised must not make a stream stall or grow."""
    tokenizer = vocabularies.byte_fallback()
    stream = WindowDetokenizer(tokenizer, frozenset())
    broken = token_id(tokenizer, "<0xFF>")
    pieces = [stream.push([broken]) for _ in range(WINDOW_LIMIT_TOKENS)]
    assert pieces == [""] * (WINDOW_LIMIT_TOKENS - 1) + ["\ufffd" * WINDOW_LIMIT_TOKENS]
