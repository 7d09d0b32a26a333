"""What an exporter gives to whoever may fetch its blocks."""

from __future__ import annotations

import msgspec

from actors.kv.transfer.errors import BadTicket

VERSION = 1
SECRET_BYTES = 16


class Geometry(msgspec.Struct, frozen=True, array_like=True):
    """The shape of a block, [layers, 2, block_tokens, kv_heads, head_dim] of `dtype`. Only pools
    of the same geometry can exchange blocks."""

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


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """The right to fetch these blocks once."""

    version: int
    geometry: Geometry
    endpoints: tuple[Endpoint, ...]
    """Ways to the exporter, the preferred one first."""
    blocks: tuple[int, ...]
    """In the order of the sequence."""
    tokens: int
    """How many tokens' KV the blocks hold; the last block may be partly filled."""
    offer: int
    """The exporter's place for this offer."""
    secret: bytes

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
        if len(ticket.secret) != SECRET_BYTES:
            raise BadTicket("the handoff's ticket has no proper secret")
        return ticket
