"""Writing to a socket without the way through the event loop's transport.

A transport keeps what it is given until the end of the loop's turn, and then makes the system call
that could have been made at once. For one small piece per stream and engine step that detour costs
more than all else that the ingress does for a token. While more tokens are waiting to be handled
than can be sent one by one, the pieces of a turn do leave together: see `Writes.behind`. So do
those of an interval, where whoever runs the service prefers fewer writes to each token at once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


class Writes:
    """What all outlets of a server have in common."""

    def __init__(self, interval_s: float = 0.0) -> None:
        """`interval_s`: how long text may wait for more of its stream, to leave with it."""
        self.interval_s = interval_s
        self.behind = False
        """There is more to come in this turn of the loop: hold pieces back until it is over. One
        system call for several of a stream's tokens costs no more than for one."""
        self._holding: list[Outlet] = []

    def hold(self, outlet: Outlet) -> None:
        """Have an outlet flushed in the loop's next turn, or when the interval is over."""
        self._holding.append(outlet)
        if len(self._holding) > 1:
            return
        loop = asyncio.get_running_loop()
        if self.interval_s:
            loop.call_later(self.interval_s, self._flush)
        else:
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        holding, self._holding = self._holding, []
        for outlet in holding:
            outlet.flush()


class Outlet:
    """The short way to a transport's peer, in order with what the transport itself is given. What
    does not fit is left to the transport; errors too, which meets them by itself."""

    __slots__ = (
        "_closing",
        "_free",
        "_held",
        "_number",
        "_on_waiting",
        "_waiting",
        "_write",
        "_writes",
    )

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        writes: Writes,
        on_waiting: Callable[[int], None],
    ) -> None:
        """`on_waiting`: told how many bytes wait for the client to read, when any do. From its
        first piece to its last nobody else writes to the transport."""
        self._writes = writes
        self._on_waiting = on_waiting
        self._number = _descriptor(transport)
        self._write = transport.write
        self._waiting = transport.get_write_buffer_size
        self._closing = transport.is_closing
        self._held: list[bytes] = []
        self._free = False
        """Known: nothing waits in the transport."""

    def write(self, data: bytes) -> None:
        """Send a piece now, or with others of this turn."""
        if self._writes.interval_s:
            self._held.append(data)
            self.flush()
        elif self._held or self._writes.behind:
            self._hold(data)
        else:
            self._send(data)

    def write_text(self, data: bytes) -> None:
        """Send a piece that is nothing but text: as `write`, or with others of this interval."""
        if self._writes.interval_s:
            self._hold(data)
        else:
            self.write(data)

    def _hold(self, data: bytes) -> None:
        if not self._held:
            self._writes.hold(self)
        self._held.append(data)

    def flush(self) -> None:
        """Send what was held back. Due before the transport itself is given anything."""
        held, self._held = self._held, []
        if held:
            self._send(b"".join(held))

    def _send(self, data: bytes, os_write: Callable[[int, bytes], int] = os.write) -> None:
        # A transport that is closing may have closed its descriptor, and it may be another's now.
        if self._closing():
            return
        number = self._number
        if number is None or not (self._free or self._is_free()):
            self._leave(data)
            return
        try:
            sent = os_write(number, data)
        except OSError:
            # It is full; or the client has gone, and the transport, which may not be reading, is to
            # learn of it by writing.
            sent = 0
        if sent != len(data):
            self._free = False
            self._leave(data[sent:])

    def _is_free(self) -> bool:
        self._free = not self._waiting()
        return self._free

    def _leave(self, data: bytes) -> None:
        """To the transport."""
        self._write(data)
        waiting = self._waiting()
        if waiting:
            self._on_waiting(waiting)


def _descriptor(transport: asyncio.WriteTransport) -> int | None:
    """The number of a plain socket; None for whatever must see all that is written, as TLS."""
    if transport.get_extra_info("sslcontext") is not None:
        return None
    plain = transport.get_extra_info("socket")
    return None if plain is None else plain.fileno()
