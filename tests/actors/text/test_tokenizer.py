"""Loading a tokenizer from a model's files, and what it promises."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

from actors.text.chat_template import NoChatTemplate
from actors.text.detokenizer import ByteDetokenizer, WindowDetokenizer
from actors.text.model_files import TokenizerNotFound, read_model_files
from actors.text.tokenizer import Tokenizer
from tests.actors.text import vocabularies
from tests.actors.text.vocabularies import END, token_id, write_model

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    directory = tmp_path_factory.mktemp("model")
    return Tokenizer.load(write_model(directory, vocabularies.byte_level()))


@given(text=st.text())
def test_text_survives_encoding_and_decoding(loaded: Tokenizer, text: str) -> None:
    assert loaded.decode(loaded.encode(text, add_special_tokens=False)) == text


def test_ids_are_packed_as_little_endian_u32(loaded: Tokenizer) -> None:
    ids = vocabularies.byte_level().encode("the fox").ids
    assert loaded.encode("the fox", add_special_tokens=True) == struct.pack(f"<{len(ids)}I", *ids)
    assert loaded.decode(ids) == "the fox"
    assert loaded.encode("", add_special_tokens=False) == b""


def test_text_that_cannot_be_utf8_is_refused(loaded: Tokenizer) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        loaded.encode("\ud800", add_special_tokens=False)


def test_special_tokens_are_added_only_when_asked_for(tmp_path: Path) -> None:
    source = vocabularies.byte_level()
    end = token_id(source, END)
    source.post_processor = processors.TemplateProcessing(f"{END} $A", None, [(END, end)])
    tokenizer = Tokenizer.load(write_model(tmp_path, source))
    plain = tokenizer.encode("the", add_special_tokens=False)
    assert tokenizer.encode("the", add_special_tokens=True) == struct.pack("<I", end) + plain


def test_truncation_and_padding_left_from_training_are_switched_off(tmp_path: Path) -> None:
    source = vocabularies.byte_level()
    source.enable_truncation(4)
    source.enable_padding(length=64)
    tokenizer = Tokenizer.load(write_model(tmp_path, source))
    text = "the quick brown fox 12345"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ()),
        ({"config": {"eos_token_id": 7}}, (7,)),
        ({"config": {"eos_token_id": 7}, "generation_config": {"eos_token_id": [9, 8]}}, (9, 8)),
        ({"config": {"text_config": {"eos_token_id": 6}}}, (6,)),
        ({"tokenizer_config": {"eos_token": END}}, (0,)),
        ({"tokenizer_config": {"eos_token": {"content": END}}}, (0,)),
        ({"special_tokens_map": {"eos_token": END}}, (0,)),
        (
            {"generation_config": {"eos_token_id": [5]}, "tokenizer_config": {"eos_token": END}},
            (5, 0),
        ),
    ],
)
def test_end_tokens_are_gathered_from_where_a_model_names_them(
    tmp_path: Path, files: dict[str, object], expected: tuple[int, ...]
) -> None:
    tokenizer = Tokenizer.load(write_model(tmp_path, vocabularies.byte_level(), **files))
    assert tokenizer.eos_token_ids == expected


def test_a_template_file_goes_before_the_configuration(tmp_path: Path) -> None:
    config = {"bos_token": "<s>", "chat_template": "old"}
    write_model(tmp_path, vocabularies.byte_level(), tokenizer_config=config)
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}new", encoding="utf-8")
    assert Tokenizer.load(tmp_path).chat_templates.render(MESSAGES) == "<s>new"


def test_named_templates_are_read_from_the_configuration_and_from_files(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    write_model(tmp_path, vocabularies.byte_level(), tokenizer_config={"chat_template": named})
    assert Tokenizer.load(tmp_path).chat_templates.render(MESSAGES, tools=[{}]) == "b"

    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("c", encoding="utf-8")
    assert read_model_files(tmp_path).chat_templates == {"rag": "c"}


def test_a_model_without_template_still_loads(loaded: Tokenizer) -> None:
    with pytest.raises(NoChatTemplate):
        _ = loaded.chat_templates


def test_the_detokenizer_fits_the_decoder(loaded: Tokenizer, tmp_path: Path) -> None:
    assert isinstance(loaded.detokenizer(), ByteDetokenizer)
    other = Tokenizer.load(write_model(tmp_path, vocabularies.word_piece()))
    assert isinstance(other.detokenizer(), WindowDetokenizer)
    assert other.token_bytes(2) == b"the"


def test_token_bytes_show_special_tokens_and_parts_of_characters(loaded: Tokenizer) -> None:
    source = vocabularies.byte_level()
    assert loaded.token_bytes(token_id(source, END)) == END.encode()
    assert loaded.token_bytes(token_id(source, "ÿ")) == b"\xff"
    assert loaded.token_bytes(10**6) == b""


def test_a_directory_without_tokenizer_is_named_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(TokenizerNotFound, match=r"tokenizer\.json is missing"):
        Tokenizer.load(tmp_path)
    with pytest.raises(TokenizerNotFound, match="no such directory"):
        Tokenizer.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    write_model(tmp_path, vocabularies.byte_level())
    (tmp_path / name).write_text("{", encoding="utf-8")
    with pytest.raises(TokenizerNotFound, match=name):
        Tokenizer.load(tmp_path)


def test_a_repository_that_was_never_fetched_is_not_found_offline() -> None:
    with pytest.raises(TokenizerNotFound, match="the Hub did not give it"):
        Tokenizer.load("nobody/never-fetched", offline=True)
