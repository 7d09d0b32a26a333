"""A connection between two ranks: length-prefixed messages over TCP, blocking.

A rank that reads here sleeps in the kernel, which is the reason for not using MPI.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import socket
import struct
import threading
from typing import Generic, TypeVar

import msgspec

SECRET_BYTES = 16
LIMIT_BYTES = 64 << 20
"""Of one message: a step's tokens and block numbers, with much room to spare."""
GATHER_S = 60.0
"""From the leader's call to the last rank's connection."""

_LENGTH = struct.Struct("<I")
_HELLO = struct.Struct(f"<I{SECRET_BYTES}s")

In = TypeVar("In")
Out = TypeVar("Out")


class Closed(Exception):
    """The other end has gone."""


class Address(msgspec.Struct, frozen=True, array_like=True):
    """Where a leader can be reached, and the right to."""

    host: str
    port: int
    secret: bytes


class Line(Generic[In, Out]):
    """One end. Read from one thread; any thread may say something."""

    def __init__(self, stream: socket.socket, incoming: object) -> None:
        """`incoming`: the type, perhaps a union, of what the other end says."""
        stream.settimeout(None)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = stream
        self._lock = threading.Lock()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[In] = msgspec.msgpack.Decoder(incoming)

    def say(self, message: Out) -> None:
        """Send it. Raises Closed."""
        data = self._encoder.encode(message)
        try:
            with self._lock:
                self._stream.sendall(_LENGTH.pack(len(data)) + data)
        except OSError as error:
            raise Closed(str(error)) from error

    def hear(self) -> In:
        """The next message; waits for it. Raises Closed."""
        try:
            (length,) = _LENGTH.unpack(_receive(self._stream, _LENGTH.size))
            if length > LIMIT_BYTES:
                raise Closed(f"a message of {length} bytes")
            return self._decoder.decode(_receive(self._stream, length))
        except (OSError, msgspec.DecodeError) as error:
            raise Closed(str(error)) from error

    def close(self) -> None:
        """Also wakes a thread that reads."""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        self._stream.close()


class Gathering:
    """The leader's listening socket, for as long as it takes the others to come."""

    def __init__(self, host: str) -> None:
        """Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        port = self._listener.getsockname()[1]
        self.address = Address(host, port, secrets.token_bytes(SECRET_BYTES))

    def receive(self, ranks: int) -> list[socket.socket]:
        """The connections of ranks 1 to `ranks`, in their order. Raises TimeoutError, OSError."""
        found: dict[int, socket.socket] = {}
        with self._listener:
            self._listener.settimeout(GATHER_S)
            while len(found) < ranks:
                stream, _ = self._listener.accept()
                # Whoever else finds the port cannot hold the gathering up for long.
                stream.settimeout(1.0)
                with contextlib.suppress(OSError, Closed):
                    rank, secret = _HELLO.unpack(_receive(stream, _HELLO.size))
                    if hmac.compare_digest(secret, self.address.secret) and 1 <= rank <= ranks:
                        found[rank] = stream
                        continue
                stream.close()
        return [found[rank] for rank in range(1, ranks + 1)]


def join(address: Address, rank: int) -> socket.socket:
    """A follower's connection to its leader. Raises OSError."""
    stream = socket.create_connection((address.host, address.port), GATHER_S)
    stream.sendall(_HELLO.pack(rank, address.secret))
    return stream


def _receive(stream: socket.socket, count: int) -> bytes:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        received = stream.recv_into(view)
        if received == 0:
            raise Closed("the other end has closed the connection")
        view = view[received:]
    return bytes(data)
