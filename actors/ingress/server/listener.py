"""The listening sockets, and the connections that came through them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from functools import partial

import structlog

from actors.ingress.server.connection import SURPLUS_S, Connection, Limits
from actors.ingress.server.door import Door, Seldom
from actors.ingress.server.messages import Handler, Request, Response, Trouble

BACKLOG = 4096
SURPLUS = 64
"""Connections beyond the limit that may be open to be told so; who comes then waits for one of them
to end: three times `SURPLUS_S` at most, for its head, its body and its closing, and the time of an
answer if it is a probe's."""
KEEPALIVE_PROBES = 3
"""How often the kernel asks a silent client whether it is still there, in the second half of the
time that it has (`Limits.client_s`)."""
_LOOKS_A_TIMEOUT = 4
"""How often connections are looked at within the shortest time that a client has."""
HANDSHAKE_S = 1.0
"""For TLS with a client that had connected, and was not accepted yet, when listening stopped."""
GOODBYE_S = 2.0
"""How long a client may take to say that it has seen a TLS connection's end."""
_LOOK_EVERY_S = 1.0
"""At the least so often."""

log = structlog.get_logger("http")


class Listener:
    """Takes connections and has their requests answered by `handle`, which must not raise.
    `trouble` makes the answer to a request that never got that far. `screen` is asked of a request
    with a body, before that is read, and of any on a connection beyond the limit: what it returns
    is the answer, and the connection's last.

    At the limit connections are still accepted, told by `screen`, and closed. Left in the kernel's
    queue their clients would hang without a word, probes among them, while the kernel goes on
    giving this process its share of those who could be served by another; and whoever looks after
    the service would see an ingress that does not answer instead of one that says that it is full.
    """

    def __init__(
        self,
        handle: Handler,
        trouble: Callable[[Trouble], Response],
        limits: Limits,
        screen: Callable[[Request], Response | None] = lambda _: None,
    ) -> None:
        self.handle = handle
        self.trouble = trouble
        self.screen = screen
        self.limits = limits
        self.draining = False
        """Connections end with the answer they are at."""
        self._door: Door | None = None
        self._arriving: set[asyncio.Task[bool]] = set()
        self._tls: ssl.SSLContext | None = None
        self._connections: set[Connection] = set()
        """Those that were accepted, TLS spoken or not."""
        self.over_limit = 0
        """How many came while as many were open as may be."""
        self._full = Seldom()
        self._empty = asyncio.Event()
        self._empty.set()
        self._look: asyncio.TimerHandle | None = None

    async def start(
        self, host: str, port: int, *, reuse_port: bool, tls: ssl.SSLContext | None = None
    ) -> int:
        """Listen on every address of the host; returns the port. With `tls` a client has the time
        of a head to finish its handshake. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._tls = tls
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        sockets: list[socket.socket] = []
        try:
            for family, address in dict.fromkeys((one[0], one[4]) for one in found):
                bound = (address[0], port, *address[2:])
                sockets.append(_listening(family, bound, reuse_port, self.limits.client_s))
                port = sockets[0].getsockname()[1]
        except OSError:
            for one in sockets:
                one.close()
            raise
        self._door = Door(sockets, self.enter, self._has_room)
        self._door.open()
        self._look_later()
        return port

    @property
    def listening(self) -> bool:
        return self._door is not None and not self.draining

    async def stop_listening(self) -> None:
        """Take no new connection. Those that are open end with the answer they are at, or come to;
        one without a request is not closed, as its client may be about to send one. Those that
        clients have opened but we have not accepted yet are accepted, as closing the socket alone
        would reset them."""
        self.draining = True
        if self._door is None:
            return
        earlier = self._arriving.copy()
        self._door.take_rest()
        self._door.close()
        # All at once: with TLS each is a conversation.
        if taken := self._arriving - earlier:
            await asyncio.wait(taken)

    async def close(self, patience_s: float) -> None:
        """End everything; what is still being answered may take so long."""
        self.draining = True
        if self._door is not None:
            self._door.close()
        for task in self._arriving:
            task.cancel()
        for connection in tuple(self._connections):
            connection.finish()
        try:
            async with asyncio.timeout(patience_s):
                await self._empty.wait()
        except TimeoutError:
            for connection in tuple(self._connections):
                connection.abort()
            await self._empty.wait()
        if self._look is not None:
            self._look.cancel()

    def enter(self, client: socket.socket) -> None:
        """Serve a connection that was accepted; its socket does not block."""
        connection = Connection(self)
        self._connections.add(connection)
        self._empty.clear()
        loop = asyncio.get_running_loop()
        if self.crowded:
            connection.surplus = True
            self.over_limit += 1
            times = self._full.times(loop.time())
            if times:
                log.warning("connections_full", limit=self.limits.connections, refused=times)
        task = loop.create_task(self._take(client, connection), name="accept")
        self._arriving.add(task)
        task.add_done_callback(partial(self._taken, client, connection))

    # -- from the connections ------------------------------------------------------------------

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()
        if self._door is not None:
            self._door.open()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    @property
    def accept_failures(self) -> int:
        """How often another could not be accepted: for want of a file descriptor, or of memory."""
        return 0 if self._door is None else self._door.failures

    @property
    def crowded(self) -> bool:
        """Whether there are more than may be."""
        return len(self._connections) > self.limits.connections

    # -- the rest ------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        return len(self._connections) < self.limits.connections + SURPLUS

    async def _take(self, client: socket.socket, connection: Connection) -> bool:
        """Give a connection its socket; whether it has got it."""
        handshake_s = HANDSHAKE_S if self.draining else self.limits.head_s
        if connection.surplus:
            handshake_s = min(handshake_s, SURPLUS_S)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                client,
                ssl=self._tls,
                ssl_handshake_timeout=handshake_s if self._tls else None,
                ssl_shutdown_timeout=GOODBYE_S if self._tls else None,
            )
        except OSError as error:
            # The client has gone, or does not speak TLS; nobody waits for an answer.
            log.debug("client_lost", error=str(error))
            return False
        return True

    def _taken(
        self, client: socket.socket, connection: Connection, task: asyncio.Task[bool]
    ) -> None:
        """`_take` is over. Here and not there, as a task that is cancelled before its first step
        runs none of its code."""
        self._arriving.discard(task)
        taken = False
        try:
            with contextlib.suppress(asyncio.CancelledError):
                taken = task.result()
        finally:
            if not taken:
                connection.abort()
                client.close()
                # uvloop does not, when it has made the connection and is told to give up then.
                connection.connection_lost(None)

    def _look_later(self) -> None:
        shortest_s = min(self.limits.head_s, self.limits.body_s)
        delay_s = min(_LOOK_EVERY_S, shortest_s / _LOOKS_A_TIMEOUT)
        self._look = asyncio.get_running_loop().call_later(delay_s, self._look_around)

    def _look_around(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in tuple(self._connections):
            connection.check(now)
        self._look_later()


def _listening(
    family: int,
    address: tuple[object, ...],
    reuse_port: bool,  # noqa: FBT001 - private
    client_s: float,
) -> socket.socket:
    """What is set here holds for the connections that are accepted, too (Linux)."""
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        half_s = max(1, round(client_s / 2))
        every_s = max(1, half_s // KEEPALIVE_PROBES)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, half_s)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every_s)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        # Also for one that answers, but takes nothing of what waits for it.
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(client_s * 1000))
        one.bind(address)
        one.listen(BACKLOG)
        one.setblocking(False)  # noqa: FBT003 - positional in the standard library
    except OSError:
        one.close()
        raise
    return one
