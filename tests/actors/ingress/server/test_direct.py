"""Writing past the transport: in order, whole, and never to somebody else's socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop

from actors.ingress.server.direct import Outlet, Writes


class Gone(asyncio.Protocol):
    """Notices the end of its connection."""

    def __init__(self) -> None:
        self.noticed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.noticed.set()


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    """A transport, and the socket at its other end, which reads when it is told to."""
    mine, other = socket.socketpair()
    other.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_accepted_socket(Gone, mine)
    try:
        yield transport, other
    finally:
        transport.abort()
        other.close()


async def noticed(transport: asyncio.Transport) -> None:
    """Return when the protocol has been told that the connection is over."""
    gone = transport.get_protocol()
    assert isinstance(gone, Gone)
    await gone.noticed.wait()


async def read_until(other: socket.socket, size: int) -> bytes:
    loop, received = asyncio.get_running_loop(), b""
    async with asyncio.timeout(20):
        while len(received) < size:
            received += await loop.sock_recv(other, 1 << 16)
    return received


def outlet(transport: asyncio.Transport, writes: Writes | None = None) -> Outlet:
    def surprise(waiting: int) -> None:
        pytest.fail(f"{waiting} bytes wait, and nothing should")

    return Outlet(transport, writes or Writes(), surprise)


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop])
def runner(request: pytest.FixtureRequest) -> asyncio.Runner:
    return asyncio.Runner(loop_factory=request.param)


def test_a_piece_is_with_the_client_when_the_call_returns(runner: asyncio.Runner) -> None:
    async def run() -> None:
        async with connected() as (transport, other):
            outlet(transport).write(b"at once")
            assert other.recv(100) == b"at once"

    with runner:
        runner.run(run())


def test_what_the_transport_holds_goes_first_and_nothing_is_lost(runner: asyncio.Runner) -> None:
    pieces = [b"%d;" % number * 500 for number in range(3000)]
    whole = b"".join(pieces)

    async def run() -> None:
        async with connected() as (transport, other):
            waiting: list[int] = []
            out = Outlet(transport, Writes(), waiting.append)
            for piece in pieces[:-1]:
                out.write(piece)
            transport.write(pieces[-1])
            assert waiting == sorted(waiting), "it does not fit: the client has not read"
            assert waiting[0] < waiting[-1] < transport.get_write_buffer_size()
            assert await read_until(other, len(whole)) == whole

    with runner:
        runner.run(run())


def test_behind_a_piece_that_did_not_fit_it_is_direct_again_once_the_transport_is_empty(
    runner: asyncio.Runner,
) -> None:
    async def run() -> None:
        async with connected() as (transport, other):
            waiting: list[int] = []
            out = Outlet(transport, Writes(), waiting.append)
            for mark in (b"a", b"b"):
                large = mark * (1 << 21)
                out.write(b"direct;")
                assert not transport.get_write_buffer_size()
                out.write(large)
                assert transport.get_write_buffer_size() == waiting[-1] > 0
                received = b""
                with contextlib.suppress(BlockingIOError):
                    while True:
                        received += other.recv(1 << 20)
                # It would fit now, and yet has to wait for what the transport holds.
                out.write(b"behind;")
                whole = b"direct;" + large + b"behind;"
                received += await read_until(other, len(whole) - len(received))
                assert received == whole
            out.write(b"at once")
            assert other.recv(100) == b"at once"

    with runner:
        runner.run(run())


def test_nothing_is_written_once_the_transport_is_closing(runner: asyncio.Runner) -> None:
    async def run() -> None:
        async with connected() as (transport, _):
            out = outlet(transport)
            number = transport.get_extra_info("socket").fileno()
            read, pipe = os.pipe()
            os.set_blocking(read, False)
            transport.abort()
            await noticed(transport)
            # Whoever gets the number next must not get the bytes.
            os.dup2(pipe, number)
            try:
                out.write(b"late")
                with pytest.raises(BlockingIOError):
                    os.read(read, 10)
            finally:
                for one in (read, pipe, number):
                    os.close(one)

    with runner:
        runner.run(run())


@pytest.mark.parametrize("paused", [False, True])
def test_a_client_that_has_gone_is_left_to_the_transport(
    runner: asyncio.Runner, *, paused: bool
) -> None:
    async def run() -> None:
        async with connected() as (transport, other):
            out = Outlet(transport, Writes(), lambda _: None)
            if paused:
                transport.pause_reading()
            other.close()
            for _ in range(3):
                out.write(b"nobody reads this")
            async with asyncio.timeout(20):
                await noticed(transport)

    with runner:
        runner.run(run())


def test_while_there_is_more_to_come_pieces_are_held_and_leave_together(
    runner: asyncio.Runner,
) -> None:
    async def run() -> None:
        async with connected() as (transport, other):
            writes = Writes()
            out = outlet(transport, writes)
            writes.behind = True
            out.write(b"1")
            writes.behind = False
            out.write(b"2")
            with pytest.raises(BlockingIOError):
                other.recv(100)
            await asyncio.sleep(0)
            assert other.recv(100) == b"12"
            out.write(b"3")
            assert other.recv(100) == b"3"

    with runner:
        runner.run(run())


def test_what_is_held_can_be_sent_before_its_time(runner: asyncio.Runner) -> None:
    async def run() -> None:
        async with connected() as (transport, other):
            writes = Writes()
            out = outlet(transport, writes)
            writes.behind = True
            out.write(b"1")
            out.flush()
            assert other.recv(100) == b"1"
            await asyncio.sleep(0)
            with pytest.raises(BlockingIOError):
                other.recv(100)

    with runner:
        runner.run(run())


def test_text_waits_for_more_of_its_interval_and_leaves_with_it(runner: asyncio.Runner) -> None:
    async def run() -> None:
        async with connected() as (transport, other):
            out = outlet(transport, Writes(interval_s=0.05))
            out.write(b"head;")
            assert other.recv(100) == b"head;"
            for text in (b"1", b"2", b"3"):
                out.write_text(text)
            with pytest.raises(BlockingIOError):
                other.recv(100)
            assert await read_until(other, 3) == b"123"
            out.write_text(b"4")
            assert await read_until(other, 1) == b"4"

    with runner:
        runner.run(run())


def test_what_is_more_than_text_takes_along_what_waits_before_it(runner: asyncio.Runner) -> None:
    async def run() -> None:
        async with connected() as (transport, other):
            out = outlet(transport, Writes(interval_s=1000.0))
            out.write_text(b"1")
            out.write(b"end")
            assert other.recv(100) == b"1end"
            out.write_text(b"2")
            out.flush()
            assert other.recv(100) == b"2"

    with runner:
        runner.run(run())


def test_without_an_interval_text_is_a_piece_like_any_other(runner: asyncio.Runner) -> None:
    async def run() -> None:
        async with connected() as (transport, other):
            out = outlet(transport)
            out.write_text(b"1")
            assert other.recv(100) == b"1"

    with runner:
        runner.run(run())
