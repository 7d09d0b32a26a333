"""Ingress → preprocessor: a request as the client put it."""

from __future__ import annotations

import msgspec

from actors.messages.hints import Hints
from actors.messages.key import RequestKey
from actors.messages.sampling import Sampling
from actors.runtime.message import Message
from actors.runtime.tracing import TraceContext


class ChatPrompt(msgspec.Struct, frozen=True, array_like=True, tag="chat"):
    """Messages for the model's chat template."""

    messages: bytes
    """The JSON array as the client sent it."""
    template_arguments: bytes = b"{}"
    """JSON object of extra variables for the template."""
    add_generation_prompt: bool = True
    tools: bytes = b"null"
    """JSON array, or null."""


class TextPrompt(msgspec.Struct, frozen=True, array_like=True, tag="text"):
    """Text to be continued."""

    text: str
    add_special_tokens: bool = True


class TokenPrompt(msgspec.Struct, frozen=True, array_like=True, tag="tokens"):
    """Token ids to be continued as they are."""

    tokens: bytes


Prompt = ChatPrompt | TextPrompt | TokenPrompt


class Submit(Message, frozen=True):
    """Run this. Sent again with a higher epoch when an attempt was lost."""

    key: RequestKey
    request_id: str
    """What logs and the client call it."""
    model: str
    prompt: Prompt
    sampling: Sampling
    """`max_tokens` is what is left to produce; the preprocessor cuts it to the model's context."""
    delivered: bytes = b""
    """Tokens the client already has, packed. They continue the prompt."""
    hints: Hints = Hints()
    budget_s: float = 0.0
    """Seconds that are left of the request's time as this is sent; 0: no limit. Everyone on the
    way passes on what is left then. A length of time, since clocks of different hosts differ."""
    trace: TraceContext | None = None
    """The attempt's span; None when the request is not traced."""
