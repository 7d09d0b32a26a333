"""Conversations of the Responses API, and the chat messages that a model reads."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors.ingress.openai.errors import ApiError
from actors.ingress.openai.responses_api.items import (
    InputItem,
    check_calls,
    completed,
    messages_of,
)


def items(*written: dict[str, Any]) -> list[InputItem]:
    return msgspec.convert(list(written), list[InputItem])


CALL = {"type": "function_call", "call_id": "c1", "name": "time", "arguments": "{}"}
TOLD = {"type": "function_call_output", "call_id": "c1", "output": "noon"}
THOUGHT = {
    "type": "reasoning",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "Hm."}],
}


def test_text_is_a_message_of_the_user() -> None:
    [item] = completed("hi")

    assert item["id"].startswith("msg_")
    assert item["content"] == [{"type": "input_text", "text": "hi"}]
    assert messages_of("Be brief.", [item]) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]


def test_what_an_assistant_thinks_says_and_calls_is_one_message() -> None:
    found = completed(
        items(
            {"role": "user", "content": [{"type": "input_text", "text": "when?"}]},
            THOUGHT,
            {"role": "assistant", "content": "I'll look."},
            CALL,
            {**CALL, "call_id": "c2"},
            TOLD,
            {**TOLD, "call_id": "c2"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Now."}]},
        )
    )
    check_calls(found)

    function = {"name": "time", "arguments": "{}"}
    assert messages_of(None, found) == [
        {"role": "user", "content": "when?"},
        {
            "role": "assistant",
            "content": "I'll look.",
            "reasoning_content": "Hm.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": function},
                {"id": "c2", "type": "function", "function": function},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
        {"role": "assistant", "content": "Now."},
    ]


def test_two_texts_of_an_assistant_are_two_messages() -> None:
    said = {"role": "assistant", "content": "a"}

    assert len(messages_of(None, completed(items(said, said)))) == 2


def test_items_keep_the_ids_that_they_have() -> None:
    [item] = completed(items({"id": "msg_1", "role": "user", "content": "hi"}))

    assert item["id"] == "msg_1"


@pytest.mark.parametrize(
    ("written", "param"),
    [
        ({"type": "item_reference", "id": "x"}, "input[0].type"),
        ({"content": "hi"}, "input[0].role"),
        ({"role": "user"}, "input[0].content"),
        (
            {"role": "user", "content": [{"type": "input_image"}]},
            "input[0].content[0].type",
        ),
        (
            {"role": "user", "content": [{"type": "input_text"}]},
            "input[0].content[0].text",
        ),
        ({**CALL, "arguments": None}, "input[0].arguments"),
        ({**TOLD, "output": None}, "input[0].output"),
    ],
)
def test_an_item_that_cannot_be_read_is_named(written: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        completed(items(written))

    assert (caught.value.status, caught.value.param) == (400, param)


def test_the_output_of_no_call_is_refused() -> None:
    with pytest.raises(ApiError, match="c1"):
        check_calls(completed(items(TOLD)))
