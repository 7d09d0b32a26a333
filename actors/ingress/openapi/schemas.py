"""JSON schemas of request and response bodies, from the structs that read and write them.

A struct keeps raw what is read later, or elsewhere; what may stand there is said here. A schema is
no stricter than the server: what it calls invalid is refused. It is looser where fields depend on
each other (`min_tokens` on `max_tokens`), on the engine (grammars) or on the model's template.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from actors.ingress.openai import catalogue, fields
from actors.ingress.openai.embeddings import MAX_INPUTS, EmbeddingList, EmbeddingsRequest
from actors.ingress.openai.errors import ErrorBody
from actors.ingress.openai.requests import HARMLESS, ChatRequest, CompletionRequest
from actors.ingress.openai.responses import ChatCompletion, Completion, Model, ModelList
from actors.ingress.openai.responses_api.request import REFUSED, ResponsesRequest
from actors.ingress.openai.tools import MAX_TOOLS, Tool
from actors.ingress.openapi import responses
from actors.ingress.readiness import Health
from actors.ingress.tokenizing import Detokenize, Detokenized, Tokenize, Tokenized

Schema = dict[str, Any]
_HARMLESS = {**HARMLESS, **{name: values for name, (values, _) in REFUSED.items()}}
REF = "#/components/schemas/{name}"

_TEXT_PART: Schema = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
_TEXT: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT_PART}]}
_ROLES: tuple[str, ...] = get_args(fields.Role)
_MESSAGES: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "role": {"enum": [role for role in _ROLES if role != "assistant"]},
                    "content": _TEXT,
                },
                "required": ["role", "content"],
            },
            {
                "type": "object",
                "description": "Without content: a message of tool calls alone.",
                "properties": {
                    "role": {"const": "assistant"},
                    "content": {"anyOf": [*_TEXT["anyOf"], {"type": "null"}]},
                },
                "required": ["role"],
            },
        ]
    },
}
_TOKENS: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
}
_PROMPT: Schema = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "minItems": 1, "items": {"type": "string"}},
        _TOKENS,
        {"type": "array", "minItems": 1, "items": _TOKENS},
    ]
}
_READ_ELSEWHERE: dict[str, Schema] = {
    "messages": _MESSAGES,
    "prompt": _PROMPT,
    "tools": {
        "anyOf": [
            {"type": "array", "maxItems": MAX_TOOLS, "items": {"$ref": REF.format(name="Tool")}},
            {"type": "null"},
        ]
    },
    "chat_template_kwargs": {"type": ["object", "null"]},
}
"""Fields whose struct says less than what is checked."""


def components() -> dict[str, Schema]:
    """All schemas, by the names that `REF` takes."""
    chat, completion = _plain(ChatRequest), _plain(CompletionRequest)
    response = _plain(ResponsesRequest)
    kinds = (
        *(chat, completion, response, Tokenize, Detokenize, Tool),
        *(ChatCompletion, Completion, Tokenized, Detokenized, Model, ModelList),
        *(EmbeddingsRequest, EmbeddingList, ErrorBody, Health),
    )
    _, found = msgspec.json.schema_components(kinds, ref_template=REF)
    both = catalogue.EXTENSIONS
    _complete(found["ChatRequest"], (*catalogue.CHAT, *both, *catalogue.CHAT_EXTENSIONS))
    _complete(found["CompletionRequest"], (*catalogue.COMPLETION, *both))
    _complete_response(found)
    embeddings = (*catalogue.EMBEDDINGS, *catalogue.EMBEDDINGS_EXTENSIONS)
    _complete(found["EmbeddingsRequest"], embeddings)
    found["EmbeddingsRequest"]["properties"]["input"] |= _inputs()
    found["Tokenize"]["properties"]["messages"] = {"anyOf": [_MESSAGES, {"type": "null"}]}
    del found["Message"], found["ContentPart"]
    for name in ("ChatRequest", "CompletionRequest"):
        found[name]["properties"]["stream_options"] = _STREAM_OPTIONS
    return found


def _inputs() -> Schema:
    """As prompts, none of them empty."""
    text = {"type": "string", "minLength": 1}
    _, _, *tokens = _PROMPT["anyOf"]
    several = {"type": "array", "minItems": 1, "maxItems": MAX_INPUTS, "items": text}
    return {"anyOf": [text, several, *tokens]}


def _complete_response(found: dict[str, Schema]) -> None:
    schema = found["ResponsesRequest"]
    _complete(schema, (*catalogue.RESPONSES, *catalogue.RESPONSES_EXTENSIONS))
    properties = schema["properties"]
    properties["input"] |= responses.INPUT
    properties["tools"] |= responses.TOOLS
    properties["response_format"] = {"type": "null", "description": "Refused: use `text.format`"}
    properties["truncation"] |= {"enum": ["disabled", None]}
    for name in ("FunctionTool", "InputItem", "Part"):
        del found[name]


_STREAM_OPTIONS: Schema = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "include_usage": {"type": ["boolean", "null"]},
                "continuous_usage_stats": {"type": ["boolean", "null"]},
            },
        },
        {"type": "null"},
    ]
}


def _plain(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The same struct for msgspec to describe: it knows no schema of a raw default."""
    return msgspec.defstruct(
        kind.__name__,
        [
            (field.encode_name, Any if field.type is msgspec.Raw else field.type)
            if field.required
            else (field.encode_name, Any, None)
            if field.type is msgspec.Raw
            else (field.encode_name, field.type, field.default)
            for field in msgspec.structs.fields(kind)
        ],
        namespace={"__doc__": kind.__doc__},
        module=__name__,
        kw_only=True,
    )


def _complete(schema: Schema, known: tuple[catalogue.Field, ...]) -> None:
    """Say what becomes of every field, as the catalogue does."""
    properties: dict[str, Schema] = schema["properties"]
    listed = {field.name: field for field in known}
    for name in sorted(properties.keys() - listed.keys()):
        # Refused fields of the other endpoint.
        del properties[name]
    for name, field in sorted(listed.items()):
        if field.fate == "refused" and properties.get(name, {}) in ({}, {"default": None}):
            properties[name] = {"enum": [None, *_HARMLESS.get(name, ())]}
        elif name in _READ_ELSEWHERE:
            properties[name] = dict(_READ_ELSEWHERE[name])
        else:
            properties.setdefault(name, {})
        said = "" if field.fate == "supported" else f"{field.fate.capitalize()}."
        if text := " ".join(part for part in (said, field.note) if part):
            properties[name]["description"] = text
