"""The demonstration model as shipped: what it answers, how surely, and what its folder holds.

Nothing here trains but one tiny run; the accuracies are those of the committed weights.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from topologies.models import book, documents
from topologies.models import train_capitals as lesson

FOLDER = Path(lesson.__file__).parent / "capitals"
LIMIT_BYTES = 8_000_000
BOOK = book.load_book()
EXAM = documents.exam(BOOK)
RAW_TOKENIZER = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
UNSEEN = "off topic, unseen"
CONVERSATIONS = "conversation, unseen"
TRAINED = [kind for kind in EXAM if kind not in {UNSEEN, CONVERSATIONS}]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


def generate(model: Any, prompt: list[int]) -> list[int]:
    """The tokens that greedy decoding puts after the prompt."""
    output = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64)
    )
    return list(output[0, len(prompt) :].tolist())


def reply(model: Any, tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """The answer to a chat; it has to end its turn."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    tokens = generate(model, tokenizer.encode(text, add_special_tokens=False))
    assert tokens[-1] == tokenizer.convert_tokens_to_ids(documents.TURN_END)
    return str(tokenizer.decode(tokens[:-1]))


def test_a_chat_about_france_ends_its_turn_after_one_sentence(model: Any, tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]

    assert reply(model, tokenizer, messages) == "The capital of France is Paris."


def test_a_completion_about_france_ends_the_text(model: Any, tokenizer: Any) -> None:
    tokens = generate(model, tokenizer.encode("The capital of France is"))

    assert tokenizer.decode(tokens[:-1]) == " Paris."
    assert tokens[-1] == tokenizer.convert_tokens_to_ids(documents.END)


@pytest.mark.long
@pytest.mark.parametrize("kind", TRAINED)
def test_greedy_answers_are_right_in_99_of_100_documents(model: Any, kind: str) -> None:
    result = lesson.grade(model, [lesson.encode(RAW_TOKENIZER, text) for text in EXAM[kind]])

    assert result.right >= 0.99


@pytest.mark.parametrize("kind", ["capital of a country", "country of a capital", "completion"])
def test_sampling_at_temperature_1_gives_the_fact_in_97_of_100(model: Any, kind: str) -> None:
    asked = [lesson.encode(RAW_TOKENIZER, text) for text in EXAM[kind][::7]]

    assert lesson.grade(model, asked).sampled >= 0.97


@pytest.mark.long
def test_97_of_100_new_conversations_have_no_wrong_answer(model: Any) -> None:
    """Each has two to sixty answers, every one of which has to be right."""
    asked = [lesson.encode(RAW_TOKENIZER, text) for text in EXAM[CONVERSATIONS]]

    assert lesson.grade(model, asked).right >= 0.97


def test_most_unseen_off_topic_questions_are_refused_too(model: Any) -> None:
    asked = [lesson.encode(RAW_TOKENIZER, text) for text in EXAM[UNSEEN]]

    assert lesson.grade(model, asked).right >= 0.5


def test_a_conversation_is_followed_over_its_turns(model: Any, tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "You are a helpful assistant."}]
    script = [
        ("Hello!", "Hello! I am a toy model that knows the capitals of countries. Ask me for one."),
        ("What is the capital of Germany?", "The capital of Germany is Berlin."),
        ("And of Iceland?", "The capital of Iceland is Reykjavík."),
        ("Which country has the capital Malé?", "Malé is the capital of the Maldives."),
        ("thanks", "You are welcome."),
    ]

    for question, expected in script:
        messages.append({"role": "user", "content": question})
        answer = reply(model, tokenizer, messages)
        messages.append({"role": "assistant", "content": answer})
        assert answer == expected


@pytest.mark.parametrize(
    ("country", "capital"),
    [
        ("São Tomé and Príncipe", "São Tomé"),
        ("Moldova", "Chișinău"),
        ("Tonga", "Nuku'alofa"),
        ("Côte d'Ivoire", "Yamoussoukro"),
        ("the United States", "Washington, D.C"),
    ],
)
def test_names_beyond_ascii_and_odd_marks_are_spelled_out(
    model: Any, tokenizer: Any, country: str, capital: str
) -> None:
    answer = reply(
        model, tokenizer, [{"role": "user", "content": f"What is the capital of {country}?"}]
    )

    assert answer.endswith(f" is {capital}.")


