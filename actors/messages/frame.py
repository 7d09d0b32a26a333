"""Workers → ingress: tokens. One message an engine step and ingress, or one for
several steps, or several for very many sequences."""

from __future__ import annotations

import msgspec

from actors.messages.sampling import Findings, Logprobs
from actors.runtime.address import Address
from actors.runtime.message import Message

PLAIN_FIELDS = 4


class Chunk(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
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
    findings: Findings | None = None
    """On the first chunk, when `Sampling.prompt` asks for them."""


class Frame(Message, frozen=True):
    """What sequences of one ingress did in one step, or in several that came at once."""

    worker: Address
    chunks: list[Chunk]
    """Of those that have more to say than one token; read before `plain`."""
    plain: list[int] = msgspec.field(default_factory=list)
    """Of those that produced one token and have nothing else to say, which is nearly all:
    `PLAIN_FIELDS` numbers each, as in `Chunk` the number, the epoch, the offset and the token.
    Reading and writing them costs a tenth of a chunk's."""

    @property
    def repeats(self) -> bool:
        """Whether some sequence has several tokens in `plain`."""
        numbers = self.plain[::PLAIN_FIELDS]
        return len(set(numbers)) < len(numbers)

    def everything(self) -> list[Chunk]:
        """All of it as chunks, for readers in no hurry."""
        fields = iter(self.plain)
        rows = zip(fields, fields, fields, fields, strict=True)
        return [
            *self.chunks,
            *(Chunk(number, epoch, offset, [token]) for number, epoch, offset, token in rows),
        ]
