"""What can go wrong between two pools, one class a cause."""

from __future__ import annotations


class TransferError(Exception):
    """KV blocks could not be handed over. The text is a sentence for a log and a client."""


class BadTicket(TransferError):
    """The ticket cannot be read, or is of another version."""


class GeometryMismatch(TransferError):
    """The blocks of the two pools have different shapes."""


class Unreachable(TransferError):
    """No way from here to the exporter: it has ended, or lives where we cannot go."""


class NotOffered(TransferError):
    """The exporter does not hold these blocks any more, or never did."""

    def __init__(self) -> None:
        super().__init__("the KV blocks are no longer offered: the handoff was dropped or is false")


class AlreadyUsed(TransferError):
    """Somebody has fetched with this ticket before."""

    def __init__(self) -> None:
        super().__init__("the handoff was used before")


class Withdrawn(TransferError):
    """The exporter took the blocks back while they were being copied; the copy is worthless."""

    def __init__(self) -> None:
        super().__init__("the handoff was withdrawn while its KV blocks were being copied")


class Interrupted(TransferError):
    """The stream of blocks ended early."""


class TooManyOffers(TransferError):
    """More handoffs wait to be fetched than the table of offers has places."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} handoffs wait to be fetched already")
