"""Clients that leave in crowds, that read hardly anything, and that vanish."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

from bench.disturb.leaks import look
from bench.disturb.stage import Stage
from bench.disturb.stream import Asked, Stream
from bench.loadgen.http import render_request
from tests.faults.conftest import Hurt, answered, judged, streams

pytestmark = pytest.mark.process

STORM = 300
ROUNDS = 4
SLOW = 16
UNSENT_BYTES = 1024 * 1024
SLACK_BYTES = 16 * 1024 * 1024


def test_nothing_is_left_of_a_storm_of_cancelled_requests(hurt: Hurt) -> None:
    async def storm(service: Stage) -> str:
        dice = random.Random(1)
        for _ in range(ROUNDS):
            writers = []
            for _ in range(STORM):
                _, writer = await asyncio.open_connection(*service.address)
                body = Asked.random(dice, 256).body
                writer.write(render_request("test", "/v1/completions", body))
                writers.append(writer)
            await asyncio.sleep(dice.uniform(0.0, 0.5))
            for writer in writers:
                writer.transport.abort()
        await service.at_rest()
        return await answered(service)

    assert hurt.do(storm(hurt.service)) == ""


def test_clients_that_read_a_byte_a_second_cost_little_memory_and_do_not_slow_the_others(
    hurt: Hurt,
) -> None:
    async def compare(service: Stage) -> tuple[float, float, int, list[str]]:
        loop = asyncio.get_running_loop()

        def median(made: list[Stream]) -> float:
            gaps = sorted(
                later - earlier
                for one in made
                for earlier, later in zip(one.times, one.times[1:], strict=False)
            )
            return gaps[len(gaps) // 2]

        async def read_slowly(sock: socket.socket) -> None:
            while True:
                await loop.sock_recv(sock, 1)
                await asyncio.sleep(1.0)

        def memory() -> int:
            held = look(service).by_name
            return sum(held[name].memory_bytes for name in service.names("ingress"))

        alone = await streams(service, 8)
        wrong = await judged(alone)
        before = memory()
        slow, reading = [], []
        for number in range(SLOW):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.connect(service.address)
            asked = Asked.random(random.Random(number), 512)
            sock.sendall(render_request("test", "/v1/completions", asked.body))
            sock.setblocking(False)
            slow.append(sock)
            reading.append(loop.create_task(read_slowly(sock)))
        beside = await streams(service, 8)
        wrong += await judged(beside)
        grown = memory() - before
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        for sock in slow:
            sock.close()
        await service.at_rest()
        return median(alone), median(beside), grown, wrong

    alone_s, beside_s, grown, wrong = hurt.do(compare(hurt.service))

    assert wrong == []
    # A step of the engine takes 15 ms; a wait for a slow client would be seconds.
    assert beside_s < alone_s + 0.05
    # No more than `max_unsent_bytes` each, and what serving anybody costs for the first time.
    assert grown < SLOW * UNSENT_BYTES + SLACK_BYTES
