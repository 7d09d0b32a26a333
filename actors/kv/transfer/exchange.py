"""An engine's one view of handing blocks over: offer mine, fetch others'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from actors.kv.transfer.errors import GeometryMismatch, TransferError, Unreachable
from actors.kv.transfer.memory import BlockMemory, SharedMemory
from actors.kv.transfer.offers import OfferTable
from actors.kv.transfer.shm import ShmTransport
from actors.kv.transfer.tcp import TcpTransport
from actors.kv.transfer.ticket import VERSION, Geometry, Ticket
from actors.kv.transfer.transport import Transport

TransportChoice = Literal["auto", "shm", "tcp"]


class Exchange:
    """Offers and withdraws from one thread; `fetch` may run in others at the same time."""

    def __init__(
        self, memory: BlockMemory, geometry: Geometry, choice: TransportChoice, host: str
    ) -> None:
        """`host` is the address others reach this process at. Raises OSError when it cannot be
        listened on. Memory that is not shared goes over TCP whatever the choice."""
        self.geometry = geometry
        self._memory = memory
        self._offers = OfferTable()
        self._transports: list[Transport] = []
        if choice in {"auto", "shm"} and isinstance(memory, SharedMemory):
            self._transports.append(ShmTransport(memory, self._offers))
        if choice in {"auto", "tcp"} or not self._transports:
            self._transports.append(TcpTransport(memory, self._offers, host))

    def offer(self, blocks: Sequence[int], tokens: int) -> Ticket:
        """Let the blocks be fetched once. They must stay as they are until `withdraw`.

        Raises TooManyOffers.
        """
        offered = tuple(blocks)
        place, secret = self._offers.offer(offered)
        endpoints = tuple(transport.endpoint for transport in self._transports)
        return Ticket(VERSION, self.geometry, endpoints, offered, tokens, place, secret)

    def withdraw(self, ticket: Ticket) -> None:
        """End an offer of this exchange, fetched or not."""
        self._offers.withdraw(ticket.offer)

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
        try:
            self._pull(ticket, skip, blocks)
        except BaseException:
            nothing = bytes(self._memory.block_bytes)
            for block in blocks:
                with self._memory.write(block) as view:
                    view[:] = nothing
            raise

    def close(self) -> None:
        """Serve nothing more and make running fetches fail."""
        for transport in self._transports:
            transport.close()
        self._offers.close()

    def _pull(self, ticket: Ticket, skip: int, blocks: Sequence[int]) -> None:
        self.check(ticket)
        for endpoint in ticket.endpoints:
            for transport in self._transports:
                if transport.reaches(endpoint):
                    transport.pull(ticket, endpoint, skip, self._memory, blocks)
                    return
        raise Unreachable("there is no way from this engine to the one that holds the KV blocks")
