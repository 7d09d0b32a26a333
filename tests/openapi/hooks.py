"""What schemathesis runs with: valid requests reach the model, and are small.

Loaded by schemathesis itself (SCHEMATHESIS_HOOKS). Values are changed only from one valid value to
another, so that what was made to be invalid stays so.
"""

from __future__ import annotations

import os
from typing import Any

import schemathesis

MODEL = os.environ["SCHEMATHESIS_MODEL"]
MAX_NAME = 512
MAX_TOKENS = 8
MAX_CHOICES = 3
ANY_INT = 2**31 - 1
MAX_N = 128
DEPENDS = frozenset(
    {
        "add_special_tokens",
        "best_of",
        "chat_template_kwargs",
        "dimensions",
        "echo",
        "input",
        "logit_bias",
        "messages",
        "min_tokens",
        "n",
        "previous_response_id",
        "prompt",
        "stop_token_ids",
        "stream_options",
        "tokens",
        "tool_choice",
        "top_logprobs",
    }
)
"""Fields that may be refused though each value fits the schema, because of another field, the
model's vocabulary or its chat template."""


GUIDED = frozenset(
    {
        "guided_choice",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "response_format",
        "structured_outputs",
        "text",
        "tools",
    }
)
"""Refused by the simulated engine, which follows no grammar."""


@schemathesis.check
def valid_data_is_accepted(_context: Any, response: Any, case: Any) -> None:
    """In place of schemathesis' own check, which knows nothing of fields that depend on others."""
    mode = None if case.meta is None else case.meta.generation.mode
    if response.status_code != 400 or mode is None or not mode.is_positive:
        return
    field = (response.json()["error"]["param"] or "").partition(".")[0].partition("[")[0]
    assert field in DEPENDS | GUIDED, f"refused, though valid: {response.text}"


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    if not isinstance(body, dict):
        return body
    body = _written_plainly(body)
    model = body.get("model")
    if isinstance(model, str) and 1 <= len(model) <= MAX_NAME:
        body["model"] = MODEL
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        _cap(body, name, MAX_TOKENS, ANY_INT)
    for name in ("n", "best_of"):
        _cap(body, name, MAX_CHOICES, MAX_N)
    return body


def _written_plainly(value: Any) -> Any:
    """Integers without a fraction of zero: to JSON Schema 5.0 is one, to the server it is not."""
    match value:
        case dict():
            return {name: _written_plainly(one) for name, one in value.items()}
        case list():
            return [_written_plainly(one) for one in value]
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
        case _:
            return value


def _cap(body: dict[str, Any], name: str, most: int, valid: int) -> None:
    value = body.get(name)
    if type(value) is int and most < value <= valid:
        body[name] = most
