"""Requests that are refused before their body has come, over real sockets."""

from __future__ import annotations

import asyncio

import pytest

from actors.ingress.server import Limits, Request, connection
from tests.actors.ingress.server.site import PATIENCE_S, bodies, exchange, gone, site

BODY = 1_000_000
ROOMY = Limits(body_bytes=BODY, head_s=60.0, body_s=60.0)


def head(path: str = "/b", *fields: str, size: int = BODY) -> bytes:
    lines = (f"POST {path} HTTP/1.1", f"Content-Length: {size}", *fields, "", "")
    return "\r\n".join(lines).encode()


def has_body(request: Request) -> bool:
    return request.has_body


async def test_a_refusal_comes_before_the_body() -> None:
    async with site(ROOMY) as made:
        made.refuse = has_body
        answer = await exchange(made.port, head())
    assert bodies(answer) == [b"refused"]
    assert b"Connection: close" in answer
    assert not made.started.is_set()


@pytest.mark.parametrize("coding", ["Content-Length: 5", "Transfer-Encoding: chunked"])
async def test_only_what_has_a_body_is_screened(coding: str) -> None:
    refused = f"POST /b HTTP/1.1\r\n{coding}\r\n\r\n".encode()
    async with site() as made:
        made.refuse = lambda _: True
        sent = b"GET /a HTTP/1.1\r\n\r\nPOST /c HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
        answer = await exchange(made.port, sent + refused)
    assert bodies(answer) == [b"GET /a? ", b"POST /c? ", b"refused"]


async def test_a_client_that_waits_for_leave_gets_the_refusal_instead() -> None:
    async with site(ROOMY) as made:
        made.refuse = has_body
        answer = await exchange(made.port, head("/b", "Expect: 100-continue"))
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_a_refusal_of_head_has_no_body_to_be_taken_for_an_answer() -> None:
    async with site() as made:
        made.refuse = has_body
        answer = await exchange(made.port, b"HEAD / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
    assert answer.endswith(b"\r\n\r\n")


async def test_what_was_asked_before_is_answered_before_the_refusal() -> None:
    async with site(ROOMY) as made:
        made.gate = asyncio.Event()
        made.refuse = has_body
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            await made.started.wait()
            writer.write(head() + b"a" * BODY)
            await writer.drain()
            made.gate.set()
            assert bodies(await reader.read()) == [b"GET /wait? ", b"refused"]
        await gone(writer)


async def test_a_client_that_goes_is_noticed_also_behind_a_body_that_is_dropped() -> None:
    async with site() as made:
        made.gate = asyncio.Event()
        made.refuse = has_body
        _, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            await made.started.wait()
            writer.write(head())
            for _ in range(10):  # beyond what a body may have
                writer.write(b"a" * (BODY // 10))
                await writer.drain()
            writer.transport.abort()
            await made.cancelled.wait()


async def test_a_client_that_sends_all_before_it_reads_sees_the_refusal() -> None:
    async with site(ROOMY) as made:
        made.refuse = has_body
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        async with asyncio.timeout(PATIENCE_S):
            writer.write(head())
            for _ in range(10):  # it does not fit the sockets' buffers
                writer.write(b"a" * (BODY // 10))
                await writer.drain()
            assert bodies(await reader.read()) == [b"refused"]
        await gone(writer)


async def test_a_refused_client_that_neither_sends_nor_closes_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "LINGER_S", 0.05)
    # How often connections are looked at follows from these.
    async with site(Limits(body_bytes=BODY, head_s=60.0, body_s=0.2)) as made:
        made.refuse = has_body
        _, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(head())
        async with asyncio.timeout(PATIENCE_S):
            await made.until(lambda: made.listener.connections == 1)
            await made.until(lambda: made.listener.connections == 0)
        await gone(writer)


@pytest.mark.parametrize(("most", "body_s"), [(1000, 60.0), (BODY**2, 0.2)], ids=["bytes", "time"])
async def test_a_refused_client_that_sends_without_end_is_cut(
    monkeypatch: pytest.MonkeyPatch, most: int, body_s: float
) -> None:
    monkeypatch.setattr(connection, "LINGER_S", 0.05)
    async with site(Limits(body_bytes=most, head_s=0.2, body_s=body_s)) as made:
        made.refuse = has_body
        _, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(head(size=BODY**2))

        async def send() -> None:
            while True:
                writer.write(b"a" * 10_000)
                await writer.drain()
                await asyncio.sleep(0.001)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send(), PATIENCE_S)
        await gone(writer)
