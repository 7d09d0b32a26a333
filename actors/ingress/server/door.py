"""The door: connections are accepted here, while there is room, and by nobody else.

An event loop's own server cannot be told to stop accepting. When the process is out of file
descriptors, uvloop's closes whoever comes, or, once its spare descriptor is lost, too, tries again
without end: three quarters of a core for nothing. Here clients wait in the kernel's queue instead.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence

import structlog

ACCEPTS = 64
"""In one turn of the loop, when many come; others have their turn in between."""
RETRY_S = 0.5
"""When none can be accepted, as the system has nothing left for another, say; sooner if one
ends."""
SAY_EVERY_S = 5.0
"""The same is not said more often."""
_GONE = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENONET,
    }
)
"""What `accept` says when the client, or its network, has gone in the meantime: accept(2). Not
EPERM: a filter of system calls says that, and of every client to come."""

log = structlog.get_logger("http")


class Seldom:
    """For what would be said a thousand times a second."""

    def __init__(self) -> None:
        self._said_at: float | None = None
        self._times = 0

    def times(self, now: float) -> int:
        """Called each time that it happens: how often since it was last said, or 0 when that was
        just now."""
        self._times += 1
        if self._said_at is not None and now - self._said_at < SAY_EVERY_S:
            return 0
        times, self._times, self._said_at = self._times, 0, now
        return times


class Door:
    """Accepts from sockets that listen, and hands each connection to `enter`."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        enter: Callable[[socket.socket], None],
        has_room: Callable[[], bool],
    ) -> None:
        """`has_room`: whether one more may come in. When that changes, `open` the door again."""
        self._sockets = list(sockets)
        self._enter = enter
        self._has_room = has_room
        self._loop = asyncio.get_running_loop()
        self._is_open = False
        self._batch = 1
        """How many to accept in the next turn: to ask for one in vain costs as much as a turn, and
        with many connections turns are long."""
        self._retry: asyncio.TimerHandle | None = None
        self._failing = Seldom()
        self.failures = 0
        """How often none could be accepted, nearly always as the system had nothing left for it."""

    def open(self) -> None:
        """Accept who comes, and who has come. No matter if it is open, or closed for good."""
        if self._is_open or not self._sockets:
            return
        self._forget_retry()
        self._is_open = True
        for one in self._sockets:
            self._loop.add_reader(one, self._accept_some, one)

    def shut(self) -> None:
        """Leave who comes in the kernel's queue."""
        self._forget_retry()
        if self._is_open:
            self._is_open = False
            for one in self._sockets:
                self._loop.remove_reader(one)

    def close(self) -> None:
        """Shut it for good. Resets who waits in the kernel's queue: see `take_rest`."""
        self.shut()
        for one in self._sockets:
            one.close()
        self._sockets.clear()

    def take_rest(self) -> None:
        """Accept everybody who has come, as far as there is room."""
        for one in self._sockets:
            while self._accept(one):
                pass

    def _accept_some(self, one: socket.socket) -> None:
        for _ in range(self._batch):
            if not self._accept(one):
                self._batch = 1
                return
        self._batch = min(2 * self._batch, ACCEPTS)

    def _accept(self, one: socket.socket) -> bool:
        """Accept who is first in the queue; false when nobody is, or can be for now."""
        if not self._has_room():
            self.shut()
            return False
        try:
            client, _ = one.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _GONE:
                return True
            self._fail(error)
            return False
        client.setblocking(False)  # noqa: FBT003 - positional in the standard library
        self._enter(client)
        return True

    def _fail(self, error: OSError) -> None:
        self.failures += 1
        self.shut()
        self._retry = self._loop.call_later(RETRY_S, self.open)
        times = self._failing.times(self._loop.time())
        if times:
            log.error("cannot_accept", error=error.strerror, times=times, retry_s=RETRY_S)

    def _forget_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
