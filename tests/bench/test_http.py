from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.loadgen.http import BadResponse, EventReader, ResponseReader, render_request

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n8;ext=1\r\n, world\n\r\n0\r\nTrailer: x\r\n\r\n"
)
SIZED = b"HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\nConnection: close\r\n\r\nhello, world\n"


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[low:high] for low, high in pairwise(bounds)]


@pytest.mark.parametrize(("data", "status"), [(CHUNKED, 200), (SIZED, 404)])
@given(cuts=st.lists(st.integers(0, 150), max_size=20))
def test_body_is_the_same_however_the_bytes_are_cut(
    data: bytes, status: int, cuts: list[int]
) -> None:
    reader = ResponseReader()
    body = b"".join(reader.feed(piece) for piece in in_pieces(data, cuts))
    assert body == b"hello, world\n"
    assert reader.done
    assert reader.status == status


def test_connection_header_says_whether_it_can_be_used_again() -> None:
    chunked, sized = ResponseReader(), ResponseReader()
    chunked.feed(CHUNKED)
    sized.feed(SIZED)
    assert chunked.keep_alive
    assert not sized.keep_alive


def test_body_without_a_length_ends_with_the_connection() -> None:
    reader = ResponseReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\nhello") == b"hello"
    assert not reader.done
    assert reader.eof()


def test_connection_that_closes_within_a_body_leaves_it_undone() -> None:
    for whole in (CHUNKED, SIZED):
        reader = ResponseReader()
        reader.feed(whole[:-4])
        assert not reader.eof()


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-server\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"x" * 70_000,
    ],
)
def test_other_protocols_are_told_apart(data: bytes) -> None:
    with pytest.raises(BadResponse):
        ResponseReader().feed(data)


@given(cuts=st.lists(st.integers(0, 80), max_size=20), line_end=st.sampled_from([b"\n", b"\r\n"]))
def test_events_are_the_same_however_the_body_is_cut(cuts: list[int], line_end: bytes) -> None:
    body = line_end.join([b": hello", b"", b'data: {"a": 1}', b"", b"data:[DONE]", b"", b""])
    reader = EventReader()
    events = [event for piece in in_pieces(body, cuts) for event in reader.feed(piece)]
    assert events == [b'{"a": 1}', b"[DONE]"]


def test_request_states_its_length_and_key() -> None:
    head, _, body = render_request("h:1", "/v1/x", b"{}", "secret").partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/x HTTP/1.1\r\nHost: h:1\r\n")
    assert b"Content-Length: 2" in head
    assert b"Authorization: Bearer secret" in head
    assert body == b"{}"
