"""JSON schemas of the Responses API, where its structs say less than what is checked or given."""

from __future__ import annotations

from typing import Any

from actors.ingress.openai.responses_api.items import TEXT_PARTS

Schema = dict[str, Any]
REF = "#/components/schemas/{name}"

_STRING: Schema = {"type": "string"}
_OPTIONAL: Schema = {"type": ["string", "null"]}


def _object(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


_PARTS: Schema = {
    "type": "array",
    "items": _object(("type", "text"), type={"enum": sorted(TEXT_PARTS)}, text=_STRING),
}
_TEXT: Schema = {"anyOf": [_STRING, _PARTS]}
_ID: Schema = {"id": _OPTIONAL}
INPUT: Schema = {
    "anyOf": [
        _STRING,
        {
            "type": "array",
            "minItems": 1,
            "items": {
                "anyOf": [
                    _object(
                        ("role", "content"),
                        **_ID,
                        type={"enum": ["message", None]},
                        role={"enum": ["user", "assistant", "system", "developer"]},
                        content=_TEXT,
                    ),
                    _object(
                        ("type", "call_id", "name", "arguments"),
                        **_ID,
                        type={"const": "function_call"},
                        call_id=_STRING,
                        name=_STRING,
                        arguments=_STRING,
                    ),
                    _object(
                        ("type", "call_id", "output"),
                        **_ID,
                        type={"const": "function_call_output"},
                        call_id=_STRING,
                        output=_TEXT,
                    ),
                    _object(
                        ("type",),
                        **_ID,
                        type={"const": "reasoning"},
                        content={"anyOf": [_TEXT, {"type": "null"}]},
                        summary={"anyOf": [_PARTS, {"type": "null"}]},
                    ),
                ]
            },
        },
    ]
}
TOOLS: Schema = {
    "anyOf": [
        {
            "type": "array",
            "maxItems": 128,
            "items": _object(
                ("type", "name"),
                type={"const": "function"},
                name={
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 64,
                    "pattern": "^[a-zA-Z0-9_.\\-]+$",
                },
                description=_OPTIONAL,
                parameters={"type": ["object", "null"]},
                strict={"type": ["boolean", "null"]},
            ),
        },
        {"type": "null"},
    ]
}

_ITEM = _object(("id", "type"), id=_STRING, type=_STRING)
_COUNT: Schema = {"type": "integer", "minimum": 0}
_RESPONSE = _object(
    ("id", "object", "created_at", "status", "model", "output", "tools", "tool_choice"),
    id=_STRING,
    object={"const": "response"},
    created_at={"type": "integer"},
    completed_at={"type": ["integer", "null"]},
    status={"enum": ["completed", "incomplete", "failed", "in_progress"]},
    model=_STRING,
    output={"type": "array", "items": {"$ref": REF.format(name="Item")}},
    tools={"type": "array"},
    error={"type": ["object", "null"]},
    incomplete_details={"type": ["object", "null"]},
    previous_response_id=_OPTIONAL,
    metadata={"type": "object", "additionalProperties": _STRING},
    store={"type": "boolean"},
    usage=_object(
        ("input_tokens", "output_tokens", "total_tokens"),
        input_tokens=_COUNT,
        output_tokens=_COUNT,
        total_tokens=_COUNT,
        input_tokens_details={"type": "object", "additionalProperties": _COUNT},
        output_tokens_details={"type": "object", "additionalProperties": _COUNT},
    ),
)
ANSWERS: dict[str, Schema] = {
    "Item": _ITEM,
    "Response": _RESPONSE,
    "InputTokens": _object(
        ("object", "input_tokens"),
        object={"const": "response.input_tokens"},
        input_tokens=_COUNT,
    ),
    "Deleted": _object(
        ("id", "object", "deleted"),
        id=_STRING,
        object={"const": "response"},
        deleted={"const": True},
    ),
    "ItemList": _object(
        ("object", "data", "first_id", "last_id", "has_more"),
        object={"const": "list"},
        data={"type": "array", "items": {"$ref": REF.format(name="Item")}},
        first_id=_STRING,
        last_id=_STRING,
        has_more={"type": "boolean"},
    ),
}
