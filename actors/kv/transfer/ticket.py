"""What an exporter gives to whoever may fetch its blocks."""

from __future__ import annotations

import msgspec

from actors.kv.transfer.errors import BadTicket

VERSION = 2
SECRET_BYTES = 16


class Geometry(msgspec.Struct, frozen=True, array_like=True):
    """The shape of a block, [layers, 2, block_tokens, kv_heads, head_dim] of `dtype`, with all of
    the model's heads, on however many ranks they are. Only engines of the same geometry can
    exchange blocks."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: str
    block_tokens: int

    @property
    def elements(self) -> int:
        """Numbers in one block."""
        return self.layers * 2 * self.block_tokens * self.kv_heads * self.head_dim


class ShmEndpoint(msgspec.Struct, frozen=True, array_like=True, tag="shm"):
    """Memory of a process on the same host, to be opened through /proc."""

    host: str
    """Names the kernel and the process namespace that `pid` belongs to."""
    pid: int
    started: int
    """Start time of the process, in clock ticks after boot: a pid alone may be reused."""
    blocks_fd: int
    offers_fd: int


class TcpEndpoint(msgspec.Struct, frozen=True, array_like=True, tag="tcp"):
    """A listening socket."""

    host: str
    port: int


Endpoint = ShmEndpoint | TcpEndpoint


class Shard(msgspec.Struct, frozen=True, array_like=True):
    """One rank of the exporter, with its share of the heads of every block."""

    endpoints: tuple[Endpoint, ...]
    """Ways to it, the preferred one first."""
    offer: int
    """Its place for this offer."""
    secret: bytes


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """The right to fetch these blocks once."""

    version: int
    geometry: Geometry
    shards: tuple[Shard, ...]
    """The exporter's ranks, in order: their number divides that of the heads."""
    blocks: tuple[int, ...]
    """In the order of the sequence; the numbers are the same on every rank."""
    tokens: int
    """How many tokens' KV the blocks hold; the last block may be partly filled."""

    def encode(self) -> bytes:
        """MessagePack."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Ticket:
        """Raises BadTicket."""
        try:
            ticket = msgspec.msgpack.decode(data, type=cls)
        except msgspec.DecodeError as error:
            raise BadTicket(f"the handoff's ticket cannot be read: {error}") from error
        if ticket.version != VERSION:
            raise BadTicket(
                f"the handoff's ticket has version {ticket.version}; this engine reads {VERSION}"
            )
        if any(len(shard.secret) != SECRET_BYTES for shard in ticket.shards):
            raise BadTicket("the handoff's ticket has no proper secret")
        if not ticket.shards or ticket.geometry.kv_heads % len(ticket.shards):
            raise BadTicket(
                f"the handoff's ticket divides {ticket.geometry.kv_heads} heads among "
                f"{len(ticket.shards)} ranks"
            )
        return ticket
