"""The KV cache: blocks that are private to a request, shared, or reusable; and its events."""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

import xxhash

_MASK = 2**64 - 1


@dataclass(slots=True)
class Block:
    hash: int
    parent: int | None
    tokens: list[int]
    users: int = 0
    children: int = 0


@dataclass(slots=True)
class Held:
    """What one request holds."""

    private: int = 0
    shared: list[int] = field(default_factory=list)
    """Hashes, from the root on."""


class Cache:
    def __init__(
        self, blocks: int, block_tokens: int, *, reuse: bool, buffer: int, window: int | None
    ) -> None:
        self.total = self.free = blocks
        self.block_tokens = block_tokens
        self._reuse = reuse
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._window = window
        self._next_event = 0
        self.events: deque[dict[str, Any]] | None = deque(maxlen=buffer) if buffer else None
        self._tell({"type": "created", "num_blocks_per_cache_level": [blocks, 0]})

    @property
    def used(self) -> int:
        return self.total - self.free - sum(1 for block in self._blocks.values() if not block.users)

    def begin(self, tokens: list[int], longest: int) -> tuple[Held, int] | None:
        """Blocks for a request of this prompt that may grow to `longest`; how many tokens of it
        are cached. None when there is no room now."""
        held = Held()
        if self._reuse:
            # At least one token is always computed.
            for key, _, _ in self._chain(tokens[:-1]):
                if key not in self._blocks:
                    break
                held.shared.append(key)
        for key in held.shared:
            self._blocks[key].users += 1
        wanted = -(-longest // self.block_tokens) - len(held.shared)
        if not self._allocate(wanted):
            self._let_go(held.shared)
            return None
        held.private = wanted
        return held, len(held.shared) * self.block_tokens

    def store(self, held: Held, tokens: list[int]) -> None:
        """Make the full blocks of these tokens reusable."""
        if not self._reuse:
            return
        fresh: list[Block] = []
        for index, (key, parent, part) in enumerate(self._chain(tokens)):
            if index < len(held.shared):
                continue
            held.private -= 1
            held.shared.append(key)
            if key in self._blocks:  # computed side by side
                self.free += 1
            else:
                block = self._blocks[key] = Block(key, parent, part)
                if parent is not None:
                    self._blocks[parent].children += 1
                fresh.append(block)
            self._blocks[key].users += 1
        if fresh:
            self._tell_stored(fresh)

    def end(self, held: Held, tokens: list[int]) -> None:
        """The request is over."""
        self.store(held, tokens)
        rest = tokens[len(held.shared) * self.block_tokens :]
        if self._reuse and rest:
            self._tell_partial(held.shared[-1] if held.shared else None, rest)
        self._let_go(held.shared)
        self.free += held.private

    def _let_go(self, keys: list[int]) -> None:
        for key in reversed(keys):
            self._blocks[key].users -= 1
            self._blocks.move_to_end(key)

    def _allocate(self, count: int) -> bool:
        while self.free < count:
            victim = next(
                (b for b in self._blocks.values() if not b.users and not b.children), None
            )
            if victim is None:
                return False
            del self._blocks[victim.hash]
            if victim.parent is not None:
                self._blocks[victim.parent].children -= 1
            self.free += 1
            self._tell({"type": "removed", "block_hashes": [victim.hash]})
        self.free -= count
        return True

    def _chain(self, tokens: list[int]) -> list[tuple[int, int | None, list[int]]]:
        chain: list[tuple[int, int | None, list[int]]] = []
        parent: int | None = None
        for at in range(0, len(tokens) - self.block_tokens + 1, self.block_tokens):
            part = tokens[at : at + self.block_tokens]
            key = _hash(parent, part)
            chain.append((key, parent, part))
            parent = key
        return chain

    def _tell_stored(self, blocks: list[Block]) -> None:
        self._tell(
            {
                "type": "stored",
                "parent_hash": blocks[0].parent,
                "blocks": [_stored(block.hash, block.tokens) for block in blocks],
            }
        )

    def _tell_partial(self, parent: int | None, tokens: list[int]) -> None:
        """A block that is not full is stored too, and soon removed."""
        key = _hash(parent, tokens)
        stored = [_stored(key, tokens)]
        self._tell({"type": "stored", "parent_hash": parent, "blocks": stored})
        diff = {"type": "event_diff", "new_value": 35, "old_value": 20}
        self._tell({"type": "updated", "block_hash": key, "cache_level": None, "priority": diff})
        self._tell({"type": "removed", "block_hashes": [key]})

    def _tell(self, data: dict[str, Any]) -> None:
        if self.events is None:
            return
        event = {"event_id": self._next_event, "data": data}
        if self._window is not None:
            event["window_size"] = self._window
        self._next_event += 1
        self.events.append(event)


def _stored(key: int, tokens: list[int]) -> dict[str, Any]:
    unique = [{"type": "unique_token", "token_id": t, "token_extra_id": 0} for t in tokens]
    return {
        "type": "stored_block",
        "block_hash": key,
        "tokens": unique,
        "cache_level": 0,
        "priority": 35,
    }


def _hash(parent: int | None, tokens: list[int]) -> int:
    """One of its own, above 2**63 half of the time."""
    data = struct.pack(f"<Q{len(tokens)}I", parent or 0, *tokens)
    return int(xxhash.xxh3_64_intdigest(data, seed=99)) & _MASK
