"""What a worker has sent, kept for an ingress that did not get all of it. Pure."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from actors.messages.frame import Chunk
from actors.messages.key import RequestKey
from actors.messages.sampling import Findings, Logprobs
from actors.runtime.address import Address

TOKENS_KEPT = 4096
"""Of one sequence, at least and while it runs; at most three times as many."""
ENDED_KEPT = 1024
"""Sequences that are over, the last ones."""
ENDED_TOKENS_KEPT = 262_144
"""Of all of those together."""


class Sent(msgspec.Struct):
    """The last part of what was sent of one attempt."""

    key: RequestKey
    first: int
    """The offset of the first token kept."""
    tokens: list[int] = []
    """The same list all the time. Who appends plain tokens to it by itself calls `trim`."""
    logprobs: list[Logprobs] | None = None
    finish: str = ""
    error: str = ""
    cached_tokens: int = 0
    prompt_tokens: int = 0
    findings: Findings | None = None

    @property
    def weight(self) -> int:
        """What it takes to keep, in tokens."""
        found = self.findings
        if found is None:
            return len(self.tokens)
        entries = sum(1 + len(entry.top) for entry in found.logprobs)
        return len(self.tokens) + 8 * entries + len(found.embedding) // 4

    def note(self, chunk: Chunk) -> None:
        """Another chunk goes out."""
        tokens = self.tokens
        tokens += chunk.tokens
        if chunk.logprobs is not None:
            self.logprobs = [*(self.logprobs or ()), *chunk.logprobs]
        if chunk.finish:
            self.finish, self.error = chunk.finish, chunk.error
        if chunk.offset == 0:
            self.cached_tokens, self.prompt_tokens = chunk.cached_tokens, chunk.prompt_tokens
            self.findings = chunk.findings
        self.trim()

    def from_(self, offset: int) -> Chunk | None:
        """Everything from this offset on as one chunk; None when part of it is not kept."""
        start = offset - self.first
        if start < 0:
            return None
        return Chunk(
            self.key.number,
            self.key.epoch,
            offset,
            self.tokens[start:],
            self.finish,
            self.error,
            self.cached_tokens if offset == 0 else 0,
            None if self.logprobs is None else self.logprobs[start:],
            0 if offset else self.prompt_tokens,
            None if offset else self.findings,
        )

    def trim(self) -> None:
        """Let go of the oldest tokens when there are too many. To be called at least once for each
        `TOKENS_KEPT` that are added."""
        if len(self.tokens) < 2 * TOKENS_KEPT:
            return
        self.first += TOKENS_KEPT
        del self.tokens[:TOKENS_KEPT]
        if self.logprobs is not None:
            del self.logprobs[:TOKENS_KEPT]


class Ended:
    """What was sent of sequences that are over here: their last chunk may have been lost."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Address, int], Sent] = OrderedDict()
        self._tokens = 0

    def add(self, sent: Sent) -> None:
        """Keep one more; the oldest go when there are too many."""
        self.forget(sent.key)
        self._kept[sent.key.ingress, sent.key.number] = sent
        self._tokens += sent.weight
        while len(self._kept) > ENDED_KEPT or self._tokens > ENDED_TOKENS_KEPT:
            _, oldest = self._kept.popitem(last=False)
            self._tokens -= oldest.weight

    def find(self, key: RequestKey) -> Sent | None:
        """What was sent of exactly this attempt."""
        sent = self._kept.get((key.ingress, key.number))
        return sent if sent is not None and sent.key == key else None

    def forget(self, key: RequestKey) -> None:
        """Drop whatever is kept of the sequence."""
        sent = self._kept.pop((key.ingress, key.number), None)
        if sent is not None:
            self._tokens -= sent.weight

    def __len__(self) -> int:
        return len(self._kept)
