"""Pulling over TCP, block after block, straight from one pool into the other.

    puller   → magic, whether it claims, offer, blocks to skip, first head, heads, secret
    exporter → one status byte; when it is GRANTED, these heads of the blocks in order, then a
               status byte again

The last byte is INTACT when the offer stood until everything was sent: the blocks may have been
withdrawn while they travelled. A rank of the
puller's engine that is not its first does not claim: it reads what the first one has claimed. The
secret goes in clear; like the blocks themselves it is meant
for a network that one trusts.

Threads, not asyncio: the copies would keep a loop busy, and blocking sockets move twice as much
per second. Both sides are bounded: whoever has not said all of its hello waits at the door
(`door.py`); SERVERS connections are served at a time, QUEUED wait for that, one more is closed; a
peer that is silent for SILENCE_S is dropped. Whoever is turned away is counted (`refusals`).
"""

from __future__ import annotations

import enum
import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import NamedTuple

from actors.kv.transfer.cut import BlockShape, Heads
from actors.kv.transfer.door import Door
from actors.kv.transfer.errors import (
    AlreadyUsed,
    Interrupted,
    NotOffered,
    TransferError,
    Unreachable,
    Withdrawn,
)
from actors.kv.transfer.memory import BlockMemory
from actors.kv.transfer.offers import OfferTable, check_claimed, claim, stands
from actors.kv.transfer.ticket import SECRET_BYTES, Endpoint, TcpEndpoint
from actors.kv.transfer.transport import Source, Transport, Wanted

SERVERS = 4
BACKLOG = 128
QUEUED = 256
"""Connections that have said what they want, and wait for a server; none when it is unknown."""
SILENCE_S = 10.0

_HELLO = struct.Struct(f"<4s?IIHH{SECRET_BYTES}s")
_MAGIC = b"ukv2"


class _Status(enum.IntEnum):
    GRANTED = 1
    NOT_OFFERED = 2
    USED = 3
    INTACT = 4
    WITHDRAWN = 5


