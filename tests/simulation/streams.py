"""Connections between clients and the real HTTP server, in memory.

What the server writes arrives at the client a little later and in order; a process that dies has
its connections reset; one that is frozen neither reads nor writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.simulation.loop import CURRENT, Proc, SimLoop

LATENCY_S = (0.00005, 0.0005)


class FakeSocket:
    """What the server looks at of a listening socket. Stands in for its `_listening`."""

    def __init__(self, streams: Streams, port: int) -> None:
        self.port = port
        self._streams = streams
        self.proc = CURRENT.get()
        self._queue: deque[ServerSide] = deque()
        self._on_client: Callable[[], object] | None = None
        streams.listening.append(self)

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def reader(self, on_client: Callable[[], object] | None) -> None:
        """Who is told of clients; None: nobody for now."""
        self._on_client = on_client
        for _ in self._queue:
            self.proc.post(self._told)

    def come(self, client: ServerSide) -> None:
        """A client waits to be accepted."""
        self._queue.append(client)
        self.proc.post(self._told)

    def _told(self) -> None:
        if self._on_client is not None and self._queue:
            self._on_client()

    def accept(self) -> tuple[ServerSide, tuple[str, int]]:
        if not self._queue:
            raise BlockingIOError
        return self._queue.popleft(), ("127.0.0.1", 1)

    def close(self) -> None:
        self._streams.listening.remove(self)
        for client in self._queue:
            client.close()


class Streams:
    """All connections."""

    def __init__(self, loop: SimLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.listening: list[FakeSocket] = []
        self._port = 20_000

    def bind(self, *_arguments: object, **_options: object) -> FakeSocket:
        self._port += 1
        return FakeSocket(self, self._port)

    def died(self, proc: Proc) -> None:
        """Nobody listens there any more."""
        self.listening = [one for one in self.listening if one.proc is not proc]

    def connect(self, proc: Proc, caller: Caller) -> ServerSide | None:
        """A client's connection to a process; None when nobody listens there."""
        if proc.dead:
            return None
        listening = next((one for one in self.listening if one.proc is proc), None)
        if listening is None:
            return None
        side = ServerSide(self, proc, listening.port, caller)
        proc.connections.append(side)
        listening.come(side)
        return side


class Caller:
    """The client's side of a connection. Override both."""

    def received(self, data: bytes) -> None:
        raise NotImplementedError

    def closed(self) -> None:
        raise NotImplementedError


class ServerSide(asyncio.Transport):
    """The server's transport."""

    def __init__(self, streams: Streams, proc: Proc, port: int, caller: Caller) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", port)})
        self._streams = streams
        self._loop = streams.loop
        self._proc = proc
        self._protocol: Any = None
        self._early: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        """What came before it was accepted and given its protocol."""
        self._caller = caller
        self._closing = False
        self._clear_out = self._clear_in = 0.0

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""

    def open(self, factory: Callable[[], Any]) -> Any:
        """It has been accepted."""
        self._protocol = factory()
        self._protocol.connection_made(self)
        early, self._early = self._early, []
        for act, arguments in early:
            act(*arguments)
        return self._protocol

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
        if self._protocol is None:
            self._early.append((self._feed, (data,)))
        elif not self._closing:
            self._protocol.data_received(data)

    def _lost(self) -> None:
        if self._protocol is None:
            self._early.append((self._lost, ()))
        elif not self._closing:
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
            if self._protocol is not None:
                lost = self._protocol.connection_lost
                self._loop.call_soon(lost, None, context=self._proc.context)

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
