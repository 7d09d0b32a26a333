from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec
import pytest

from actors.kv.transfer import Exchange, SharedMemory, Ticket, TransferError
from actors.kv.transfer.cut import BlockShape
from actors.kv.transfer.door import HELLO_S, STRANGERS
from actors.kv.transfer.errors import (
    AlreadyUsed,
    BadTicket,
    GeometryMismatch,
    Interrupted,
    NotOffered,
    TooManyOffers,
    Unreachable,
    Withdrawn,
)
from actors.kv.transfer.exchange import TransportChoice
from actors.kv.transfer.offers import OfferTable
from actors.kv.transfer.shm import ShmTransport
from actors.kv.transfer.tcp import TcpTransport
from actors.kv.transfer.ticket import SECRET_BYTES, Endpoint, TcpEndpoint
from tests.actors.kv.transfer.exporter import BLOCK_BYTES, BLOCKS, GEOMETRY, OFFERED, filled

BOTH: list[TransportChoice] = ["shm", "tcp"]


class Exporter:
    """Another process that offers blocks."""

    def __init__(self, choice: TransportChoice) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.actors.kv.transfer.exporter", choice],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.tickets = [Ticket.decode(bytes.fromhex(self._line())) for _ in range(3)]

    def withdraw(self, number: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"withdraw {number}\n")
        self.process.stdin.flush()
        assert self._line() == "done"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def exporter(choice: TransportChoice) -> Iterator[Exporter]:
    running = Exporter(choice)
    try:
        yield running
    finally:
        running.process.communicate()


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    memory = filled(BLOCKS)
    yield memory
    memory.close()


@pytest.fixture
def exchange(memory: SharedMemory) -> Iterator[Exchange]:
    exchange = Exchange(memory, GEOMETRY, "auto", "127.0.0.1")
    yield exchange
    exchange.close()


def by_way_of(ticket: Ticket, *endpoints: Endpoint) -> Ticket:
    """The same ticket, of an exporter of one rank, with these ways to it alone."""
    (shard,) = ticket.shards
    only = msgspec.structs.replace(shard, endpoints=endpoints)
    return msgspec.structs.replace(ticket, shards=(only,))


def contents(memory: SharedMemory) -> list[int]:
    """The byte each block is full of; -1 when it is not one."""
    blocks = [bytes(memory.read(block)) for block in range(BLOCKS)]
    return [block[0] if len(set(block)) == 1 else -1 for block in blocks]


@pytest.mark.process
@pytest.mark.parametrize("choice", BOTH)
def test_blocks_move_between_two_processes(
    choice: TransportChoice, exchange: Exchange, memory: SharedMemory
) -> None:
    with exporter(choice) as other:
        exchange.fetch(other.tickets[0], 0, [0, 1, 3])
        assert contents(memory) == [6, 3, 3, 8, 5, 6, 7, 8]

        exchange.fetch(other.tickets[1], 2, [6])
        assert contents(memory) == [6, 3, 3, 8, 5, 6, 8, 8]

        with pytest.raises(AlreadyUsed):
            exchange.fetch(other.tickets[0], 0, [0, 1, 3])
        assert contents(memory)[:4] == [0, 0, 3, 0]

        other.withdraw(2)
        with pytest.raises(NotOffered):
            exchange.fetch(other.tickets[2], 0, [0, 1, 3])


@pytest.mark.process
@pytest.mark.parametrize("choice", BOTH)
def test_a_killed_exporter_is_an_error_and_leaves_nothing(
    choice: TransportChoice, exchange: Exchange, memory: SharedMemory
) -> None:
    with exporter(choice) as other:
        other.process.send_signal(signal.SIGKILL)
        other.process.wait()

        with pytest.raises(Unreachable):
            exchange.fetch(other.tickets[0], 0, [0, 1, 3])
        assert contents(memory)[:4] == [0, 0, 3, 0]


@pytest.mark.process
def test_another_process_under_the_same_pid_is_not_read(exchange: Exchange) -> None:
    with exporter("shm") as other:
        (endpoint,) = other.tickets[0].shards[0].endpoints
        impostor = msgspec.structs.replace(endpoint, started=1)

        with pytest.raises(Unreachable, match="has ended"):
            exchange.fetch(by_way_of(other.tickets[0], impostor), 0, [0, 1, 3])


