"""The table of offers: what may be fetched now, readable without asking the exporter.

A place in the table has two fields of 16 bytes.

    secret   written by the exporter only: the secret of the offer, zeros when there is none.
    claim    written by pullers only: the secret of the offer that was last claimed here.

A puller claims an offer, copies its blocks, and then looks whether the secret still stands. The
exporter clears the secret *before* it lets the blocks go, so a secret still in place says that
the copy is whole (the reader's side of a seqlock). Neither ever waits for the other: a puller that
is stopped or killed anywhere in between does no harm to the exporter's steps.

An engine over several ranks claims with one of them; the others then read what is `claimed`.

Two pullers with one ticket are told apart by a lock on the bytes of the place (an open file
description lock, which the kernel drops with its holder); whoever does not get it is too late.

The table is a memfd, read and written through `pread` and `pwrite`, also by its owner.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import secrets
import struct

from actors.kv.transfer.errors import AlreadyUsed, NotOffered, TooManyOffers
from actors.kv.transfer.ticket import SECRET_BYTES

PLACES = 4096
_PLACE_BYTES = 2 * SECRET_BYTES
_NOTHING = bytes(SECRET_BYTES)
_FLOCK = struct.Struct("@hhqqi4x")


class OfferTable:
    """The exporter's side."""

    def __init__(self, places: int = PLACES) -> None:
        self.places = places
        self.fd = os.memfd_create("kv-offers", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, places * _PLACE_BYTES)
        self._free = list(range(places - 1, -1, -1))
        self._blocks: dict[int, tuple[int, ...]] = {}

    def offer(self, blocks: tuple[int, ...]) -> tuple[int, bytes]:
        """Let these blocks be fetched once; their place and secret. Raises TooManyOffers."""
        if not self._free:
            raise TooManyOffers(self.places)
        place = self._free.pop()
        secret = secrets.token_bytes(SECRET_BYTES)
        self._blocks[place] = blocks
        os.pwrite(self.fd, secret, place * _PLACE_BYTES)
        return place, secret

    def withdraw(self, place: int) -> None:
        """End an offer. Only after this may its blocks be reused."""
        os.pwrite(self.fd, _NOTHING, place * _PLACE_BYTES)
        del self._blocks[place]
        self._free.append(place)

    def blocks(self, place: int) -> tuple[int, ...]:
        """What is offered there; nothing when there is no offer. May be called from any thread."""
        return self._blocks.get(place, ())

    def close(self) -> None:
        """Withdraw everything, also for pullers that have the table open."""
        os.pwrite(self.fd, bytes(self.places * _PLACE_BYTES), 0)
        os.close(self.fd)


def claim(table: int, place: int, secret: bytes) -> None:
    """Use an offer up. `table` is a descriptor of its own (not a duplicate) of the table's file.

    Raises NotOffered or AlreadyUsed.
    """
    at = place * _PLACE_BYTES
    if not stands(table, place, secret):
        raise NotOffered
    lock = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, _PLACE_BYTES, 0)
    try:
        fcntl.fcntl(table, fcntl.F_OFD_SETLK, lock)
    except BlockingIOError:
        raise AlreadyUsed from None
    try:
        if hmac.compare_digest(os.pread(table, SECRET_BYTES, at + SECRET_BYTES), secret):
            raise AlreadyUsed
        os.pwrite(table, secret, at + SECRET_BYTES)
    finally:
        unlock = _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, at, _PLACE_BYTES, 0)
        fcntl.fcntl(table, fcntl.F_OFD_SETLK, unlock)


def check_claimed(table: int, place: int, secret: bytes) -> None:
    """Raises NotOffered unless the offer is there, and used by a puller whose secret this is."""
    found = os.pread(table, SECRET_BYTES, place * _PLACE_BYTES + SECRET_BYTES)
    if not (hmac.compare_digest(found, secret) and stands(table, place, secret)):
        raise NotOffered


def stands(table: int, place: int, secret: bytes) -> bool:
    """Whether the offer is still there. Compares in constant time."""
    found = os.pread(table, SECRET_BYTES, place * _PLACE_BYTES)
    return secret != _NOTHING and hmac.compare_digest(found, secret)
