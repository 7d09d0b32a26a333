"""NATS's protocol, cut into whatever pieces the socket gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.transport.nats_wire import (
    LINE_LIMIT_BYTES,
    NO_RESPONDERS,
    BadWire,
    Reader,
    publication,
)

Heard = list[tuple[object, ...]]


def reader() -> tuple[Reader, Heard]:
    """A reader, and what it calls back with."""
    heard: Heard = []
    return Reader(lambda *message: heard.append(message), lambda *line: heard.append(line)), heard


STREAM = (
    b'INFO {"max_payload":7}\r\n'
    b"MSG a.b 1 5\r\nhello\r\n"
    b"PING\r\n"
    b"MSG a.b 12 re.ply 2\r\n\r\n\r\n"
    b"MSG c 3 0\r\n\r\n"
    b"HMSG _I.7 4 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    b"HMSG x 5 back 12 15\r\nNATS/1.0\r\n\r\nMSG\r\n"
    b"-ERR 'Stale Connection'\r\n"
    b"+OK\r\n"
)
HEARD: Heard = [
    (b"INFO", b'{"max_payload":7}'),
    (1, b"a.b", b"", b"", b"hello"),
    (b"PING", b""),
    (12, b"a.b", b"re.ply", b"", b"\r\n"),
    (3, b"c", b"", b"", b""),
    (4, b"_I.7", b"", NO_RESPONDERS + b"\r\n\r\n", b""),
    (5, b"x", b"back", b"NATS/1.0\r\n\r\n", b"MSG"),
    (b"-ERR", b"'Stale Connection'"),
    (b"+OK", b""),
]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_everything_is_read_whatever_pieces_it_comes_in(sizes: list[int]) -> None:
    read, heard = reader()
    at, count = 0, 0
    while at < len(STREAM):
        size = sizes[count % len(sizes)]
        read.feed(STREAM[at : at + size])
        at, count = at + size, count + 1

    assert heard == HEARD


def test_a_large_message_in_many_pieces_is_looked_at_once_it_is_whole() -> None:
    read, heard = reader()
    payload = b"x" * 1_000_000
    whole = b"MSG s 1 %d\r\n%b\r\nPONG\r\n" % (len(payload), payload)
    for at in range(0, len(whole), 65_536):
        read.feed(whole[at : at + 65_536])

    assert heard == [(1, b"s", b"", b"", payload), (b"PONG", b"")]


@pytest.mark.parametrize(
    "said", [b"MSG a\r\n", b"MSG a x 3\r\n", b"HMSG a 1 b\r\n", b"y" * (LINE_LIMIT_BYTES + 1)]
)
def test_what_is_no_nats_is_told(said: bytes) -> None:
    read, _ = reader()
    with pytest.raises(BadWire):
        read.feed(said)


def test_a_publication_says_how_long_it_is() -> None:
    assert publication("a.b", "", b"12345") == b"PUB a.b 5\r\n12345\r\n"
    assert publication("a", "re", b"") == b"PUB a re 0\r\n\r\n"
