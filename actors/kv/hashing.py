"""Names for KV blocks: a hash of the tokens in a block, chained over all blocks before it.

A *block hash* names the tokens of one block. A *sequence hash* names a block together with
everything in front of it, which is what attention makes its contents depend on; two prompts share
a block's KV exactly when they share its sequence hash.

The definition is that of NVIDIA Dynamo's router, so that an index built from either side's events
agrees: XXH3-64 with seed 1337 over the tokens as little-endian u32; for every block but the first,
XXH3-64 with the same seed over (sequence hash of the block before, block hash), two little-endian
u64.
"""

from __future__ import annotations

import struct

import xxhash

SEED = 1337
BYTES_PER_TOKEN = 4

_LINK = struct.Struct("<QQ")


def block_hash(tokens: bytes) -> int:
    """The block hash of packed tokens (4 bytes each, little-endian), of any number."""
    return int(xxhash.xxh3_64_intdigest(tokens, seed=SEED))


def chain(parent: int | None, block: int) -> int:
    """The sequence hash of a block with this block hash behind `parent`, None for the first."""
    if parent is None:
        return block
    return int(xxhash.xxh3_64_intdigest(_LINK.pack(parent, block), seed=SEED))


def sequence_hashes(
    tokens: bytes, block_tokens: int, *, parent: int | None = None, start: int = 0
) -> list[int]:
    """The sequence hash of every full block of packed tokens; a partial last block has none.

    With `start` and `parent` only the blocks from number `start` on are hashed, where `parent` is
    the sequence hash of block `start - 1`.
    """
    step = block_tokens * BYTES_PER_TOKEN
    digest = xxhash.xxh3_64_intdigest
    pack = _LINK.pack
    hashes: list[int] = []
    for at in range(start * step, len(tokens) - step + 1, step):
        block = digest(tokens[at : at + step], seed=SEED)
        parent = block if parent is None else digest(pack(parent, block), seed=SEED)
        hashes.append(parent)
    return hashes