@pytest.mark.parametrize("choice", BOTH)
def test_blocks_withdrawn_while_they_are_copied_are_not_used(choice: TransportChoice) -> None:
    source, target = filled(BLOCKS), filled(BLOCKS)
    exporting = Exchange(source, GEOMETRY, choice, "127.0.0.1")
    importing = Exchange(target, GEOMETRY, choice, "127.0.0.1")
    ticket = exporting.offer(OFFERED, 11)
    write = target.write

    def write_and_withdraw(block: int) -> object:
        if exporting._offers.blocks(ticket.shards[0].offer):
            exporting.withdraw(ticket)
        return write(block)

    if choice == "shm":
        target.write = write_and_withdraw  # type: ignore[method-assign, assignment]  # an exporter that acts at the worst moment
    else:
        read = source.read

        def read_and_withdraw(block: int) -> memoryview:
            if exporting._offers.blocks(ticket.shards[0].offer):
                exporting.withdraw(ticket)
            return read(block)

        source.read = read_and_withdraw  # type: ignore[method-assign]  # the same

    with pytest.raises(Withdrawn):
        importing.fetch(ticket, 0, [0, 1, 3])

    assert bytes(target.read(0)) == bytes(BLOCK_BYTES)
    for exchange, memory in ((exporting, source), (importing, target)):
        exchange.close()
        memory.close()


def test_one_ticket_is_good_for_one_of_two_ways(exchange: Exchange, memory: SharedMemory) -> None:
    """Shared memory and TCP lead to the same offer."""
    ticket = exchange.offer(OFFERED, 11)
    by_shm, by_tcp = (by_way_of(ticket, endpoint) for endpoint in ticket.shards[0].endpoints)
    exchange.fetch(by_tcp, 0, [0, 1, 3])

    with pytest.raises(AlreadyUsed):
        exchange.fetch(by_shm, 0, [0, 1, 3])