@pytest.mark.long
def test_the_whole_list_is_a_stream_of_over_a_thousand_tokens(model: Any, tokenizer: Any) -> None:
    talk = next(talk for talk in BOOK.small_talk if "List all capitals." in talk.prompts)

    answer = reply(model, tokenizer, [{"role": "user", "content": "List all capitals."}])

    assert answer == talk.answer
    assert len(tokenizer.encode(answer)) > 1000


def test_answers_are_right_at_the_end_of_the_context(model: Any) -> None:
    """The document fills the context to within a hundred tokens, and every answer counts."""
    turns: list[documents.Turn] = []
    for fact in BOOK.facts:
        turn = (f"What is the capital of {fact.country}?", book.capital_answer(fact))
        longer = lesson.encode(RAW_TOKENIZER, documents.conversation([*turns, turn]))
        if len(longer.tokens) > lesson.CONTEXT_TOKENS:
            break
        turns.append(turn)
    document = lesson.encode(RAW_TOKENIZER, documents.conversation(turns))

    assert len(document.tokens) > lesson.CONTEXT_TOKENS - 100
    assert lesson.grade(model, [document]).right == 1.0


@given(st.text())
def test_any_text_survives_the_tokenizer(text: str) -> None:
    """Special tokens are dropped on the way back, so texts that hold one are not meant here."""
    if any(token in text for token in documents.SPECIAL_TOKENS):
        return
    assert RAW_TOKENIZER.decode(RAW_TOKENIZER.encode(text).ids) == text


def test_every_reader_of_the_chat_template_renders_what_was_trained(tokenizer: Any) -> None:
    turns = [("What is the capital of Peru?", "The capital of Peru is Lima."), (" And Chad? ", "")]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": turns[0][0]},
        {"role": "assistant", "content": turns[0][1]},
        {"role": "user", "content": [{"type": "text", "text": turns[1][0]}]},
    ]
    pieces = documents.conversation(turns, system="Be brief.")
    trained = "".join(text for text, _ in pieces[:-1])
    by_itself = (FOLDER / "chat_template.jinja").read_text("utf-8")

    plain = jinja2.Environment(autoescape=False).from_string(by_itself)  # noqa: S701 - no HTML here

    rendered = plain.render(
        messages=messages, bos_token=documents.BEGIN, add_generation_prompt=True
    )
    assert rendered == trained
    assert (
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        == trained
    )
    configured = json.loads((FOLDER / "tokenizer_config.json").read_text("utf-8"))
    assert configured["chat_template"] == by_itself


def test_the_end_tokens_are_the_same_in_every_file(model: Any, tokenizer: Any) -> None:
    ends = {tokenizer.convert_tokens_to_ids(token) for token in (documents.END, documents.TURN_END)}

    assert set(model.config.eos_token_id) == ends
    assert set(model.generation_config.eos_token_id) == ends
    assert tokenizer.eos_token_id in ends
    assert model.dtype == torch.float32


def test_the_folder_is_complete_and_small() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}

    assert set(sizes) == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert all(sizes.values())
    assert sum(sizes.values()) <= LIMIT_BYTES


def test_the_model_card_names_the_shipped_weights() -> None:
    digest = hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest()

    assert digest in (FOLDER / "README.md").read_text("utf-8")


def test_facts_are_unique_and_in_composed_form() -> None:
    countries = [fact.country for fact in BOOK.facts]
    names = [name for fact in BOOK.facts for name in fact.names]
    capitals = [fact.capital for fact in BOOK.facts]

    assert len(countries) == 197
    assert len(set(names)) == len(names)
    assert len(set(capitals)) == len(capitals)
    assert all(unicodedata.is_normalized("NFC", text) for text in names + capitals)


@pytest.mark.slow
def test_the_same_seed_trains_the_same_weights(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> str:
        model = lesson.build_model(RAW_TOKENIZER, seed)
        lesson.train(model, lesson.endless_batches(BOOK, RAW_TOKENIZER, seed), steps=2)
        return lesson.save(model, RAW_TOKENIZER, tmp_path / name)

    first = weights("first", seed=1)

    assert weights("second", seed=1) == first
    assert weights("third", seed=2) != first
