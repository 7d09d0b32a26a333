"""One request on its way through the scheduler, and the ticket it may leave behind."""

from __future__ import annotations

import sys
from array import array

import msgspec

from actors.engines.base import Request
from actors.engines.simulated.tokens import TOKEN_BYTES, sequence_key
from actors.kv.hashing import sequence_hashes

assert array("I").itemsize == TOKEN_BYTES, "token ids are kept as 32-bit numbers"
assert sys.byteorder == "little", "packed token ids are used as they lie in memory"

TICKET_VERSION = 1


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """What a simulated handoff says. No data moves: the blocks are only counted."""

    version: int
    exporter: str
    """The engine that holds the blocks."""
    nonce: int
    """With `exporter`, unlike any other ticket's; good for one fetch."""
    block_tokens: int
    tokens: int
    """Length of the prompt the blocks hold."""


class Sequence:
    """A request, its tokens so far and the blocks it holds. Only the scheduler changes it."""

    __slots__ = (
        "blocks",
        "cached_tokens",
        "chunk",
        "computed",
        "fetches",
        "hashes",
        "id",
        "key",
        "left",
        "origin",
        "plain",
        "published",
        "request",
        "tokens",
        "until_full",
    )

    def __init__(self, request: Request, *, context_tokens: int, ending: bool) -> None:
        prompt, sampling, handoff = request.prompt, request.sampling, request.handoff
        self.request = request
        self.id = request.id
        self.tokens = array("I", prompt)
        """The prompt and all that was generated. The last one's KV is not computed yet while
        the sequence decodes."""
        self.origin = len(self.tokens) - request.resumed
        """Tokens of the client's own prompt."""
        self.key = sequence_key(prompt[: TOKEN_BYTES * self.origin], sampling.seed)
        self.left = min(sampling.max_tokens, context_tokens - len(self.tokens))
        """Tokens it may still produce."""
        self.fetches = handoff is not None
        """Its prompt's KV comes from another engine, and is not here yet."""
        if handoff is not None:
            self.tokens.append(handoff.first_token)
            self.left -= 1
        self.plain = not ending and not sampling.stop_token_ids and sampling.logprobs is None
        """Nothing but `left` ends it, and an output of it is one token: the fast path."""
        self.hashes: list[int] = []
        """Sequence hashes of its first blocks."""
        self.blocks: list[int] = []
        self.published = 0
        """How many of the blocks others can reuse."""
        self.computed = 0
        """Tokens whose KV is here, while the prompt is being computed."""
        self.chunk = 0
        """Tokens the step under way adds to `computed`."""
        self.until_full = 0
        """Decode steps until the last block is full."""
        self.cached_tokens = -1
        """Found in the cache at first admission; -1 before."""

    def hash_prompt(self, block_tokens: int) -> None:
        """Name the prompt's full blocks."""
        self.hashes = sequence_hashes(self.request.prompt, block_tokens)

    def restart(self) -> None:
        """Forget what was computed: its blocks were taken away. Its tokens stay."""
        self.blocks = []
        self.published = self.computed = self.chunk = self.until_full = 0
