"""Workers → ingress: tokens. One message an engine step and ingress, whatever its size."""

from __future__ import annotations

import msgspec

from actors.messages.sampling import Logprobs
from actors.runtime.address import Address
from actors.runtime.message import Message


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """What one step produced for one sequence."""

    number: int
    """`RequestKey.number`; the ingress is the addressee."""
    epoch: int
    offset: int
    """How many tokens of this epoch came before these."""
    tokens: list[int]
    finish: str = ""
    """`stop`, `length`, `cancelled` or `error` on the last chunk of the epoch."""
    error: str = ""
    cached_tokens: int = 0
    """On the first chunk: prompt tokens found in the cache."""
    logprobs: list[Logprobs] | None = None
    prompt_tokens: int = 0
    """On the first chunk, from whoever computed the prompt: how long it was."""


class Frame(Message, frozen=True):
    """Every sequence of one ingress that moved in one step."""

    worker: Address
    chunks: list[Chunk]
