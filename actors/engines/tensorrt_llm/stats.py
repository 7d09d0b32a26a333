"""TensorRT-LLM's statistics of one iteration, as far as they are used. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """How busy the executor was in an iteration; None where it does not say."""

    waiting: int = 0
    """Not scheduled yet, or paused for want of blocks."""
    blocks_used: int | None = None
    blocks_total: int | None = None
    block_tokens: int | None = None
    max_running: int | None = None


def read_stats(data: dict[str, Any]) -> Stats:
    """Every part of it may be absent or null."""
    kv_cache = data.get("kvCacheStats") or {}
    inflight = data.get("inflightBatchingStats") or {}
    return Stats(
        waiting=_count(data, "numQueuedRequests") + _count(inflight, "numPausedRequests"),
        # Not allocTotalBlocks: that counts every allocation there ever was.
        blocks_used=kv_cache.get("usedNumBlocks"),
        blocks_total=kv_cache.get("maxNumBlocks") or None,
        block_tokens=kv_cache.get("tokensPerBlock") or None,
        max_running=data.get("maxNumActiveRequests") or None,
    )


def each(item: Any) -> Iterator[dict[str, Any]]:
    """What an iteration yields, one by one: versions give JSON text, lists, or single mappings."""
    if isinstance(item, str | bytes):
        item = json.loads(item) if item else []
    for one in item if isinstance(item, list) else [item]:
        if isinstance(one, dict):
            yield one


def _count(data: dict[str, Any], key: str) -> int:
    return int(data.get(key) or 0)
