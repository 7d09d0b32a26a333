"""One sequence as the scheduler sees it: tokens, and the KV blocks that cover them."""

from __future__ import annotations

import enum
from array import array
from dataclasses import dataclass, field

from actors.engines.prompts import pack, unpack
from actors.kv.hashing import block_hash, chain, sequence_hashes


class Stage(enum.Enum):
    """Where a sequence is on its way through the scheduler."""

    WAITING = enum.auto()
    """Holds nothing."""
    FETCHING = enum.auto()
    """Its blocks are being filled from another engine; they cannot be taken from it."""
    RUNNING = enum.auto()
    HELD = enum.auto()
    """Computed, and kept for another engine to fetch."""
    ABANDONED = enum.auto()
    """Given up while its blocks were still being filled."""
    GONE = enum.auto()


@dataclass(slots=True, eq=False)
class Sequence:
    """Token ids known so far, and how many of them have their KV computed.

    The last token of a running sequence is never computed: computing it yields the next one.
    """

    id: int
    tokens: array[int]
    """Prompt, then what was generated. Type code "I"."""
    fetch: bool = False
    """The KV of all tokens but the last comes from another engine."""
    stage: Stage = Stage.WAITING
    order: int = 0
    """Arrival; who came first is served first and preempted last."""
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)
    """Sequence hashes of full blocks, at least of all published ones."""
    published: int = 0
    """How many of the first blocks are known to the pool by their hash."""
    examined: bool = False
    """Something is to be found out about the prompt: all of it is computed, in small pieces, and
    nothing is taken from the cache."""
    cached_tokens: int | None = None
    """Tokens found in the cache when it first ran."""

    @property
    def pending(self) -> int:
        """Tokens to compute before the next one is known."""
        return len(self.tokens) - self.computed

    def sequence_hash(self, block: int, block_tokens: int) -> int:
        """The sequence hash of a full block; those before it must be known."""
        if block == len(self.hashes):
            packed = pack(self.tokens[block * block_tokens : (block + 1) * block_tokens])
            parent = self.hashes[block - 1] if block else None
            self.hashes.append(chain(parent, block_hash(packed)))
        return self.hashes[block]


def sequence_of(
    request_id: int, prompt: bytes, *, block_tokens: int, first_token: int | None = None
) -> Sequence:
    """A waiting sequence of a packed prompt.

    With `first_token`, chosen elsewhere, the prompt's KV is fetched rather than computed.
    """
    tokens = unpack(prompt)
    if first_token is not None:
        tokens.append(first_token)
    return Sequence(
        request_id,
        tokens,
        fetch=first_token is not None,
        hashes=sequence_hashes(prompt, block_tokens),
    )
