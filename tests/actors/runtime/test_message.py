"""Frames: the ten bytes in front, and the answers behind them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.address import Address
from actors.runtime.errors import DeliveryError, NoSuchActor, ProtocolError, Refused, RemoteError
from actors.runtime.message import (
    HEADER_BYTES,
    WIRE_VERSION,
    Fault,
    Ok,
    decode_answer,
    encode,
    split,
)
from tests.actors.runtime.stage import Note


@given(st.text(), st.integers(0, 2**64 - 1), st.booleans())
def test_split_takes_apart_what_encode_put_together(
    text: str, incarnation: int, wants_answer: bool
) -> None:
    frame = split(encode(Note(text), incarnation, wants_answer=wants_answer))

    assert (frame.incarnation, frame.wants_answer) == (incarnation, wants_answer)
    assert msgspec.msgpack.decode(frame.body, type=Note) == Note(text)


@given(st.binary(max_size=HEADER_BYTES - 1))
def test_a_frame_shorter_than_its_header_is_refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError, match="shorter than its header"):
        split(frame)


@given(st.integers(0, 255).filter(lambda version: version != WIRE_VERSION), st.binary())
def test_a_foreign_version_is_refused_whatever_follows(version: int, rest: bytes) -> None:
    with pytest.raises(ProtocolError, match=f"wire version {version} "):
        split(bytes([version]) + bytes(HEADER_BYTES - 1) + rest)


@given(st.binary(max_size=40))
def test_an_unreadable_answer_is_a_protocol_error_and_nothing_else(body: bytes) -> None:
    try:
        answer = decode_answer(encode(None)[:HEADER_BYTES] + body)
    except ProtocolError:
        return
    assert isinstance(answer, Ok | Fault)


@pytest.mark.parametrize(
    ("kind", "error"), [("gone", NoSuchActor), ("refused", Refused), ("raised", RemoteError)]
)
def test_a_fault_becomes_the_error_of_its_kind(kind: str, error: type[DeliveryError]) -> None:
    target = Address("echo", 0, 7)

    raised = Fault(kind, "because", "KeyError", "lines").to_error(target)

    assert type(raised) is error
    assert raised.target == target
    assert "because" in str(raised)


def test_a_remote_error_carries_type_and_traceback() -> None:
    error = Fault("raised", "'x'", "KeyError", "Traceback: ...").to_error(Address("echo"))

    assert isinstance(error, RemoteError)
    assert (error.remote_type, error.remote_traceback) == ("KeyError", "Traceback: ...")
