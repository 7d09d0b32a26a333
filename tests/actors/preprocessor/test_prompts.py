"""Prompts: from what a client put to token ids within the model's limits."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.messages.cards import WorkerCard
from actors.messages.key import RequestKey
from actors.messages.sampling import Sampling
from actors.messages.submit import ChatPrompt, Prompt, Submit, TextPrompt, TokenPrompt
from actors.preprocessor.prompts import Unacceptable, prepare, prompt_bytes
from actors.runtime.address import Address
from tests.actors.messages.test_cards import card
from tests.service import encoded, encoded_chat, packed, tokenizer

KEY = RequestKey(Address("ingress", 0, 1), 1, 0)
CARD = card(max_context_tokens=100)
HELLO = {"role": "user", "content": "hello"}


def submit(prompt: Prompt, max_tokens: int = 10, delivered: bytes = b"") -> Submit:
    return Submit(KEY, "r", "m", prompt, Sampling(max_tokens, seed=3), delivered)


def chat(*messages: dict[str, Any], **fields: Any) -> ChatPrompt:
    return ChatPrompt(json.dumps(messages).encode(), **fields)


def refusal(request: Submit, worker: WorkerCard = CARD) -> Unacceptable:
    with pytest.raises(Unacceptable) as caught:
        prepare(request, tokenizer(), worker)
    return caught.value


def test_text_is_tokenised_with_the_model_s_special_tokens() -> None:
    route = prepare(submit(TextPrompt("hello")), tokenizer(), CARD)

    assert route.prompt == encoded("hello")
    assert (route.key, route.request_id, route.model) == (KEY, "r", "m")


def test_text_is_tokenised_without_special_tokens_when_asked() -> None:
    route = prepare(submit(TextPrompt("hello", add_special_tokens=False)), tokenizer(), CARD)

    assert route.prompt == tokenizer().encode("hello", add_special_tokens=False)
    assert route.prompt != encoded("hello")


def test_messages_go_through_the_model_s_chat_template() -> None:
    route = prepare(submit(chat(HELLO)), tokenizer(), CARD)

    assert route.prompt == encoded_chat(HELLO)


def test_a_bias_for_a_token_that_there_is_not_is_refused() -> None:
    size = tokenizer().vocabulary_size
    asked = submit(TextPrompt("hello"))
    for biased, fits in ((size - 1, True), (size, False)):
        sampling = Sampling(10, seed=3, logit_bias={0: 1.0, biased: 1.0})
        request = msgspec.structs.replace(asked, sampling=sampling)
        if fits:
            prepare(request, tokenizer(), CARD)
        else:
            refused = refusal(request)
            assert (refused.why, refused.param) == ("invalid", "logit_bias")


def test_a_refusal_of_the_assistant_is_what_it_said() -> None:
    parts = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    said = {"role": "assistant", "content": "No."}

    assert prepare(submit(chat(HELLO, parts)), tokenizer(), CARD).prompt == encoded_chat(
        HELLO, said
    )


def test_content_in_parts_is_the_same_as_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]

    route = prepare(submit(chat({"role": "user", "content": parts})), tokenizer(), CARD)

    assert route.prompt == encoded_chat({"role": "user", "content": "a\nb"})


def test_the_generation_prompt_can_be_left_out() -> None:
    with_it = prepare(submit(chat(HELLO)), tokenizer(), CARD).prompt
    without = prepare(submit(chat(HELLO, add_generation_prompt=False)), tokenizer(), CARD).prompt

    assert len(without) < len(with_it)
    assert with_it.startswith(without)


def test_token_ids_are_taken_as_they_are() -> None:
    tokens = packed([1, 2, tokenizer().vocabulary_size - 1])

    assert prepare(submit(TokenPrompt(tokens)), tokenizer(), CARD).prompt == tokens


@pytest.mark.parametrize("too_high", [0, 1, 2**32 - 1 - tokenizer().vocabulary_size])
def test_token_ids_outside_the_vocabulary_are_the_client_s_mistake(too_high: int) -> None:
    token = tokenizer().vocabulary_size + too_high

    error = refusal(submit(TokenPrompt(packed([1, token, 2]))))

    assert (error.why, error.param) == ("invalid", "prompt")
    assert str(token) in error.text


@pytest.mark.parametrize(
    "prompt", [TextPrompt("", add_special_tokens=False), TokenPrompt(b"")], ids=["text", "tokens"]
)
def test_an_empty_prompt_is_the_client_s_mistake(prompt: Prompt) -> None:
    error = refusal(submit(prompt))

    assert (error.why, error.text) == ("invalid", "The prompt is empty.")


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (b'[{"role": "user", "content": "\\ud800"}]', "not valid JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "not valid JSON"),
        (b'[{"role": "user", "content": 1}]', "does not accept"),
        (b'[{"content": "no role"}]', "does not accept"),
    ],
    ids=["half a surrogate pair", "nested too deeply", "odd content", "no role"],
)
def test_messages_nobody_can_render_are_the_client_s_mistake(messages: bytes, says: str) -> None:
    error = refusal(submit(ChatPrompt(messages)))

    assert (error.why, error.param) == ("invalid", "messages")
    assert says in error.text


def test_template_arguments_must_not_name_what_is_ours() -> None:
    error = refusal(submit(chat(HELLO, template_arguments=b'{"messages": []}')))

    assert (error.why, error.param) == ("invalid", "messages")


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        (TokenPrompt(packed([1] * 100)), "prompt"),
        (chat({**HELLO, "content": "a " * 99}), "messages"),
    ],
)
def test_a_prompt_that_fills_the_context_is_too_long(prompt: Prompt, param: str) -> None:
    error = refusal(submit(prompt))

    assert (error.why, error.param) == ("too_long", param)
    assert "maximum context length is 100 tokens" in error.text


def test_a_replay_continues_the_prompt_with_what_was_delivered() -> None:
    delivered = packed([7, 8, 9])

    route = prepare(submit(TextPrompt("hello"), delivered=delivered), tokenizer(), CARD)

    assert route.prompt == encoded("hello") + delivered
    assert route.resumed == 3


def test_delivered_tokens_fill_the_context_too() -> None:
    tokens, delivered = packed([1] * 50), packed([2] * 50)

    assert refusal(submit(TokenPrompt(tokens), delivered=delivered)).why == "too_long"


@given(st.integers(1, 99), st.integers(0, 60), st.integers(1, 2**31 - 1))
def test_prompt_and_answer_never_outgrow_the_context(
    asked: int, delivered: int, max_tokens: int
) -> None:
    request = submit(TokenPrompt(packed([1] * asked)), max_tokens, packed([2] * delivered))
    room = CARD.max_context_tokens - asked - delivered

    if room < 1:
        assert refusal(request).why == "too_long"
    else:
        route = prepare(request, tokenizer(), CARD)
        assert len(route.prompt) == 4 * (asked + delivered)
        assert route.sampling == Sampling(min(max_tokens, room), seed=3)


def test_the_size_of_a_prompt_is_that_of_its_text() -> None:
    assert prompt_bytes(submit(TextPrompt("abc"))) == 3
    assert prompt_bytes(submit(ChatPrompt(b"[1]"))) == 3
    assert prompt_bytes(submit(TokenPrompt(packed([1] * 1000)))) == 0
