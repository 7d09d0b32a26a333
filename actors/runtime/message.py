"""What travels: frozen structs, and the ten bytes that go in front of them.

A frame on the wire is

    1 byte    version of the wire format (`WIRE_VERSION`)
    1 byte    flags: bit 0 says that the sender waits for an answer
    8 bytes   incarnation of the addressee, little-endian; 0 for "whichever lives now"
    the rest  the message, MessagePack, as an array whose first item names its type

so a receiver can refuse a stale or foreign frame without decoding it. The version grows when this
or a message changes so that an older receiver would misread it; a field more at a message's end is
no such change. See docs/decisions/0027.
"""

from __future__ import annotations

import struct

import msgspec

from actors.runtime.address import Address
from actors.runtime.errors import (
    UNREADABLE,
    DeliveryError,
    NoSuchActor,
    ProtocolError,
    Refused,
    RemoteError,
    WireVersionError,
)

WIRE_VERSION = 1
_HEADER = struct.Struct("<BBQ")
HEADER_BYTES = _HEADER.size
_WANTS_ANSWER = 1


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of everything an actor can be told. The type's name is its tag on the wire.

    New fields go at the end and have a default: the two ends of an edge may then be of different
    releases.
    """


class Ok(Message, frozen=True):
    """The answer to an ask."""

    value: msgspec.Raw


class Fault(Message, frozen=True):
    """Why there is no answer, or why a tell was not taken."""

    kind: str
    """`refused`, `gone` or `raised`."""
    text: str
    remote_type: str = ""
    traceback: str = ""

    def to_error(self, target: Address) -> DeliveryError:
        """The error the sender gets."""
        match self.kind:
            case "gone":
                return NoSuchActor(target, self.text)
            case "refused":
                return Refused(target, self.text)
            case _:
                return RemoteError(target, self.remote_type, self.text, self.traceback)


class Frame(msgspec.Struct, frozen=True):
    """A frame taken apart, its message not yet decoded."""

    incarnation: int
    wants_answer: bool
    body: memoryview


def encode(message: object, incarnation: int = 0, *, wants_answer: bool = False) -> bytes:
    """One frame for the actor that lives its `incarnation`-th life."""
    flags = _WANTS_ANSWER if wants_answer else 0
    return _HEADER.pack(WIRE_VERSION, flags, incarnation) + msgspec.msgpack.encode(message)


def split(frame: bytes) -> Frame:
    """Take a frame apart. Raises ProtocolError when it is too short, WireVersionError when it is of
    another version."""
    if len(frame) < HEADER_BYTES:
        raise ProtocolError(f"a frame of {len(frame)} bytes is shorter than its header")
    version, flags, incarnation = _HEADER.unpack_from(frame)
    if version != WIRE_VERSION:
        raise WireVersionError(f"wire version {version} is not understood (this is {WIRE_VERSION})")
    return Frame(incarnation, bool(flags & _WANTS_ANSWER), memoryview(frame)[HEADER_BYTES:])


def decode_answer(frame: bytes) -> Ok | Fault:
    """Read what came back for an ask or a tell. Raises ProtocolError."""
    body = split(frame).body
    try:
        return msgspec.msgpack.decode(body, type=Ok | Fault)
    except UNREADABLE as error:
        raise ProtocolError(f"an answer that cannot be read: {error}") from error
