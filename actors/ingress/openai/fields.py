"""Field types of request bodies: what the decoder itself holds clients to. Limits are named."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MAX_CHOICES = 128
"""Sequences one request may ask for: `n` times the number of prompts."""
MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 512
MAX_STOP_TOKENS = 128
MAX_LOGIT_BIASES = 1024
MAX_TOP_LOGPROBS = 20
MAX_NAME = 512
"""Characters of a name that a client makes up."""
UNLIMITED_TOKENS = 2**31 - 1
"""More than any context holds; the largest `max_tokens` accepted."""

TokenCount = Annotated[int, Meta(ge=1, le=UNLIMITED_TOKENS)]
MinTokens = Annotated[int, Meta(ge=0, le=UNLIMITED_TOKENS)]
TokenId = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(gt=0, le=1)]
TopK = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
"""-1 and 0 both keep all tokens."""
MinP = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
RepetitionPenalty = Annotated[float, Meta(gt=0, le=10)]
Choices = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
TopLogprobs = Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)]
StopString = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARACTERS)]
Stop = StopString | Annotated[list[StopString], Meta(max_length=MAX_STOP_STRINGS)]
StopTokenIds = Annotated[list[TokenId], Meta(max_length=MAX_STOP_TOKENS)]
LogitBias = Annotated[
    dict[TokenId, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=MAX_LOGIT_BIASES)
]
ModelName = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Prompt = str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    """Every chunk has the counts of its choice so far."""


class ContentPart(msgspec.Struct, frozen=True, gc=False):
    type: str
    text: str | None = None
    refusal: str | None = None


class Message(msgspec.Struct, frozen=True):
    """One message, as far as it is checked. What is passed on is its raw JSON."""

    role: Role
    content: str | list[ContentPart] | None = None
