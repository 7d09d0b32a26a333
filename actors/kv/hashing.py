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
from collections import OrderedDict

import xxhash

SEED = 1337
BYTES_PER_TOKEN = 4

CHUNK_BLOCKS = 64
MIN_CHUNKS = 2
"""Of a prompt that is worth remembering."""
MAX_CHUNKS = 4096
"""Four million tokens in blocks of 16; 12 MB."""

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
    tokens: bytes | memoryview, block_tokens: int, *, parent: int | None = None, start: int = 0
) -> list[int]:
    """The sequence hash of every full block of packed tokens; a partial last block has none.

    With `start` and `parent` only the blocks from number `start` on are hashed, where `parent` is
    the sequence hash of block `start - 1`.
    """
    step = block_tokens * BYTES_PER_TOKEN
    first, after = start * step, len(tokens) // step * step
    if first >= after:
        return []
    digest, pack = xxhash.xxh3_64_intdigest, _LINK.pack
    hashes: list[int] = []
    # The quickest way there is to cut bytes into equal parts.
    for (block,) in struct.iter_unpack(f"{step}s", memoryview(tokens)[first:after]):
        named = digest(block, SEED)
        parent = named if parent is None else digest(pack(parent, named), SEED)
        hashes.append(parent)
    return hashes


class PrefixHasher:
    """The sequence hashes of prompts, the beginnings of which are remembered: of a conversation's
    next turn only what is new is hashed block by block.

    What is remembered are chunks of 64 blocks, by the hash in front of them and XXH3-128 over their
    tokens; 3 kB each. The longest unused are forgotten first.
    """

    def __init__(self, max_chunks: int = MAX_CHUNKS) -> None:
        self._max_chunks = max_chunks
        self._known: OrderedDict[tuple[int, int | None, bytes], list[int]] = OrderedDict()

    def __len__(self) -> int:
        """Chunks that are remembered."""
        return len(self._known)

    def hashes(self, tokens: bytes, block_tokens: int) -> list[int]:
        """As `sequence_hashes` from the first block on."""
        step = CHUNK_BLOCKS * block_tokens * BYTES_PER_TOKEN
        chunks = len(tokens) // step
        if chunks < MIN_CHUNKS:
            return sequence_hashes(tokens, block_tokens)
        known = self._known
        view = memoryview(tokens)
        hashes: list[int] = []
        parent: int | None = None
        for at in range(0, chunks * step, step):
            chunk = view[at : at + step]
            name = (block_tokens, parent, xxhash.xxh3_128_digest(chunk, seed=SEED))
            found = known.get(name)
            if found is None:
                found = known[name] = sequence_hashes(chunk, block_tokens, parent=parent)
            else:
                known.move_to_end(name)
            hashes += found
            parent = found[-1]
        while len(known) > self._max_chunks:
            known.popitem(last=False)
        return hashes + sequence_hashes(
            tokens, block_tokens, parent=parent, start=chunks * CHUNK_BLOCKS
        )
