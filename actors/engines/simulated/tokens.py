"""Which token the simulated model says: a function anyone can compute again.

    key    = XXH3-64(original prompt, seed = the request's seed)
    digest = XXH3-64(position as u64 LE, seed = key)
    token  = low + (digest mod 2**32) mod (high - low)

The original prompt is what the client sent, without tokens generated in earlier attempts, so a
replay, a decode worker and a checker in another process all derive the same key. The upper half
of the digest decides whether the sequence ends there.
"""

from __future__ import annotations

import math
import struct

import msgspec
import xxhash

TOKEN_BYTES = 4
EMBEDDING_SIZE = 64
_position = struct.Struct("<Q").pack
_digest = xxhash.xxh3_64_intdigest
_LOWER = (1 << 32) - 1


class Vocabulary(msgspec.Struct, frozen=True, gc=False):
    """The ids that are drawn from, and how likely a sequence ends at each position."""

    low: int
    high: int
    """Exclusive."""
    end_one_in: int = 0
    """A position ends the sequence with probability 1 / this; 0 for never."""

    def draw(self, key: int, position: int) -> int:
        """The token at this position of the sequence `key` stands for."""
        return self.low + (_digest(_position(position), key) & _LOWER) % (self.high - self.low)

    def ends(self, key: int, position: int) -> bool:
        """Whether the model says its end token here, in place of what `draw` returns."""
        if self.end_one_in == 0:
            return False
        return (_digest(_position(position), key) >> 32) % self.end_one_in == 0


def sequence_key(original_prompt: bytes, seed: int) -> int:
    """What stands for one client's prompt and seed; 64 bits."""
    return int(_digest(original_prompt, seed))


def expected_token(prompt: bytes, seed: int, position: int, vocabulary: Vocabulary) -> int:
    """The token a simulated engine puts at `position`, counted from the prompt's first token.

    `prompt` is the original one, 4 bytes a token, without tokens of earlier attempts.
    """
    return vocabulary.draw(sequence_key(prompt, seed), position)


def expected_tokens(prompt: bytes, seed: int, count: int, vocabulary: Vocabulary) -> list[int]:
    """The first `count` tokens after `prompt`, had the sequence no end."""
    key = sequence_key(prompt, seed)
    first = len(prompt) // TOKEN_BYTES
    return [vocabulary.draw(key, position) for position in range(first, first + count)]


def embedding_of(prompt: bytes) -> bytes:
    """The vector that a simulated engine makes of a prompt: packed float32, `EMBEDDING_SIZE` of
    them, of length 1 and drawn from the prompt's digest."""
    key = sequence_key(prompt, 0)
    drawn = [_digest(_position(index), key) / 2**63 - 1.0 for index in range(EMBEDDING_SIZE)]
    length = math.hypot(*drawn)
    return struct.pack(f"<{EMBEDDING_SIZE}f", *(value / length for value in drawn))
