"""Bodies of responses that are not streamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from actors.ingress.openai.logprobs import ChatLogprobs, CompletionLogprobs

FinishReason = Literal["stop", "length", "tool_calls"]
"""`stop`: an end token or a stop string; `length`: the token limit or a full context;
`tool_calls`: the model has called a tool and waits for what it says."""


class PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int


class Usage(msgspec.Struct, frozen=True):
    """Tokens of a request; those of several choices added up, the prompt counted once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails

    @classmethod
    def of(cls, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> Usage:
        """`cached_tokens` are those of the prompt whose KV was reused."""
        return cls(
            prompt_tokens,
            completion_tokens,
            prompt_tokens + completion_tokens,
            PromptDetails(cached_tokens),
        )


class CalledFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True):
    """One call in an answer."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"

    @classmethod
    def of(cls, id: str, name: str, arguments: str) -> ToolCall:  # noqa: A002
        return cls(id, CalledFunction(name, arguments))


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the assistant says."""

    content: str | None
    role: str
    refusal: str | None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None

    @classmethod
    def of(
        cls,
        content: str | None,
        reasoning: str | None = None,
        calls: list[ToolCall] | None = None,
    ) -> ChatMessage:
        return cls(content, "assistant", None, reasoning or None, calls or None)


class ChatChoice(msgspec.Struct, frozen=True):
    index: int
    message: ChatMessage
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None = None

    @classmethod
    def of(
        cls,
        index: int,
        message: ChatMessage,
        finish_reason: FinishReason,
        logprobs: ChatLogprobs | None = None,
    ) -> ChatChoice:
        return cls(index, message, finish_reason, logprobs)


class CompletionChoice(msgspec.Struct, frozen=True):
    index: int
    text: str
    finish_reason: FinishReason
    logprobs: CompletionLogprobs | None = None


class ChatCompletion(msgspec.Struct, frozen=True):
    id: str
    created: int
    model: str
    choices: Sequence[ChatChoice]
    usage: Usage
    system_fingerprint: str | None
    object: Literal["chat.completion"] = "chat.completion"


class Completion(msgspec.Struct, frozen=True):
    id: str
    created: int
    model: str
    choices: Sequence[CompletionChoice]
    usage: Usage
    system_fingerprint: str | None
    object: Literal["text_completion"] = "text_completion"


class Model(msgspec.Struct, frozen=True):
    """What GET /v1/models says of one model; `created` in Unix seconds. `root`: of an alias, the
    model it stands for."""

    id: str
    created: int
    owned_by: str = "understudy"
    object: Literal["model"] = "model"
    root: str | UnsetType = UNSET


class ModelList(msgspec.Struct, frozen=True):
    data: Sequence[Model]
    object: Literal["list"] = "list"


def chat_completion(
    id: str,  # noqa: A002  # the name it has in the body
    created: int,
    model: str,
    choices: Sequence[ChatChoice],
    usage: Usage,
    *,
    system_fingerprint: str | None = None,
) -> bytes:
    """The body for POST /v1/chat/completions. `created` in Unix seconds."""
    return msgspec.json.encode(
        ChatCompletion(id, created, model, choices, usage, system_fingerprint)
    )


def completion(
    id: str,  # noqa: A002  # the name it has in the body
    created: int,
    model: str,
    choices: Sequence[CompletionChoice],
    usage: Usage,
    *,
    system_fingerprint: str | None = None,
) -> bytes:
    """The body for POST /v1/completions. `created` in Unix seconds."""
    return msgspec.json.encode(Completion(id, created, model, choices, usage, system_fingerprint))


def model_list(models: Sequence[Model]) -> bytes:
    """The body for GET /v1/models."""
    return msgspec.json.encode(ModelList(models))


def model_object(model: Model) -> bytes:
    """The body for GET /v1/models/{id}."""
    return msgspec.json.encode(model)
