"""The table of all fields is complete, and true: every field's example is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from actors.ingress.openai.catalogue import (
    CHAT,
    CHAT_EXTENSIONS,
    COMPLETION,
    EMBEDDINGS,
    EMBEDDINGS_EXTENSIONS,
    EXTENSIONS,
    RESPONSES,
    RESPONSES_EXTENSIONS,
    Field,
    tables,
)
from actors.ingress.openai.embeddings import EmbeddingsRequest, parse_embeddings
from actors.ingress.openai.errors import ApiError
from actors.ingress.openai.requests import (
    ChatRequest,
    CompletionRequest,
    ignored,
    parse_chat,
    parse_completion,
    refuse_unknown,
)
from actors.ingress.openai.responses_api.request import ResponsesRequest, parse_responses
from tests.actors.ingress.openai.test_requests import chat_body, completion_body

NEEDS: dict[str, dict[str, Any]] = {
    "stream_options": {"stream": True},
    "top_logprobs": {"logprobs": True},
}


def check(field: Field, parse: Any, body: Any) -> None:
    raw = body(**{field.name: field.example, **NEEDS.get(field.name, {})})
    if field.fate == "refused":
        with pytest.raises(ApiError) as caught:
            parse(raw)
        assert caught.value.status == 400
        assert caught.value.param == field.name
        return
    request = parse(raw)
    # What is ignored is no field of the struct, or is read and used nowhere.
    if field.name != "metadata":
        assert (field.name in ignored(raw, request)) == (field.fate == "ignored")
    refuse_unknown(raw, request)


def responses_body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": "hi", **fields}).encode()


def check_responses(field: Field) -> None:
    raw = responses_body(**{field.name: field.example})
    if field.fate == "refused":
        with pytest.raises(ApiError) as caught:
            parse_responses(raw, unknown="ignore")
        assert (caught.value.status, caught.value.param) == (400, field.name)
        return
    parse_responses(raw, unknown="refuse")
    if field.fate == "supported":
        assert field.name in ResponsesRequest.__struct_fields__


def by_name(fields: tuple[Field, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("field", fields, ids=[field.name for field in fields])


@by_name(CHAT)
def test_chat(field: Field) -> None:
    check(field, parse_chat, chat_body)


@by_name(COMPLETION)
def test_completion(field: Field) -> None:
    check(field, parse_completion, completion_body)


@by_name(EXTENSIONS)
def test_extension(field: Field) -> None:
    check(field, parse_chat, chat_body)
    check(field, parse_completion, completion_body)


@by_name(CHAT_EXTENSIONS)
def test_chat_extension(field: Field) -> None:
    check(field, parse_chat, chat_body)


def check_embeddings(field: Field) -> None:
    raw = json.dumps({"model": "m", "input": "hi", field.name: field.example}).encode()
    parse_embeddings(raw, unknown="refuse")
    assert field.fate == "supported"
    assert field.name in EmbeddingsRequest.__struct_fields__


@by_name(EMBEDDINGS)
def test_embeddings(field: Field) -> None:
    check_embeddings(field)


@by_name(EMBEDDINGS_EXTENSIONS)
def test_embeddings_extension(field: Field) -> None:
    check_embeddings(field)


@by_name(RESPONSES)
def test_responses(field: Field) -> None:
    check_responses(field)


@by_name(RESPONSES_EXTENSIONS)
def test_responses_extension(field: Field) -> None:
    check_responses(field)


@pytest.mark.parametrize(
    ("module", "fields"), [(chat_create_params, CHAT), (completion_create_params, COMPLETION)]
)
def test_the_table_has_every_field_of_the_official_client(
    module: Any, fields: tuple[Field, ...]
) -> None:
    official = {
        *get_type_hints(module.CompletionCreateParamsStreaming),
        *get_type_hints(module.CompletionCreateParamsNonStreaming),
    }
    assert official == {field.name for field in fields}


@pytest.mark.parametrize(
    ("kinds", "fields"),
    [
        (
            (
                response_create_params.ResponseCreateParamsStreaming,
                response_create_params.ResponseCreateParamsNonStreaming,
            ),
            RESPONSES,
        ),
        ((embedding_create_params.EmbeddingCreateParams,), EMBEDDINGS),
    ],
)
def test_the_newer_tables_have_every_field_of_the_official_client(
    kinds: tuple[Any, ...], fields: tuple[Field, ...]
) -> None:
    official = {name for kind in kinds for name in get_type_hints(kind)}
    assert official == {field.name for field in fields}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (EmbeddingsRequest, (*EMBEDDINGS, *EMBEDDINGS_EXTENSIONS)),
        (ResponsesRequest, (*RESPONSES, *RESPONSES_EXTENSIONS)),
        (ChatRequest, (*CHAT, *EXTENSIONS, *CHAT_EXTENSIONS)),
        (CompletionRequest, (*COMPLETION, *EXTENSIONS)),
    ],
)
def test_the_table_has_every_field_that_is_read(kind: Any, fields: tuple[Field, ...]) -> None:
    refused_everywhere = {field.name for field in (*CHAT, *CHAT_EXTENSIONS, *COMPLETION)}
    assert set(kind.__struct_fields__) <= {field.name for field in fields} | refused_everywhere


def test_the_table_in_the_documentation_is_current() -> None:
    page = (Path(__file__).parents[4] / "docs" / "api.md").read_text(encoding="utf-8")
    assert page.endswith(tables())


def test_an_unknown_field_is_refused_by_its_name_when_that_is_wanted() -> None:
    body = chat_body(nvext=1)
    with pytest.raises(ApiError) as caught:
        refuse_unknown(body, parse_chat(body))
    assert (caught.value.status, caught.value.param) == (400, "nvext")
