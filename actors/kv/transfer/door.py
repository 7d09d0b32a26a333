"""Who may come in: connections are kept at the door until they have said what they want.

A stranger costs one descriptor and a few bytes, and never a thread: STRANGERS wait at a time, each
for HELLO_S at most, however it drips; when one more comes, the one that has waited longest goes.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

HELLO_S = 2.0
"""From connecting to having said everything. A puller says it at once."""
STRANGERS = 64
NO_ROOM_S = 0.05


class _Guest(NamedTuple):
    stream: socket.socket
    until: float
    said: bytearray


class Door:
    """Takes connections in one thread, which calls `serve` until `close`.

    `admit` gets a connection and its hello; `refused` a reason: `slow` (no hello in time), `left`
    (it went before), `crowded` (too many waited).
    """

    def __init__(
        self,
        listener: socket.socket,
        hello_bytes: int,
        admit: Callable[[socket.socket, bytes], None],
        refused: Callable[[str], None],
    ) -> None:
        self._listener = listener
        self._hello_bytes = hello_bytes
        self._admit = admit
        self._refused = refused
        self._guests: dict[int, _Guest] = {}
        """By descriptor, in the order of their coming."""
        self._selector = selectors.DefaultSelector()
        self._waker, self._wake = socket.socketpair()
        listener.settimeout(0)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._waker, selectors.EVENT_READ)

    def close(self) -> None:
        """Have `serve` return, and everybody who waits be gone by then. From any thread."""
        self._wake.close()

    def serve(self) -> None:
        try:
            while True:
                ready = {key.fileobj for key, _ in self._selector.select(self._patience())}
                if self._waker in ready:
                    return
                for guest in [guest for guest in self._guests.values() if guest.stream in ready]:
                    self._hear(guest)
                if self._listener in ready:
                    self._let_in()
                self._send_away()
        finally:
            for guest in tuple(self._guests.values()):
                self._drop(guest)
            self._selector.close()
            self._waker.close()
            self._listener.close()

    def _patience(self) -> float | None:
        first = next(iter(self._guests.values()), None)
        return None if first is None else max(0.0, first.until - time.monotonic())

    def _let_in(self) -> None:
        try:
            stream, _ = self._listener.accept()
        except OSError:
            # It has gone again; or no descriptor is free, which nothing tells the end of.
            time.sleep(NO_ROOM_S)
            return
        stream.settimeout(0)
        if len(self._guests) >= STRANGERS:
            self._turn_away(next(iter(self._guests.values())), "crowded")
        guest = _Guest(stream, time.monotonic() + HELLO_S, bytearray())
        self._guests[stream.fileno()] = guest
        self._selector.register(stream, selectors.EVENT_READ)

    def _hear(self, guest: _Guest) -> None:
        try:
            heard = guest.stream.recv(self._hello_bytes - len(guest.said))
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        if not heard:
            self._turn_away(guest, "left")
            return
        guest.said.extend(heard)
        if len(guest.said) == self._hello_bytes:
            self._forget(guest)
            guest.stream.settimeout(None)
            self._admit(guest.stream, bytes(guest.said))

    def _send_away(self) -> None:
        now = time.monotonic()
        for guest in tuple(self._guests.values()):
            if guest.until > now:
                return
            self._turn_away(guest, "slow")

    def _turn_away(self, guest: _Guest, reason: str) -> None:
        # In this order, so that who sees the connection end finds it counted.
        self._refused(reason)
        self._drop(guest)

    def _drop(self, guest: _Guest) -> None:
        self._forget(guest)
        with suppress(OSError):
            guest.stream.close()

    def _forget(self, guest: _Guest) -> None:
        self._selector.unregister(guest.stream)
        del self._guests[guest.stream.fileno()]
