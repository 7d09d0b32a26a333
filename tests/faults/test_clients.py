"""Clients that leave in crowds, that read hardly anything, and that vanish."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

from bench.disturb.stage import Stage
from bench.disturb.stream import Asked, Stream
from bench.loadgen.http import render_request
from tests.faults.conftest import Hurt, answered, judged, streams

pytestmark = pytest.mark.process

STORM = 300
ROUNDS = 4


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


def test_a_client_that_reads_a_byte_a_second_does_not_slow_the_others(hurt: Hurt) -> None:
    async def compare(service: Stage) -> tuple[float, float, list[str]]:
        def median(made: list[Stream]) -> float:
            gaps = sorted(
                later - earlier
                for one in made
                for earlier, later in zip(one.times, one.times[1:], strict=False)
            )
            return gaps[len(gaps) // 2]

        alone = await streams(service, 8)
        wrong = await judged(alone)
        slow = []
        for number in range(16):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.connect(service.address)
            asked = Asked.random(random.Random(number), 512)
            sock.sendall(render_request("test", "/v1/completions", asked.body))
            slow.append(sock)
        beside = await streams(service, 8)
        for _ in range(2):
            for sock in slow:
                sock.recv(1)
            await asyncio.sleep(0.5)
        wrong += await judged(beside)
        for sock in slow:
            sock.close()
        await service.at_rest()
        return median(alone), median(beside), wrong

    alone_s, beside_s, wrong = hurt.do(compare(hurt.service))

    assert wrong == []
    # A step of the engine takes 15 ms; a wait for a slow client would be seconds.
    assert beside_s < alone_s + 0.05