def test_a_stream_that_breaks_off_is_an_error(exchange: Exchange, memory: SharedMemory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def half() -> None:
            stream, _ = listener.accept()
            with stream:
                stream.recv(64)
                stream.sendall(b"\x01" + b"z" * (BLOCK_BYTES + 5))

        thread = threading.Thread(target=half)
        thread.start()
        ticket = by_way_of(
            exchange.offer(OFFERED, 11), TcpEndpoint("127.0.0.1", listener.getsockname()[1])
        )
        with pytest.raises(Interrupted, match="ended early"):
            exchange.fetch(ticket, 0, [0, 1, 3])
        thread.join()

    assert contents(memory)[:4] == [0, 0, 3, 0]


def port_of(exchange: Exchange) -> tuple[str, int]:
    endpoint = exchange.offer(OFFERED, 11).shards[0].endpoints[1]
    assert isinstance(endpoint, TcpEndpoint)
    return endpoint.host, endpoint.port


def test_a_stranger_at_the_port_gets_nothing(exchange: Exchange) -> None:
    with socket.create_connection(port_of(exchange), 5) as stream:
        stream.sendall(b"GET / HTTP/1.1\r\n".ljust(33))
        assert stream.recv(100) == b""
    assert exchange.refusals == {"stranger": 1}


def test_tickets_that_are_wrong_used_or_expired_are_refused_and_counted(
    exchange: Exchange, memory: SharedMemory
) -> None:
    ticket = exchange.offer(OFFERED, 11)
    by_tcp = by_way_of(ticket, ticket.shards[0].endpoints[1])
    shard = by_tcp.shards[0]
    for wrong in (
        bytes(SECRET_BYTES),
        b"\xff" * SECRET_BYTES,
        shard.secret[:-1] + bytes([shard.secret[-1] ^ 1]),
    ):
        forged = msgspec.structs.replace(shard, secret=wrong)
        with pytest.raises(NotOffered):
            exchange.fetch(msgspec.structs.replace(by_tcp, shards=(forged,)), 0, [0, 1, 3])
    elsewhere = msgspec.structs.replace(shard, offer=4_000_000_000)
    with pytest.raises(NotOffered):
        exchange.fetch(msgspec.structs.replace(by_tcp, shards=(elsewhere,)), 0, [0, 1, 3])
    assert exchange.refusals == {"not_offered": 4}

    # None of that has used it up.
    exchange.fetch(by_tcp, 0, [0, 1, 3])
    with pytest.raises(AlreadyUsed):
        exchange.fetch(by_tcp, 0, [0, 1, 3])
    exchange.withdraw(ticket)
    with pytest.raises(NotOffered):
        exchange.fetch(by_tcp, 0, [0, 1, 3])
    assert exchange.refusals == {"not_offered": 5, "used": 1}


def test_strangers_who_say_nothing_keep_no_puller_out(
    exchange: Exchange, memory: SharedMemory
) -> None:
    at = port_of(exchange)
    with ExitStack() as opened:
        silent = [opened.enter_context(socket.create_connection(at, 5)) for _ in range(STRANGERS)]
        silent[0].sendall(b"ukv")  # drips
        ticket = exchange.offer(OFFERED, 11)
        began = time.monotonic()
        exchange.fetch(by_way_of(ticket, ticket.shards[0].endpoints[1]), 0, [0, 1, 3])
        assert time.monotonic() - began < HELLO_S, "it did not wait for them to be sent away"

        # The one that had waited longest made room, and the others' time runs out.
        assert [stream.recv(1) for stream in silent] == [b""] * STRANGERS
        assert time.monotonic() - began >= HELLO_S / 2
    assert exchange.refusals == {"crowded": 1, "slow": STRANGERS - 1}


def test_closing_makes_a_running_fetch_fail(memory: SharedMemory) -> None:
    exchange = Exchange(memory, GEOMETRY, "tcp", "127.0.0.1")
    failures: list[TransferError] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = by_way_of(
            exchange.offer(OFFERED, 11), TcpEndpoint("127.0.0.1", listener.getsockname()[1])
        )

        def fetch() -> None:
            try:
                exchange.fetch(silent, 0, [0, 1, 3])
            except TransferError as failure:
                failures.append(failure)

        thread = threading.Thread(target=fetch)
        thread.start()
        stream, _ = listener.accept()
        with stream:
            stream.recv(64)  # the fetch now waits for an answer
            exchange.close()
            thread.join()

    assert isinstance(failures[0], Interrupted)


def test_tickets_of_another_kind_are_refused(exchange: Exchange) -> None:
    ticket = exchange.offer(OFFERED, 11)
    with pytest.raises(GeometryMismatch):
        exchange.check(
            msgspec.structs.replace(
                ticket, geometry=msgspec.structs.replace(GEOMETRY, dtype="bfloat16")
            )
        )
    with pytest.raises(TransferError, match="3 KV blocks for 17 tokens"):
        exchange.check(msgspec.structs.replace(ticket, tokens=17))
    with pytest.raises(BadTicket, match="version 1"):
        Ticket.decode(msgspec.structs.replace(ticket, version=1).encode())
    bare = (msgspec.structs.replace(ticket.shards[0], secret=b""),)
    with pytest.raises(BadTicket, match="secret"):
        Ticket.decode(msgspec.structs.replace(ticket, shards=bare).encode())
    with pytest.raises(BadTicket, match="2 heads among 3 ranks"):
        Ticket.decode(msgspec.structs.replace(ticket, shards=ticket.shards * 3).encode())
    with pytest.raises(BadTicket, match="cannot be read"):
        Ticket.decode(b"nonsense")
    with pytest.raises(Unreachable):
        exchange.fetch(by_way_of(ticket), 0, [0, 1, 3])


def test_offers_are_bounded_and_their_places_used_again() -> None:
    table = OfferTable(places=2)
    first, _ = table.offer((1,))
    table.offer((2,))
    with pytest.raises(TooManyOffers, match="2 handoffs"):
        table.offer((3,))

    table.withdraw(first)

    assert table.offer((3,))[0] == first
    table.close()


def test_both_ways_are_one_interface(memory: SharedMemory) -> None:
    table = OfferTable()
    shape = BlockShape(16, 2, 32)
    ways = [ShmTransport(memory, table), TcpTransport(memory, shape, table, "127.0.0.1")]
    for way in ways:
        assert [way.reaches(other.endpoint) for other in ways] == [way is other for other in ways]
    for way in ways:
        way.close()
    table.close()
