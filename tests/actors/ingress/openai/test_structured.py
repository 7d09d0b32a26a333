"""Structured output as clients ask for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.ingress.openai.errors import ApiError
from actors.ingress.openai.requests import parse_chat, parse_completion
from actors.messages.sampling import Grammar
from tests.actors.ingress.openai.test_requests import chat_body, chat_error, completion_body

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def grammar(**fields: Any) -> Grammar | None:
    return parse_chat(chat_body(**fields)).sampling(9, 9).grammar


def schema_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"response_format": {"type": "json_object"}}, "json_schema", '{"type":"object"}'),
        (
            {"response_format": schema_format(SCHEMA)},
            "json_schema",
            {**SCHEMA, "additionalProperties": False},
        ),
        ({"guided_json": SCHEMA}, "json_schema", SCHEMA),
        ({"guided_json": json.dumps(SCHEMA)}, "json_schema", SCHEMA),
        ({"guided_regex": "a+"}, "regex", "a+"),
        ({"guided_choice": ["a", "b"]}, "choice", ["a", "b"]),
        ({"guided_grammar": 'start: "a"'}, "grammar", 'start: "a"'),
        ({"structured_outputs": {"json": SCHEMA}}, "json_schema", SCHEMA),
        ({"structured_outputs": {"json_object": True}}, "json_schema", {"type": "object"}),
        ({"structured_outputs": {"regex": "a+"}}, "regex", "a+"),
        ({"structured_outputs": {"choice": ["a"]}}, "choice", ["a"]),
        ({"structured_outputs": {"grammar": 'start: "a"'}}, "grammar", 'start: "a"'),
    ],
)
def test_each_way_to_ask_becomes_a_grammar(fields: Any, kind: str, text: Any) -> None:
    found = grammar(**fields)
    assert found is not None
    assert found.kind == kind
    assert found.text == text or json.loads(found.text) == text
    assert found.param.startswith(next(iter(fields)))
    assert parse_completion(completion_body(**fields)).sampling(9, 9).grammar == found


@pytest.mark.parametrize("fields", [{}, {"response_format": {"type": "text"}}])
def test_without_asking_there_is_none(fields: Any) -> None:
    assert grammar(**fields) is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_regex": ""}, "guided_regex"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_json": SCHEMA, "guided_regex": "a"}, "guided_regex"),
        ({"guided_json": {"enum": ["x" * 200_001]}}, "guided_json"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_name(fields: Any, param: str | None) -> None:
    error: ApiError = chat_error(**fields)
    assert (error.status, error.param) == (400, param)
