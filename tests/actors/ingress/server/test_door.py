"""How many connections are let in, and what happens to the others."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from structlog.testing import capture_logs

from actors.ingress.server import Limits, connection, listener
from actors.ingress.server.door import RETRY_S, SAY_EVERY_S, Door, Seldom
from tests.actors.ingress.server.site import PATIENCE_S, Site, bodies, exchange, gone, site

TWO = Limits(body_bytes=1000, head_s=60.0, body_s=60.0, connections=2)
GET = b"GET /a HTTP/1.1\r\n\r\n"
LAST = b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n"


class Client:
    """One connection that stays open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self) -> bytes:
        """The body of an answer."""
        async with asyncio.timeout(PATIENCE_S):
            self.writer.write(GET)
            said = await self.reader.readuntil(b"\r\n\r\n")
            size = int(said.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            return await self.reader.readexactly(size)


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        await gone(writer)


@asynccontextmanager
async def crowd(made: Site, size: int) -> AsyncIterator[list[Client]]:
    """So many clients, each of which has been answered."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(made.port)) for _ in range(size)]
        for one in clients:
            assert await one.ask() == b"GET /a? "
        yield clients


async def test_beyond_the_limit_clients_are_told_so_and_nobody_else_notices() -> None:
    async with site(TWO) as made, crowd(made, 2) as (first, second):
        with capture_logs() as logs:
            for _ in range(5):
                answer = await exchange(made.port, GET * 2)
                assert bodies(answer) == [b"refused"]
                assert b"Connection: close" in answer
        assert await first.ask() == await second.ask() == b"GET /a? "
        assert made.listener.over_limit == 5
        # Said once, not each time.
        full = [line for line in logs if line["event"] == "connections_full"]
        assert [line["limit"] for line in full] == [2]


async def test_whoever_comes_when_one_has_ended_is_let_in() -> None:
    async with site(TWO) as made:
        async with crowd(made, 2):
            assert bodies(await exchange(made.port, GET)) == [b"refused"]
        await made.until(lambda: made.listener.connections == 0)
        async with crowd(made, 2):
            pass


async def test_one_that_came_too_early_is_served_if_there_is_room_when_it_asks() -> None:
    async with site(TWO) as made:
        async with crowd(made, 2):
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            await made.until(lambda: made.listener.over_limit == 1)
        await made.until(lambda: made.listener.connections == 1)
        writer.write(GET)
        async with asyncio.timeout(PATIENCE_S):
            assert bodies(await reader.read()) == [b"GET /a? "]
        await gone(writer)


async def test_beyond_the_limit_no_client_may_take_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "SURPLUS_S", 0.05)
    async with site(TWO) as made, crowd(made, 2) as (first, second):
        assert await exchange(made.port, b"GET /a HTT") == b""
        assert await first.ask() == await second.ask() == b"GET /a? "


async def test_a_client_that_came_too_early_may_take_its_time_once_there_is_room() -> None:
    async with site(TWO) as made:
        async with crowd(made, 2):
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            await made.until(lambda: made.listener.over_limit == 1)
        await made.until(lambda: made.listener.connections == 1)
        (early,) = made.listener._connections
        early.check(asyncio.get_running_loop().time() + 2 * connection.SURPLUS_S)
        writer.write(GET)
        async with asyncio.timeout(PATIENCE_S):
            assert bodies(await reader.read()) == [b"GET /a? "]
        await gone(writer)


async def test_beyond_the_limit_a_client_that_is_refused_cannot_stay_by_sending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "SURPLUS_S", 0.3)
    monkeypatch.setattr(listener, "_LOOK_EVERY_S", 0.05)
    roomy = Limits(body_bytes=10**9, head_s=60.0, body_s=60.0, connections=2)
    async with site(roomy) as made, crowd(made, 2):
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(b"POST /a HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            assert bodies(await reader.read()) == [b"refused"]
            while made.listener.connections > 2:
                writer.write(b"a")
                await asyncio.sleep(0.01)  # sooner than it would be cut for its silence
        await gone(writer)


async def test_where_there_is_no_room_even_for_a_refusal_clients_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "SURPLUS", 1)
    async with site(TWO) as made, crowd(made, 2), client(made.port) as third:
        await made.until(lambda: made.listener.connections == 3)
        waiting = [asyncio.create_task(exchange(made.port, GET)) for _ in range(10)]
        assert await third.ask() == b"refused"
        await gone(third.writer)
        async with asyncio.timeout(PATIENCE_S):
            assert [bodies(one) for one in await asyncio.gather(*waiting)] == [[b"refused"]] * 10
        assert made.listener.over_limit == 11


async def test_a_drain_takes_in_who_waits_in_the_queue() -> None:
    async with site(TWO) as made:
        clients = [await asyncio.open_connection("127.0.0.1", made.port) for _ in range(2)]
        await made.listener.stop_listening()
        for reader, writer in clients:
            writer.write(GET)
            async with asyncio.timeout(PATIENCE_S):
                assert bodies(await reader.read()) == [b"GET /a? "]
            await gone(writer)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", made.port)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_the_end_comes_also_right_behind_a_client(
    loop: Callable[[], asyncio.AbstractEventLoop], turns: int
) -> None:
    async def run() -> None:
        async with site() as made:
            client, other = socket.socketpair()
            for one in (client, other):
                one.setblocking(False)
            made.listener.enter(client)
            for _ in range(turns):
                await asyncio.sleep(0)
            async with asyncio.timeout(PATIENCE_S):
                await made.listener.close(0.1)
                assert await asyncio.get_running_loop().sock_recv(other, 100) == b""
            assert made.listener.connections == 0
            assert client.fileno() == -1
            other.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


async def test_a_drain_that_is_broken_off_lets_in_whom_it_has_accepted() -> None:
    async with site() as made:
        with socket.socket() as waiting:
            # In one turn of the loop, or the door would accept it before.
            loop = asyncio.get_running_loop()
            loop.call_soon(waiting.connect, ("127.0.0.1", made.port))
            draining = asyncio.create_task(made.listener.stop_listening())
            await asyncio.sleep(0)
            assert made.listener.connections == 1
            draining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await draining
            reader, writer = await asyncio.open_connection(sock=waiting.dup())
        writer.write(GET)
        async with asyncio.timeout(PATIENCE_S):
            assert bodies(await reader.read()) == [b"GET /a? "]
        await gone(writer)


async def test_an_error_that_stays_is_met_once() -> None:
    entered: list[socket.socket] = []
    deaf = socket.socket()  # it does not listen: EINVAL, each time
    deaf.bind(("127.0.0.1", 0))
    deaf.setblocking(False)
    door = Door([deaf], entered.append, lambda: True)
    with capture_logs() as logs:
        door.take_rest()
    door.close()
    assert (door.failures, entered) == (1, [])
    assert [line["event"] for line in logs] == ["cannot_accept"]


def test_what_is_said_seldom_says_how_often_it_was() -> None:
    seldom = Seldom()
    assert [seldom.times(at) for at in (0.0, 1.0, 2.0)] == [1, 0, 0]
    assert seldom.times(SAY_EVERY_S) == 3
    assert seldom.times(2 * SAY_EVERY_S) == 1


SERVER = """
import asyncio, uvloop
from actors.ingress.server import Limits, Listener, Response

async def handle(request):
    return Response(str(listener.accept_failures).encode())

async def main():
    global listener
    limits = Limits(body_bytes=1000, head_s=60.0, body_s=60.0)
    listener = Listener(handle, lambda trouble: Response(trouble.encode(), 400), limits)
    print(await listener.start("127.0.0.1", 0, reuse_port=False), flush=True)
    await asyncio.Event().wait()

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


def leave_files(pid: int, count: int) -> None:
    """Have a process be able to open so many files more."""
    taken = {int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    limit = next(n for n in itertools.count() if n - sum(fd < n for fd in taken) == count)
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))


@pytest.mark.process
async def test_a_process_out_of_files_serves_who_is_in_and_takes_others_when_it_can() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            port = int(await process.stdout.readuntil())
        # The first request has libraries open files of their own.
        assert bodies(await exchange(port, LAST)) == [b"0"]
        leave_files(process.pid, 3)
        async with contextlib.AsyncExitStack() as stack:
            inside = [await stack.enter_async_context(client(port)) for _ in range(3)]
            for one in inside:
                await one.ask()
            outside = [await stack.enter_async_context(client(port)) for _ in range(5)]
            asking = [asyncio.create_task(one.ask()) for one in outside]
            began = asyncio.get_running_loop().time()
            await asyncio.sleep(3 * RETRY_S)
            failures = int(await inside[0].ask())
            took_s = asyncio.get_running_loop().time() - began
            # It tries again from time to time, and not all the time.
            assert 1 < failures <= took_s / RETRY_S + 2
            assert not any(one.done() for one in asking)
            for one in inside:
                await gone(one.writer)
            async with asyncio.timeout(PATIENCE_S):
                for one, asked in zip(outside, asking, strict=True):
                    await asked
                    await gone(one.writer)
        assert process.returncode is None
    finally:
        process.kill()
        await process.wait()
