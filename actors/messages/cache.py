"""What a worker says of its KV cache and its load; read by the router and by operators."""

from __future__ import annotations

import msgspec


class Stored(msgspec.Struct, frozen=True, array_like=True, tag="stored"):
    """These blocks, each the continuation of the one before, can now be reused."""

    parent: int | None
    """Sequence hash of the block before the first; None when the first one begins a prompt."""
    blocks: tuple[int, ...]
    """Sequence hashes (`actors.kv.hashing`)."""


class Removed(msgspec.Struct, frozen=True, array_like=True, tag="removed"):
    """These blocks were evicted."""

    blocks: tuple[int, ...]


CacheEvent = Stored | Removed


class Load(msgspec.Struct, frozen=True, array_like=True):
    """How busy an engine is, at one moment."""

    running: int = 0
    """Requests that take part in steps."""
    waiting: int = 0
    """Requests accepted and not yet begun."""
    waiting_tokens: int = 0
    """Prompt tokens not yet computed, of running and waiting requests."""
    blocks_used: int = 0
    """KV blocks held by running requests and by handoffs not yet fetched (not: reusable ones)."""
    blocks_total: int = 0
    max_running: int = 0
