"""What every way of moving blocks can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import NamedTuple

from actors.kv.transfer.cut import BlockShape, Heads
from actors.kv.transfer.ticket import Endpoint, Shard


class Wanted(NamedTuple):
    """What one rank asks another for."""

    shard: Shard
    shape: BlockShape
    """Of the exporter's blocks."""
    heads: Heads
    """Of each block. None of them: only the claim is wanted."""
    skip: int
    """Blocks of the offer that are not wanted, from its first one on."""
    blocks: tuple[int, ...]
    """The numbers of the others, in order."""
    claim: bool
    """Use the offer up, or read what another rank of the same engine has claimed."""


class Source(ABC):
    """Blocks on their way from one rank to another."""

    @abstractmethod
    def read(self, view: memoryview) -> None:
        """The next block's heads, as contiguous bytes. Raises a TransferError."""

    @abstractmethod
    def finish(self) -> None:
        """After the last block. Raises Withdrawn when what was read is worthless."""


class Transport(ABC):
    """One way between pools. Serves the blocks of this process and pulls from others."""

    @property
    @abstractmethod
    def endpoint(self) -> Endpoint:
        """Where others pull from this process."""

    @abstractmethod
    def reaches(self, endpoint: Endpoint) -> bool:
        """Whether `open` could work for this endpoint."""

    @abstractmethod
    def open(self, endpoint: Endpoint, wanted: Wanted) -> AbstractContextManager[Source]:
        """Begin to pull. Blocks the calling thread, as reading does. Raises a TransferError."""

    @abstractmethod
    def close(self) -> None:
        """Serve no longer, and make running pulls fail soon."""
