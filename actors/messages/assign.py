"""Router and preprocessor → ingress: who does it, or why nobody does."""

from __future__ import annotations

from typing import Literal

from actors.messages.key import RequestKey
from actors.runtime.address import Address
from actors.runtime.message import Message

Why = Literal["invalid", "too_long", "unavailable", "overloaded", "lost", "internal"]
"""`lost`: a worker was chosen and would not have it; another attempt may do better at once."""


class Assigned(Message, frozen=True):
    """These workers run it."""

    key: RequestKey
    context: Address | None
    """Computes the prompt and sends the first token; None when `generation` does it all."""
    generation: Address
    prompt_tokens: int
    matched_tokens: int = 0
    """Of the prompt; what the router believes to be in the cache of who computes it."""
    queued_ms: float = 0.0
    """How long the request waited in the router."""


class Rejected(Message, frozen=True):
    """Nobody runs it. Ends the attempt."""

    key: RequestKey
    why: Why
    text: str
    """One sentence for the client."""
    param: str = ""
    """The field of the request that is to blame, if one is."""
    retry_after_s: float = 0.0
