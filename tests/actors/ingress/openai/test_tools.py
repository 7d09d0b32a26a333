"""Tools of a request: which are offered, which must be called, what is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from actors.ingress.openai.errors import ApiError
from actors.ingress.openai.requests import parse_chat
from actors.ingress.openai.tools import ON_ONE_LINE
from actors.ingress.reading import Reading, reading_of
from actors.text.grammar import check_grammar
from tests.actors.ingress.openai.test_requests import chat_body, chat_error
from tests.actors.preprocessor.test_grammars import card

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
TIME: dict[str, Any] = {
    "type": "function",
    "function": {"name": "time", "parameters": NOTHING},
}
NAMED = {"type": "function", "function": {"name": "weather"}}


def reading(**fields: Any) -> Reading:
    worker = msgspec.structs.replace(card(), tool_parser="hermes", reasoning_parser="qwen3")
    return reading_of(parse_chat(chat_body(**fields)), worker)


def test_tools_are_offered_as_the_client_described_them() -> None:
    tools = parse_chat(chat_body(tools=[WEATHER, TIME])).usable_tools
    assert tools is not None
    assert json.loads(tools.raw) == [WEATHER, TIME]
    assert (tools.choice, tools.names, tools.grammar) == ("auto", ("weather", "time"), None)


@pytest.mark.parametrize(
    "fields", [{}, {"tools": []}, {"tools": None}, {"tools": [TIME], "tool_choice": "none"}]
)
def test_without_tools_to_call_none_are_offered(fields: Any) -> None:
    assert parse_chat(chat_body(**fields)).usable_tools is None


@pytest.mark.parametrize("parallel", [None, True, False])
def test_an_answer_that_must_call_is_a_list_of_calls(parallel: Any) -> None:
    request = parse_chat(
        chat_body(tools=[WEATHER, TIME], tool_choice="required", parallel_tool_calls=parallel)
    )
    assert request.grammar is not None
    check_grammar(request.grammar.kind, request.grammar.text)
    schema = json.loads(request.grammar.text)
    assert schema["minItems"] == 1
    assert schema.get("maxItems") == (1 if parallel is False else None)
    assert [one["properties"]["name"]["const"] for one in schema["items"]["anyOf"]] == [
        "weather",
        "time",
    ]


def test_an_answer_that_must_call_one_tool_is_its_arguments() -> None:
    request = parse_chat(chat_body(tools=[WEATHER, TIME], tool_choice=NAMED))
    assert request.grammar is not None
    expected = {**WEATHER["function"]["parameters"], **ON_ONE_LINE}
    assert json.loads(request.grammar.text) == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [TIME, TIME]}, "tools[1].function.name"),
        ({"tools": [TIME] * 129}, "tools"),
        ({"tools": "time"}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TIME], "tool_choice": NAMED}, "tool_choice"),
        ({"tools": [TIME], "tool_choice": "always"}, "tool_choice"),
        ({"tools": [TIME], "tool_choice": "required", "guided_regex": "a"}, "guided_regex"),
    ],
)
def test_what_cannot_be_offered_is_refused_by_its_name(fields: Any, param: str) -> None:
    assert chat_error(**fields).param == param


def test_an_answer_is_read_as_its_model_writes() -> None:
    found = reading(tools=[WEATHER, TIME], parallel_tool_calls=False)
    assert (found.tools, found.known, found.max_calls) == ("hermes", ("weather", "time"), 1)
    assert found.reasoning == "qwen3"
    assert {"<think>", "<tool_call>"} <= set(found.shown)
    assert reading().reasoning == "qwen3"


@pytest.mark.parametrize("fields", [{"tool_choice": "required"}, {"tool_choice": NAMED}])
def test_a_guided_answer_is_read_as_it_was_guided(fields: Any) -> None:
    found = reading(tools=[WEATHER], **fields)
    assert (found.tools, found.named) in {("listed", None), (None, "weather")}
    assert found.reasoning is None


def test_a_plain_answer_is_not_read_at_all() -> None:
    assert reading_of(parse_chat(chat_body(stop="x")), card()).parser() is None
    assert reading(guided_regex="a").parser() is None


def test_calls_of_a_model_that_writes_them_nobody_knows_how_are_refused() -> None:
    with pytest.raises(ApiError, match="tool_parser"):
        reading_of(parse_chat(chat_body(tools=[TIME])), card())
