"""Connections between clients and the real HTTP server, in memory.

What the server writes arrives at the client a little later and in order; a process that dies has
its connections reset; one that is frozen neither reads nor writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable
from typing import Any

from tests.simulation.loop import Proc, SimLoop

LATENCY_S = (0.00005, 0.0005)


class FakeSocket:
    """What the server looks at of a listening socket. Stands in for its `_listening`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._real: socket.socket | None = None

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

    def fileno(self) -> int:
        """A real listener with nobody waiting: a server that stops looks for late clients there."""
        self._real = socket.socket(socket.AF_UNIX)
        self._real.bind("")
        self._real.listen(1)
        self._real.setblocking(False)
        return self._real.fileno()

    def close(self) -> None:
        if self._real is not None:
            self._real.close()


class SimServer:
    """What `create_server` returns."""

    def __init__(self, streams: Streams, proc: Proc, factory: Callable[[], Any], port: int) -> None:
        self.proc = proc
        self.factory = factory
        self.port = port
        self._streams = streams

    def close(self) -> None:
        self._streams.servers.pop((self.proc, self.port), None)

    async def wait_closed(self) -> None:
        """Closed at once."""


class Streams:
    """All connections. `listen` is what the loop calls for `create_server`."""

    def __init__(self, loop: SimLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.servers: dict[tuple[Proc, int], SimServer] = {}
        self._port = 20_000
        loop.listen = self.listen

    def bind(self, *_arguments: object, **_options: object) -> FakeSocket:
        self._port += 1
        return FakeSocket(self._port)

    def listen(self, proc: Proc, factory: Callable[[], Any], port: int) -> SimServer:
        server = SimServer(self, proc, factory, port)
        self.servers[proc, port] = server
        return server

    def connect(self, proc: Proc, caller: Caller) -> ServerSide | None:
        """A client's connection to a process; None when nobody listens there."""
        if proc.dead:
            return None
        server = next((one for (owner, _), one in self.servers.items() if owner is proc), None)
        if server is None:
            return None
        side = ServerSide(self, server, caller)
        proc.connections.append(side)
        proc.post(side.open)
        return side


class Caller:
    """The client's side of a connection. Override both."""

    def received(self, data: bytes) -> None:
        raise NotImplementedError

    def closed(self) -> None:
        raise NotImplementedError


class ServerSide(asyncio.Transport):
    """The server's transport."""

    def __init__(self, streams: Streams, server: SimServer, caller: Caller) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", server.port)})
        self._streams = streams
        self._loop = streams.loop
        self._proc = server.proc
        self._protocol: Any = None
        self._factory = server.factory
        self._caller = caller
        self._closing = False
        self._clear_out = self._clear_in = 0.0

    def open(self) -> None:
        self._protocol = self._factory()
        self._protocol.connection_made(self)

    # -- used by the client --------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self._to_server(self._feed, data)

    def hang_up(self) -> None:
        """The client closes the connection."""
        self._to_server(self._lost)

    def _to_server(self, act: Callable[..., None], *args: Any) -> None:
        when = max(self._clear_in, self._loop.now + self._latency())
        self._clear_in = when
        self._loop.call_at(when, act, *args, context=self._proc.context)

    def _feed(self, data: bytes) -> None:
        if not self._closing:
            self._protocol.data_received(data)

    def _lost(self) -> None:
        if not self._closing:
            self._closing = True
            self._forget()
            self._protocol.connection_lost(None)

    # -- used by the server --------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if not self._closing and not self._proc.doomed:
            self._to_client(self._caller.received, bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._forget()
            self._to_client(self._caller.closed)
            self._loop.call_soon(self._protocol.connection_lost, None, context=self._proc.context)

    abort = close

    def reset(self) -> None:
        """The process has died."""
        if not self._closing:
            self._closing = True
            self._to_client(self._caller.closed)

    def _to_client(self, act: Callable[..., None], *args: Any) -> None:
        when = max(self._clear_out, self._loop.now + self._latency())
        self._clear_out = when
        self._loop.call_at(when, act, *args, context=self._loop.world.context)

    def _forget(self) -> None:
        with contextlib.suppress(ValueError):
            self._proc.connections.remove(self)

    def _latency(self) -> float:
        return self._streams.rng.uniform(*LATENCY_S)

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered here."""

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def pause_reading(self) -> None:
        """Requests here are small; what has arrived is read."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""

    def is_reading(self) -> bool:
        return True
