"""The OpenAPI document: what each path takes and gives, for the routes that are served."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, NamedTuple

import msgspec

from actors.ingress.openai.responses_api.record import MAX_PAGE
from actors.ingress.openapi.responses import ANSWERS
from actors.ingress.openapi.schemas import REF, Schema, components

JSON = "application/json"
EVENTS = "text/event-stream"


class Operation(NamedTuple):
    """One method of one path."""

    method: str
    pattern: str
    """As in the route table."""
    id: str
    summary: str
    takes: str | None = None
    """The schema of its body."""
    gives: str | None = None
    """The schema of its answer, when that is JSON."""
    media: str = JSON
    streams: bool = False
    """Whether `stream: true` makes the answer server-sent events."""
    errors: tuple[int, ...] = ()
    """Beside those of every request."""
    parameters: tuple[Schema, ...] = ()
    is_open: bool = False
    """Needs no key."""

    @property
    def path(self) -> str:
        """As OpenAPI writes it."""
        names = [p["name"] for p in self.parameters if p["in"] == "path"]
        return self.pattern.replace("*", f"{{{names[0]}}}") if names else self.pattern


_BODY_ERRORS = (400, 408, 413, 503)
_GENERATION_ERRORS = (*_BODY_ERRORS, 403, 404, 429, 504)
_STATUSES = (400, 401, 403, 404, 408, 413, 429, 431, 500, 503, 504)
_MODEL: Schema = {"name": "model", "schema": {"type": "string"}}

_RESPONSE_ID: Schema = {
    "name": "response_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
}


def _query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}


OPERATIONS = (
    Operation(
        *("POST", "/v1/chat/completions", "createChatCompletion", "Answer a conversation"),
        takes="ChatRequest",
        gives="ChatCompletion",
        streams=True,
        errors=_GENERATION_ERRORS,
    ),
    Operation(
        *("POST", "/v1/completions", "createCompletion", "Continue prompts"),
        takes="CompletionRequest",
        gives="Completion",
        streams=True,
        errors=_GENERATION_ERRORS,
    ),
    Operation(
        *("POST", "/v1/responses", "createResponse", "Answer, and keep the conversation"),
        takes="ResponsesRequest",
        gives="Response",
        streams=True,
        errors=_GENERATION_ERRORS,
    ),
    Operation(
        *("POST", "/v1/responses/input_tokens", "countInputTokens", "Tokens of a prompt"),
        takes="ResponsesRequest",
        gives="InputTokens",
        errors=(*_BODY_ERRORS, 404, 429),
    ),
    Operation(
        *("GET", "/v1/responses/*", "retrieveResponse", "One that is kept"),
        gives="Response",
        errors=(404, 503),
        parameters=(_RESPONSE_ID,),
    ),
    Operation(
        *("DELETE", "/v1/responses/*", "deleteResponse", "Keep it no longer"),
        gives="Deleted",
        errors=(404, 503),
        parameters=(_RESPONSE_ID,),
    ),
    Operation(
        *("GET", "/v1/responses/*/input_items", "listInputItems", "What it was made from"),
        gives="ItemList",
        errors=(404, 503),
        parameters=(
            _RESPONSE_ID,
            _query("limit", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}),
            _query("order", {"enum": ["asc", "desc"]}),
            _query("after", {"type": "string"}),
        ),
    ),
    Operation(
        *("POST", "/v1/responses/*/cancel", "cancelResponse", "Refused: none is in background"),
        errors=(404, 429, 503),
        parameters=(_RESPONSE_ID,),
    ),
    Operation(
        *("POST", "/v1/embeddings", "createEmbeddings", "Texts to vectors"),
        takes="EmbeddingsRequest",
        gives="EmbeddingList",
        errors=_GENERATION_ERRORS,
    ),
    Operation("GET", "/v1/models", "listModels", "What is served", gives="ModelList"),
    Operation(
        *("GET", "/v1/models/*", "retrieveModel", "One model"),
        gives="Model",
        errors=(404,),
        parameters=({**_MODEL, "in": "path", "required": True},),
    ),
    Operation(
        *("POST", "/tokenize", "tokenize", "Text or messages to token ids"),
        takes="Tokenize",
        gives="Tokenized",
        errors=(*_BODY_ERRORS, 404, 429),
    ),
    Operation(
        *("POST", "/detokenize", "detokenize", "Token ids to text"),
        takes="Detokenize",
        gives="Detokenized",
        errors=(*_BODY_ERRORS, 404, 429),
    ),
    Operation("GET", "/live", "live", "Whether the process answers", gives="Live", is_open=True),
    Operation(
        *("GET", "/ready", "ready", "Whether a token can be produced now"),
        gives="Health",
        errors=(404,),
        parameters=({**_MODEL, "in": "query", "description": "Of this model alone."},),
        is_open=True,
    ),
    Operation(
        *("GET", "/health", "health", "What the registry says"), gives="Health", is_open=True
    ),
    Operation("GET", "/", "chatPage", "A page to chat with", media="text/html", is_open=True),
    Operation("GET", "/metrics", "metrics", "For Prometheus", media="text/plain"),
    Operation(
        *("GET", "/openapi.json", "openapi", "This document"), gives="Document", is_open=True
    ),
)
_OWN_SCHEMAS: dict[str, Schema] = {
    "Live": {
        "type": "object",
        "properties": {"status": {"const": "alive"}},
        "required": ["status"],
    },
    "Document": {"type": "object", "required": ["openapi", "info", "paths"]},
}


def described() -> set[tuple[str, str]]:
    """Method and pattern of what is described."""
    return {(operation.method, operation.pattern) for operation in OPERATIONS}


def document(routes: Iterable[tuple[str, str]], *, keys: bool) -> bytes:
    """The document of those routes (method and pattern), as JSON; `keys`: one is needed."""
    served = set(routes)
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        if (operation.method, operation.pattern) in served:
            methods = paths.setdefault(operation.path, {})
            methods[operation.method.lower()] = _operation(operation, keys=keys)
    parts: dict[str, Any] = {
        "schemas": {**components(), **ANSWERS, **_OWN_SCHEMAS},
        "responses": {_problem(status): _answer(status, "ErrorBody") for status in _STATUSES},
    }
    if keys:
        parts["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Understudy",
                "version": version("understudy"),
                "description": "OpenAI's API, with what other servers of it have added.",
            },
            "paths": paths,
            "components": parts,
        }
    )


def _operation(operation: Operation, *, keys: bool) -> Schema:
    needs_key = keys and not operation.is_open
    statuses = {*operation.errors, 400, 431, 500, *((401,) if needs_key else ())}
    responses: dict[str, Any] = {
        str(status): {"$ref": f"#/components/responses/{_problem(status)}"} for status in statuses
    }
    responses["200"] = _answer(200, operation.gives, operation.media)
    if operation.streams:
        # No schema: OpenAPI 3.1 has none for a stream's single events.
        responses["200"]["content"][EVENTS] = {}
    if operation.gives == "Health":
        responses["503"] = _answer(503, "Health")
    found: Schema = {
        "operationId": operation.id,
        "summary": operation.summary,
        "responses": dict(sorted(responses.items())),
    }
    if operation.parameters:
        found["parameters"] = list(operation.parameters)
    if operation.takes is not None:
        found["requestBody"] = {"required": True, "content": _content(operation.takes)}
    if needs_key:
        found["security"] = [{"bearer": []}]
    return found


def _problem(status: int) -> str:
    """The name of an error's answer."""
    return HTTPStatus(status).phrase.title().replace(" ", "").replace("-", "")


def _answer(status: int, schema: str | None, media: str = JSON) -> Schema:
    return {"description": HTTPStatus(status).phrase, "content": _content(schema, media)}


def _content(schema: str | None, media: str = JSON) -> Schema:
    said = {"type": "string"} if schema is None else {"$ref": REF.format(name=schema)}
    return {media: {"schema": said}}