class TcpTransport(Transport):
    """A listening socket with a few threads behind it, and the puller's side."""

    def __init__(
        self, memory: BlockMemory, shape: BlockShape, offers: OfferTable, host: str
    ) -> None:
        self._memory = memory
        self._shape = shape
        self._offers = offers
        self._sockets = _OpenSockets()
        self._free_places = threading.Semaphore(SERVERS + QUEUED)
        self.refusals: Counter[str] = Counter()
        """Whoever was turned away, by reason: `slow`, `left`, `crowded` (see `door.py`), `stranger`
        (speaks something else), `not_offered` (a wrong ticket, or one that has expired), `used`."""
        self._counting = threading.Lock()
        self._servers = ThreadPoolExecutor(SERVERS, thread_name_prefix="kv-serve")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=BACKLOG)
        self._endpoint = TcpEndpoint(host, self._listener.getsockname()[1])
        self._door = Door(self._listener, _HELLO.size, self._admit, self._refuse)
        self._acceptor = threading.Thread(target=self._door.serve, name="kv-door", daemon=True)
        self._acceptor.start()

    @property
    def endpoint(self) -> TcpEndpoint:
        return self._endpoint

    def reaches(self, endpoint: Endpoint) -> bool:
        return isinstance(endpoint, TcpEndpoint)

    @contextmanager
    def open(self, endpoint: Endpoint, wanted: Wanted) -> Iterator[Source]:
        assert isinstance(endpoint, TcpEndpoint)
        try:
            stream = socket.create_connection((endpoint.host, endpoint.port), SILENCE_S)
        except OSError as error:
            raise Unreachable(
                f"{endpoint.host}:{endpoint.port}, which holds the KV blocks, cannot be reached: "
                f"{error}"
            ) from error
        shard, heads = wanted.shard, wanted.heads
        hello = (wanted.claim, shard.offer, wanted.skip, *heads, shard.secret)
        try:
            with stream, self._sockets.open(stream):
                stream.sendall(_HELLO.pack(_MAGIC, *hello))
                _raise_for(_status(stream))
                yield _TcpSource(stream)
        except OSError as error:
            raise Interrupted(f"the stream of KV blocks broke off: {error}") from error

    def close(self) -> None:
        self._door.close()
        self._sockets.close()
        self._acceptor.join()
        self._servers.shutdown()

    def _refuse(self, reason: str) -> None:
        with self._counting:
            self.refusals[reason] += 1

    def _admit(self, stream: socket.socket, hello: bytes) -> None:
        magic, *wish, secret = _HELLO.unpack(hello)
        if magic != _MAGIC or not self._free_places.acquire(blocking=False):
            self._refuse("stranger" if magic != _MAGIC else "crowded")
            stream.close()
            return
        self._servers.submit(self._serve, stream, _Wish(*wish), secret)

    def _serve(self, stream: socket.socket, wish: _Wish, secret: bytes) -> None:
        # A puller that goes away is its own loss; it sees the connection end.
        try:
            with suppress(OSError, Interrupted), stream, self._sockets.open(stream):
                stream.settimeout(SILENCE_S)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._grant(stream, wish, secret)
        finally:
            self._free_places.release()

    def _grant(self, stream: socket.socket, wish: _Wish, secret: bytes) -> None:
        # A description of its own, as the lock behind `claim` needs.
        table = os.open(f"/proc/self/fd/{self._offers.fd}", os.O_RDWR | os.O_CLOEXEC)
        heads = Heads(wish.first_head, wish.heads)
        try:
            blocks = self._offers.blocks(wish.offer)[wish.skip :]
            try:
                if heads.first + heads.number > self._shape.heads:
                    raise NotOffered  # noqa: TRY301 - one answer for all that is not to be had
                if wish.claim:
                    claim(table, wish.offer, secret)
                else:
                    check_claimed(table, wish.offer, secret)
            except NotOffered:
                self._refuse("not_offered")
                stream.sendall(bytes([_Status.NOT_OFFERED]))
                return
            except AlreadyUsed:
                self._refuse("used")
                stream.sendall(bytes([_Status.USED]))
                return
            stream.sendall(bytes([_Status.GRANTED]))
            for block in blocks if heads.number else ():
                stream.sendall(self._shape.take(self._memory.read(block), heads))
            whole = stands(table, wish.offer, secret)
            stream.sendall(bytes([_Status.INTACT if whole else _Status.WITHDRAWN]))
        finally:
            os.close(table)


class _Wish(NamedTuple):
    """What a puller says, but for its secret."""

    claim: bool
    offer: int
    skip: int
    first_head: int
    heads: int


class _TcpSource(Source):
    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream

    def read(self, view: memoryview) -> None:
        _receive(self._stream, view)

    def finish(self) -> None:
        _raise_for(_status(self._stream))


class _OpenSockets:
    """Streams that another thread may have to wake, by shutting them down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: set[socket.socket] = set()
        self._closed = False

    @contextmanager
    def open(self, stream: socket.socket) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise Interrupted("this engine is closing")
            self._streams.add(stream)
        try:
            yield
        finally:
            with self._lock:
                self._streams.discard(stream)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for stream in self._streams:
                with suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)


def _receive(stream: socket.socket, view: memoryview) -> None:
    while view:
        count = stream.recv_into(view)
        if count == 0:
            raise Interrupted("the stream of KV blocks ended early")
        view = view[count:]


def _status(stream: socket.socket) -> int:
    byte = bytearray(1)
    _receive(stream, memoryview(byte))
    return byte[0]


def _raise_for(status: int) -> None:
    match status:
        case _Status.GRANTED | _Status.INTACT:
            return
        case _Status.NOT_OFFERED:
            raise NotOffered
        case _Status.USED:
            raise AlreadyUsed
        case _Status.WITHDRAWN:
            raise Withdrawn
        case _:
            raise TransferError(f"the exporter answered {status}, which means nothing here")
