"""How every message names the request it is about."""

from __future__ import annotations

import msgspec

from actors.runtime.address import Address

BYTES_PER_TOKEN = 4


class RequestKey(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One attempt at one sequence.

    `ingress` (with its incarnation) and `number` name the sequence, `epoch` the attempt: it grows
    with every replay, and what carries an older one is dropped.
    """

    ingress: Address
    number: int
    epoch: int

    def __str__(self) -> str:
        return f"{self.ingress}:{self.number}.{self.epoch}"


def count_tokens(packed: bytes) -> int:
    """How many token ids the bytes hold."""
    return len(packed) // BYTES_PER_TOKEN
