"""The response object: what a client gets at once or at the end, and may ask for again."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from actors.ingress.openai.errors import ApiError
from actors.ingress.openai.responses import Usage
from actors.ingress.openai.responses_api.items import Json
from actors.ingress.openai.responses_api.request import ResponsesRequest

Status = Literal["in_progress", "completed", "incomplete", "failed"]
TEXT = {"format": {"type": "text"}}


class ResponseUsage(msgspec.Struct, frozen=True):
    """Tokens of a response. `reasoning_tokens` are counted in the text of what was thought."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int

    @classmethod
    def of(cls, usage: Usage, reasoning_tokens: int) -> ResponseUsage:
        return cls(
            usage.prompt_tokens,
            {
                "cached_tokens": usage.prompt_tokens_details.cached_tokens,
                "cache_write_tokens": 0,
            },
            usage.completion_tokens,
            {"reasoning_tokens": min(reasoning_tokens, usage.completion_tokens)},
            usage.total_tokens,
        )


def begun(asked: ResponsesRequest, response_id: str, created_at: int) -> Json:
    """The object of a response that has just begun. `created_at` in Unix seconds."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "metadata": asked.metadata or {},
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "prompt_cache_key": asked.prompt_cache_key,
        "reasoning": _builtins(asked.reasoning) or {"effort": None, "summary": None},
        "safety_identifier": asked.safety_identifier,
        "service_tier": "default",
        "store": asked.store is not False,
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "text": _text(asked),
        "tool_choice": _builtins(asked.tool_choice) or "auto",
        "tools": [_builtins(tool) for tool in asked.tools or ()],
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": asked.user,
    }


def ended(
    response: Json,
    status: Literal["completed", "incomplete"],
    output: list[Json],
    usage: ResponseUsage,
    completed_at: int,
) -> Json:
    """The object of an answer that has come to its end, or to the limit of its tokens."""
    cut = status == "incomplete"
    return {
        **response,
        "status": status,
        "completed_at": None if cut else completed_at,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": output,
        "usage": _builtins(usage),
    }


def failed(response: Json, output: list[Json], error: ApiError) -> Json:
    """The object of an answer that broke off."""
    problem = {"code": "server_error", "message": error.message}
    return {**response, "status": "failed", "output": output, "error": problem}


def _text(asked: ResponsesRequest) -> Json:
    if asked.text is None:
        return TEXT
    said = {name: value for name, value in _builtins(asked.text).items() if value is not None}
    found = said.get("format", TEXT["format"])
    return {**said, "format": {name: value for name, value in found.items() if value is not None}}


def _builtins(value: Any) -> Any:
    return msgspec.to_builtins(value)
