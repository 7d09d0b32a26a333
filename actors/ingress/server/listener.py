"""The listening sockets, and the connections that came through them."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable

import structlog

from actors.ingress.server.connection import Connection, Limits
from actors.ingress.server.messages import Handler, Response, Trouble

BACKLOG = 4096
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
    `trouble` makes the answer to a request that never got that far."""

    def __init__(
        self, handle: Handler, trouble: Callable[[Trouble], Response], limits: Limits
    ) -> None:
        self.handle = handle
        self.trouble = trouble
        self.limits = limits
        self.draining = False
        """Connections end with the answer they are at."""
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._tls: ssl.SSLContext | None = None
        self._closed = False
        self._connections: set[Connection] = set()
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
        try:
            for family, address in dict.fromkeys((one[0], one[4]) for one in found):
                bound = (address[0], port, *address[2:])
                self._sockets.append(_listening(family, bound, reuse_port, self.limits.client_s))
                port = self._sockets[0].getsockname()[1]
            for one in self._sockets:
                self._servers.append(
                    await loop.create_server(
                        self._connect,
                        sock=one,
                        backlog=BACKLOG,
                        ssl=tls,
                        ssl_handshake_timeout=self.limits.head_s if tls else None,
                        ssl_shutdown_timeout=GOODBYE_S if tls else None,
                    )
                )
        except OSError:
            self._close_sockets()
            raise
        self._look_later()
        return port

    @property
    def listening(self) -> bool:
        return bool(self._servers)

    async def stop_listening(self) -> None:
        """Take no new connection. Those that are open end with the answer they are at, or come to;
        one without a request is not closed, as its client may be about to send one. Those that
        clients have opened but we have not accepted yet are accepted, as closing the socket alone
        would reset them."""
        self.draining = True
        queues = [socket.socket(fileno=os.dup(one.fileno())) for one in self._sockets]
        self._close_sockets()
        # All at once: with TLS each is a conversation.
        await asyncio.gather(*(self._take(c) for queue in queues for c in _accept_rest(queue)))

    async def close(self, patience_s: float) -> None:
        """End everything; what is still being answered may take so long."""
        self.draining = self._closed = True
        self._close_sockets()
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

    # -- from the connections ------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        if self._closed:  # its handshake took longer than everything else
            connection.abort()
        self._connections.add(connection)
        self._empty.clear()

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    # -- the rest ------------------------------------------------------------------------------

    def _connect(self) -> Connection:
        return Connection(self)

    async def _take(self, connection: socket.socket) -> None:
        """Make a connection of what was accepted by hand."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._connect,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_S if self._tls else None,
                ssl_shutdown_timeout=GOODBYE_S if self._tls else None,
            )
        except OSError as error:
            # The client has gone, or does not speak TLS; nobody waits for an answer.
            log.debug("late_client_lost", error=str(error))

    def _close_sockets(self) -> None:
        for server in self._servers:
            server.close()
        for one in self._sockets:
            one.close()
        self._servers.clear()
        self._sockets.clear()

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
        one.setblocking(False)  # noqa: FBT003 - positional in the standard library
    except OSError:
        one.close()
        raise
    return one


def _accept_rest(queue: socket.socket) -> list[socket.socket]:
    """Everybody who waits to be accepted; then close the queue, with nothing in between."""
    accepted = []
    with queue:
        while True:
            try:
                accepted.append(queue.accept()[0])
            except BlockingIOError:
                return accepted
            except ConnectionAbortedError:
                pass  # the client has gone in the meantime
