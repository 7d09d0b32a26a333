"""The HTTP server by itself, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.ingress.server import Limits, Response
from actors.ingress.server.connection import Connection
from tests.actors.ingress.server.site import PATIENCE_S, bodies, exchange, gone, site

LAST = b"GET /last HTTP/1.1\r\nConnection: close\r\n\r\n"
SEVERAL = (
    b"GET /a?x=1 HTTP/1.1\r\nHost: h\r\n\r\n"
    b"POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
    b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n" + LAST
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, len(SEVERAL) - 1), max_size=8))
def test_answers_come_in_order_however_the_requests_are_cut(cuts: list[int]) -> None:
    async def check() -> None:
        edges = [0, *sorted(set(cuts)), len(SEVERAL)]
        pieces = [SEVERAL[a:b] for a, b in itertools.pairwise(edges)]
        async with site() as made:
            answer = await exchange(made.port, *pieces)
        expected = [b"GET /a?x=1 ", b"POST /b? hello", b"POST /c? abcde", b"GET /last? "]
        assert bodies(answer) == expected

    asyncio.run(check())


async def test_many_requests_sent_ahead_are_all_answered() -> None:
    async with site() as made:
        answer = await exchange(made.port, b"GET /x HTTP/1.1\r\n\r\n" * 500 + LAST)
        assert bodies(answer) == [b"GET /x? "] * 500 + [b"GET /last? "]


async def test_http_1_0_is_closed_unless_it_asks_to_be_kept() -> None:
    async with site() as made:
        assert bodies(await exchange(made.port, b"GET /a HTTP/1.0\r\n\r\n")) == [b"GET /a? "]
        kept = b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        answer = await exchange(made.port, kept + b"GET /b HTTP/1.0\r\n\r\n")
        assert bodies(answer) == [b"GET /a? ", b"GET /b? "]
        assert b"Connection: keep-alive" in answer


async def test_a_stream_is_chunked_in_http_1_1_and_ends_with_the_connection_before() -> None:
    async with site() as made:
        answer = await exchange(made.port, b"GET /stream HTTP/1.1\r\n\r\n" + LAST)
        assert b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\nHTTP/1.1 200 OK" in answer
        answer = await exchange(made.port, b"GET /stream HTTP/1.0\r\n\r\n")
        assert answer.endswith(b"\r\n\r\nabcde")


async def test_head_is_answered_without_a_body() -> None:
    async with site() as made:
        answer = await exchange(made.port, b"HEAD /a HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert answer.endswith(b"\r\n\r\n")
        assert b"Content-Length: 9" in answer


async def test_a_client_that_waits_for_leave_to_send_its_body_gets_it() -> None:
    async with site() as made:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        head = b"POST /b HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n"
        writer.write(head + b"Connection: close\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"ok")
            assert bodies(await reader.read()) == [b"POST /b? ok"]
        await gone(writer)


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_an_offer_to_speak_another_protocol_is_passed_over(size: int) -> None:
    sent = b"".join(
        (
            b"POST /a HTTP/1.1\r\nContent-Length: 2\r\n" + OFFER + b"\r\nok",
            b"POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + OFFER,
            b"\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
            b"GET /c HTTP/1.1\r\n" + OFFER + b"\r\n",
            LAST,
        )
    )
    pieces = (sent[at : at + size] for at in range(0, len(sent), size))
    async with site() as made:
        answers = bodies(await exchange(made.port, *pieces))
    assert answers[:3] == [b"POST /a? ok", b"POST /b? ok", b"GET /c? "]


async def test_leave_to_send_a_body_never_stands_within_another_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held_back = asyncio.Event()
    encourage = Connection._encourage

    def watched(connection: Connection) -> None:
        encourage(connection)
        if connection._owes_continue:
            held_back.set()

    monkeypatch.setattr(Connection, "_encourage", watched)
    async with site() as made:
        made.gate = asyncio.Event()
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            await made.started.wait()
            writer.write(b"POST /b HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
            await held_back.wait()
            made.gate.set()
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await reader.readexactly(len(b"GET /wait? "))
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"ok" + LAST)
            assert b"POST /b? ok" in bodies(await reader.read())
        await gone(writer)


async def test_a_client_of_http_1_0_is_sent_no_leave_that_it_could_not_read() -> None:
    asked = b"POST /b HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nok"
    async with site() as made:
        assert (await exchange(made.port, asked)).startswith(b"HTTP/1.1 200 ")


async def test_a_handler_that_fails_within_its_stream_leaves_it_cut_and_says_nothing_more() -> None:
    async with site() as made:
        answer = await exchange(made.port, b"GET /broken HTTP/1.1\r\n\r\n" + LAST)
    assert answer.count(b"HTTP/1.1") <= 1  # what was sent may be lost with the connection
    assert b"0\r\n\r\n" not in answer


@pytest.mark.parametrize(
    ("coding", "packed"),
    [("gzip", gzip.compress(b"hello", mtime=0)), ("deflate", zlib.compress(b"hello"))],
    ids=["gzip", "deflate"],
)
async def test_a_compressed_body_is_unpacked(coding: str, packed: bytes) -> None:
    head = f"POST /b HTTP/1.1\r\nContent-Encoding: {coding}\r\nContent-Length: {len(packed)}\r\n"
    async with site() as made:
        sent = f"{head}Connection: close\r\n\r\n".encode() + packed
        assert bodies(await exchange(made.port, sent)) == [b"POST /b? hello"]


@pytest.mark.parametrize(
    ("coding", "body", "trouble"),
    [
        ("gzip", gzip.compress(b"a" * 1001), b"body_too_large"),
        ("gzip", gzip.compress(b"a" * 10_000_000)[:900], b"body_too_large"),
        ("gzip", gzip.compress(b"hello")[:-3], b"body_unreadable"),
        ("br", b"hello", b"body_unreadable"),
        ("identity", b"a" * 1001, b"body_too_large"),
    ],
    ids=["too large", "bomb", "cut", "unknown", "plain"],
)
async def test_what_a_body_becomes_has_the_same_limit(
    coding: str, body: bytes, trouble: bytes
) -> None:
    head = f"POST /b HTTP/1.1\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n"
    async with site() as made:
        assert bodies(await exchange(made.port, head.encode() + body)) == [trouble]


async def test_what_was_asked_before_a_mistake_is_answered_before_it() -> None:
    async with site() as made:
        answer = await exchange(made.port, b"GET /a HTTP/1.1\r\n\r\nnonsense\r\n\r\n")
        assert bodies(answer) == [b"GET /a? ", b"malformed"]


async def test_a_handler_ends_with_its_client() -> None:
    async with site() as made:
        made.gate = asyncio.Event()
        _, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            await made.started.wait()
            writer.transport.abort()
            await made.cancelled.wait()
            await gone(writer)


async def test_a_slow_head_is_cut_and_a_slow_body_told() -> None:
    async with site(Limits(body_bytes=100, head_s=0.05, body_s=60.0)) as made:
        assert await exchange(made.port, b"GET /a HTT") == b""
    async with site(Limits(body_bytes=100, head_s=60.0, body_s=0.05)) as made:
        answer = await exchange(made.port, b"POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\nab")
        assert bodies(answer) == [b"body_too_slow"]


async def test_a_head_may_be_as_large_as_the_limit_says() -> None:
    async with site(Limits(body_bytes=100, head_s=60.0, body_s=60.0, head_bytes=2000)) as made:
        for size, said in ((1000, b"GET /a? "), (3000, b"head_too_large")):
            head = b"GET /a HTTP/1.1\r\nConnection: close\r\nX: %b\r\n\r\n" % (b"x" * size)
            assert bodies(await exchange(made.port, head)) == [said]


async def test_draining_answers_whoever_is_connected_and_closing_ends_who_is_idle() -> None:
    async with site() as made:
        made.gate = asyncio.Event()
        idle, idle_writer = await asyncio.open_connection("127.0.0.1", made.port)
        late, late_writer = await asyncio.open_connection("127.0.0.1", made.port)
        busy = asyncio.create_task(exchange(made.port, b"GET /wait HTTP/1.1\r\n\r\n"))
        async with asyncio.timeout(PATIENCE_S):
            await made.started.wait()
            await made.listener.stop_listening()
            # Connected before, asking after.
            late_writer.write(b"GET /late HTTP/1.1\r\n\r\n")
            assert bodies(await late.read()) == [b"GET /late? "]
            made.gate.set()
            answer = await busy
            await made.listener.close(PATIENCE_S)
            assert await idle.read() == b""
        assert bodies(answer) == [b"GET /wait? "]
        assert b"Connection: close" in answer
        await gone(idle_writer)
        await gone(late_writer)


async def test_a_line_break_in_a_header_is_never_sent() -> None:
    with pytest.raises(ValueError, match="line break"):
        Response(b"", headers={"X": "a\r\nY: b"}).encode(
            keep_alive=True, http11=True, with_body=True
        )
