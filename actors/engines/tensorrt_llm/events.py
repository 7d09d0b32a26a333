"""TensorRT-LLM's KV cache events, in the terms of this project. Pure.

Its hashes of blocks are its own and mean nothing elsewhere: each block is named anew by the chain
of token ids that leads to it (`actors.kv.hashing`). Within one event each block continues the one
before it, the first one continues `parent_hash`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeAlias

import msgspec

from actors.engines.prompts import pack_tokens
from actors.kv.blocks import Added, Change, Evicted
from actors.kv.hashing import block_hash, chain

Key: TypeAlias = tuple[int, int]
"""Attention-parallel rank and TensorRT-LLM's hash: every rank has a cache of its own."""


class WrongBlockSize(ValueError):
    """The engine's blocks are larger than was believed: no hash would match."""


class Seen(msgspec.Struct):
    """Counts, for a log."""

    orphans: int = 0
    """Blocks whose predecessor was never told."""
    partial: int = 0
    lost: int = 0
    """Times that all was forgotten, as events must have been lost."""


class EventReader:
    """Follows one engine's events. `block_tokens` is the size of its full blocks."""

    def __init__(self, block_tokens: int, blocks_total: int = 0) -> None:
        self.seen = Seen()
        self._block_tokens = block_tokens
        self._limit = blocks_total
        self._ours: dict[Key, int] = {}
        self._holders: Counter[int] = Counter()
        self._window: int | None = None

    def read(self, event: dict[str, Any]) -> list[Change]:
        """What one event changes. Raises WrongBlockSize."""
        data = event.get("data") or {}
        window = event.get("window_size")
        if data.get("type") == "created":
            # With several attention windows only the widest holds whole prompts.
            if window is not None:
                self._window = max(window, self._window or 0)
            return []
        if window is not None and self._window is not None and window != self._window:
            return []
        rank = int(event.get("attention_dp_rank") or 0)
        match data.get("type"):
            case "stored":
                return self._stored(rank, data)
            case "removed":
                return self._removed(rank, data)
        return []  # "updated": moved to host memory or back, and of use all the time

    def _stored(self, rank: int, data: dict[str, Any]) -> list[Change]:
        parent: int | None = None
        if data.get("parent_hash") is not None:
            parent = self._ours.get((rank, data["parent_hash"]))
            if parent is None:
                self.seen.orphans += 1
                return []
        changes: list[Change] = []
        for block in data.get("blocks") or []:
            tokens = block.get("tokens") or []
            if len(tokens) > self._block_tokens:
                raise WrongBlockSize(
                    f"a block of {len(tokens)} tokens where {self._block_tokens} are the most"
                )
            if len(tokens) < self._block_tokens or any(t.get("token_extra_id") for t in tokens):
                # Not a full block, or one of an image: nobody can find it by token ids.
                self.seen.partial += 1
                break
            packed = pack_tokens([t["token_id"] for t in tokens])
            named = chain(parent, block_hash(packed))
            changes += self._add((rank, block["block_hash"]), named, parent)
            parent = named
        return self._check_room() or changes

    def _add(self, key: Key, named: int, parent: int | None) -> list[Change]:
        if key in self._ours:
            return []
        self._ours[key] = named
        self._holders[named] += 1
        return [Added(parent, (named,))] if self._holders[named] == 1 else []

    def _removed(self, rank: int, data: dict[str, Any]) -> list[Change]:
        changes: list[Change] = []
        for their_hash in data.get("block_hashes") or []:
            named = self._ours.pop((rank, their_hash), None)
            if named is None:
                continue  # a partial block, or an orphan
            self._holders[named] -= 1
            if not self._holders[named]:
                del self._holders[named]
                changes.append(Evicted((named,)))
        return changes

    def _check_room(self) -> list[Change]:
        """Forget all when more blocks are known than there can be: the buffer has overflowed, and
        removals are among what was lost. What is stored from now on is known again."""
        if not self._limit or len(self._holders) <= self._limit:
            return []
        self.seen.lost += 1
        before = Evicted(tuple(self._holders))
        self._ours.clear()
        self._holders.clear()
        return [before]
