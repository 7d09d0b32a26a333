"""Router → ingress: what it would do with a request, and why."""

from __future__ import annotations

import msgspec

from actors.messages.key import RequestKey
from actors.runtime.message import Message


class Candidate(msgspec.Struct, frozen=True):
    """One worker in the router's eyes."""

    worker: str
    leg: str
    """What it is considered for: `context`, `generation` or `alone`."""
    matched_tokens: int
    """Of the prompt, in its cache."""
    predicted_tokens: int
    """Of these: not reported yet, but sent there a moment ago."""
    prefill_tokens: int
    """Prompt tokens it has still to compute for others."""
    decode_blocks: int
    """KV blocks it holds for others."""
    requests: int
    """It has in hand."""
    cost: float | None
    """In blocks to compute; None when the strategy looks at no costs."""
    chosen: bool
    suspected: bool = False
    """It has just failed to take something, and gets nothing for a moment."""


class Explained(Message, frozen=True):
    """The answer to a `Route` with `explain`. Nothing was placed."""

    key: RequestKey
    strategy: str
    prompt_tokens: int
    block_tokens: int
    candidates: tuple[Candidate, ...]
    decision: str
    """One sentence."""
    queue: int = 0
    """Requests of the model that wait in this router."""
    admitted: bool = True
    """It would be placed at once, not queued."""
    decision_us: float = 0.0
