"""What every way of moving blocks can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from actors.kv.transfer.memory import BlockMemory
from actors.kv.transfer.ticket import Endpoint, Ticket


class Transport(ABC):
    """One way between pools. Serves the blocks of this process and pulls from others."""

    @property
    @abstractmethod
    def endpoint(self) -> Endpoint:
        """Where others pull from this process."""

    @abstractmethod
    def reaches(self, endpoint: Endpoint) -> bool:
        """Whether `pull` could work for this endpoint."""

    @abstractmethod
    def pull(
        self,
        ticket: Ticket,
        endpoint: Endpoint,
        skip: int,
        into: BlockMemory,
        blocks: Sequence[int],
    ) -> None:
        """Use the ticket and copy its blocks, without the first `skip`, to `blocks` of `into`.

        Blocks the calling thread. Raises a TransferError, after which the contents of `blocks`
        are undefined. `len(blocks)` is `len(ticket.blocks) - skip`.
        """

    @abstractmethod
    def close(self) -> None:
        """Serve no longer, and make running pulls fail soon."""
