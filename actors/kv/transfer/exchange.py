"""An engine's one view of handing blocks over: offer mine, fetch others'."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Literal, Protocol

from actors.kv.transfer.cut import BlockShape, Cut, Heads, Part, cuts
from actors.kv.transfer.errors import GeometryMismatch, TransferError, Unreachable
from actors.kv.transfer.memory import BlockMemory, SharedMemory
from actors.kv.transfer.offers import OfferTable
from actors.kv.transfer.shm import ShmTransport
from actors.kv.transfer.tcp import TcpTransport
from actors.kv.transfer.ticket import VERSION, Geometry, Shard, Ticket
from actors.kv.transfer.transport import Source, Transport, Wanted

TransportChoice = Literal["auto", "shm", "tcp"]


class Peers(Protocol):
    """The other ranks of an engine, as their first one sees them."""

    def offer(self, blocks: tuple[int, ...]) -> list[Shard]:
        """Have each offer its share of these blocks. Raises TransferError."""

    def withdraw(self, offers: Sequence[int]) -> None:
        """Have each end its offer, before anything that it is told later."""

    def fetch(self, ticket: Ticket, skip: int, blocks: Sequence[int]) -> Callable[[], None]:
        """Have each fetch its share, with a ticket that is claimed. What is returned waits for
        them, and raises TransferError when one has failed."""


class Alone:
    """The peers of an engine of one rank."""

    def offer(self, blocks: tuple[int, ...]) -> list[Shard]:
        del blocks
        return []

    def withdraw(self, offers: Sequence[int]) -> None:
        """Nobody to tell."""

    def fetch(self, ticket: Ticket, skip: int, blocks: Sequence[int]) -> Callable[[], None]:
        del ticket, skip, blocks
        return lambda: None


class Exchange:
    """Offers and withdraws from one thread; `fetch` may run in others at the same time.

    Of an engine over several ranks each has one, for its own share of the blocks. The first
    rank's, which has `peers`, is the one to use; it has the others do their share.
    """

    def __init__(
        self,
        memory: BlockMemory,
        geometry: Geometry,
        choice: TransportChoice,
        host: str,
        *,
        part: Part = Part(),  # noqa: B008 - it cannot change
        peers: Peers | None = None,
    ) -> None:
        """`host` is the address others reach this process at. Raises OSError when it cannot be
        listened on. Memory that is not shared goes over TCP whatever the choice."""
        self.geometry = geometry
        self.part = part
        self._peers: Peers = Alone() if peers is None else peers
        self._memory = memory
        self._offers = OfferTable()
        self._shape = self._shape_of(part.size)
        self._transports: list[Transport] = []
        if choice in {"auto", "shm"} and isinstance(memory, SharedMemory):
            self._transports.append(ShmTransport(memory, self._offers))
        if choice in {"auto", "tcp"} or not self._transports:
            self._transports.append(TcpTransport(memory, self._shape, self._offers, host))

    @property
    def refusals(self) -> Mapping[str, int]:
        """Pullers that were turned away over TCP, by reason: see `TcpTransport.refusals`."""
        served = (one for one in self._transports if isinstance(one, TcpTransport))
        return next((one.refusals for one in served), {})

    @property
    def block_bytes(self) -> int:
        return self._memory.block_bytes

    def offer(self, blocks: Sequence[int], tokens: int) -> Ticket:
        """Let the blocks be fetched once. They must stay as they are until `withdraw`.

        Raises TooManyOffers, and of a rank that cannot be told a TransferError.
        """
        offered = tuple(blocks)
        mine = self.offer_share(offered)
        try:
            others = self._peers.offer(offered)
        except BaseException:
            self.withdraw_share(mine.offer)
            raise
        return Ticket(VERSION, self.geometry, (mine, *others), offered, tokens)

    def offer_share(self, blocks: tuple[int, ...]) -> Shard:
        """Offer this rank's share alone. Raises TooManyOffers."""
        place, secret = self._offers.offer(blocks)
        return Shard(tuple(transport.endpoint for transport in self._transports), place, secret)

    def withdraw(self, ticket: Ticket) -> None:
        """End an offer of this exchange, fetched or not."""
        mine, *others = (shard.offer for shard in ticket.shards)
        self.withdraw_share(mine)
        self._peers.withdraw(others)

    def withdraw_share(self, offer: int) -> None:
        """End this rank's part in an offer."""
        self._offers.withdraw(offer)

    def check(self, ticket: Ticket) -> None:
        """Raises GeometryMismatch when the ticket's blocks would not fit in this pool."""
        if ticket.geometry != self.geometry:
            raise GeometryMismatch(
                f"the handoff's KV blocks are {ticket.geometry}, this engine's {self.geometry}"
            )
        if len(ticket.blocks) != -(-ticket.tokens // self.geometry.block_tokens):
            raise TransferError(
                f"the handoff names {len(ticket.blocks)} KV blocks for {ticket.tokens} tokens"
            )

    def fetch(self, ticket: Ticket, skip: int, blocks: Sequence[int]) -> None:
        """Use the ticket: copy its blocks, without the first `skip`, to these of this pool.

        Blocks the calling thread. Raises a TransferError; the blocks are zeros then, so that no
        half-written number lives on in them.
        """
        self.check(ticket)
        self._or_zeros(blocks, lambda: self._fetch(ticket, skip, blocks))

    def fetch_share(self, ticket: Ticket, skip: int, blocks: Sequence[int]) -> None:
        """The same for this rank's share alone, after the first rank has claimed the ticket."""
        self._or_zeros(blocks, lambda: self._pull(ticket, skip, blocks, claim=False))

    def close(self) -> None:
        """Serve nothing more and make running fetches fail."""
        for transport in self._transports:
            transport.close()
        self._offers.close()

    def _fetch(self, ticket: Ticket, skip: int, blocks: Sequence[int]) -> None:
        joined: list[Callable[[], None]] = []
        try:
            self._pull(
                ticket,
                skip,
                blocks,
                claim=True,
                claimed=lambda: joined.append(self._peers.fetch(ticket, skip, blocks)),
            )
        finally:
            # Also after a failure of ours: until they are done, the blocks are in use.
            for wait in joined:
                wait()

    def _pull(
        self,
        ticket: Ticket,
        skip: int,
        blocks: Sequence[int],
        *,
        claim: bool,
        claimed: Callable[[], None] = lambda: None,
    ) -> None:
        """Copy this rank's heads. One that claims does so with every rank of the exporter."""
        shape = self._shape_of(len(ticket.shards))
        wanted = {cut.shard: cut for cut in self._cuts(ticket)}
        with ExitStack() as opened:
            sources: list[tuple[Source, Heads]] = []
            for number, shard in enumerate(ticket.shards):
                cut = wanted.get(number)
                if cut is None and not claim:
                    continue
                heads = Heads(0, 0) if cut is None else cut.source
                needed = ticket.blocks[skip:]
                asked = Wanted(shard, shape, heads, skip, needed, claim)
                source = opened.enter_context(self._open(shard, asked))
                if cut is None:
                    source.finish()
                else:
                    sources.append((source, cut.target))
            claimed()
            for block in blocks:
                with self._memory.write(block) as view:
                    self._read(sources, view)
            for source, _ in sources:
                source.finish()

    def _read(self, sources: list[tuple[Source, Heads]], view: memoryview) -> None:
        for source, heads in sources:
            if self._shape.is_whole(heads):
                source.read(view)
            else:
                share = memoryview(bytearray(self._shape.part_bytes(heads)))
                source.read(share)
                self._shape.put(view, heads, share)

    def _open(self, shard: Shard, wanted: Wanted) -> AbstractContextManager[Source]:
        for endpoint in shard.endpoints:
            for transport in self._transports:
                if transport.reaches(endpoint):
                    return transport.open(endpoint, wanted)
        raise Unreachable("there is no way from this engine to the one that holds the KV blocks")

    def _cuts(self, ticket: Ticket) -> list[Cut]:
        return list(cuts(self.geometry.kv_heads, len(ticket.shards), self.part))

    def _shape_of(self, ranks: int) -> BlockShape:
        """Of a block on one rank of an engine of this geometry."""
        geometry = self.geometry
        rows = geometry.layers * 2 * geometry.block_tokens
        mine = geometry.kv_heads // self.part.size
        head_bytes = self._memory.block_bytes // (rows * mine)
        return BlockShape(rows, geometry.kv_heads // ranks, head_bytes)

    def _or_zeros(self, blocks: Sequence[int], action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException:
            nothing = bytes(self._memory.block_bytes)
            for block in blocks:
                with self._memory.write(block) as view:
                    view[:] = nothing
            raise
