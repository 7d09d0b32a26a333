"""What the ranks of an engine say to each other. Frozen structs, MessagePack on the wire."""

from __future__ import annotations

import msgspec

from actors.engines.transformers.options import TransformersOptions
from actors.kv.transfer import Shard, Ticket


class Load(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Load your share of the model; answered by `Loaded` or `Broken`."""

    options: TransformersOptions
    rank: int
    size: int
    rendezvous: str
    """Where NCCL's ranks meet, `tcp://host:port`; empty without CUDA."""


class Compute(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Take part in a forward pass. Not answered: the sums are the answer."""

    works: list[tuple[bytes, int, list[int]]]
    """Tokens as packed native u32, the first one's position, the blocks."""


class Offer(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Offer your share of these blocks; answered by `Offered` or `Failed`."""

    number: int
    blocks: tuple[int, ...]


class Withdraw(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """End an offer of yours, before the next order is looked at."""

    offer: int


class Fetch(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Fetch your share; answered by `Fetched` or `Failed`, while other orders go on."""

    number: int
    ticket: Ticket
    skip: int
    blocks: tuple[int, ...]


class Stop(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Free everything and leave. The last order."""


Order = Load | Compute | Offer | Withdraw | Fetch | Stop


class Loaded(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Ready to compute."""

    blocks: int


class Broken(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """This rank cannot go on, and so its engine cannot."""

    error: str


class Offered(msgspec.Struct, frozen=True, tag=True, array_like=True):
    number: int
    shard: Shard


class Fetched(msgspec.Struct, frozen=True, tag=True, array_like=True):
    number: int


class Failed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """An offer or a fetch came to nothing."""

    number: int
    error: str


Answer = Loaded | Broken | Offered | Fetched | Failed
