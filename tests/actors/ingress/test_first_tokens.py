from __future__ import annotations

import asyncio

import pytest

from actors.ingress.first_tokens import FirstTokens
from actors.runtime.address import Address
from bench.guard import is_whole
from bench.guarding.service import Loop, Service, request, service

WORKER, OTHER = Address("context", 0, 1), Address("context", 1, 2)


def test_of_a_worker_that_has_said_nothing_no_time_is_known() -> None:
    assert FirstTokens().usual_s(WORKER) == 0.0


def test_the_usual_time_is_what_the_latest_took_more_or_less() -> None:
    first = FirstTokens()
    for seconds in (2.0, *[0.1] * 12):
        first.took(WORKER, seconds)

    assert first.usual_s(WORKER) == pytest.approx(0.1, rel=0.7)
    assert first.usual_s(OTHER) == 0.0


def test_one_slow_token_is_not_the_usual_time() -> None:
    first = FirstTokens()
    for seconds in (*[0.1] * 12, 2.0):
        first.took(WORKER, seconds)

    assert 0.1 < first.usual_s(WORKER) < 1.0


def test_a_successor_begins_anew() -> None:
    first = FirstTokens()
    first.took(WORKER, 2.0)
    first.forget(WORKER)

    assert first.usual_s(Address("context", 0, 3)) == 0.0


def test_who_waits_in_a_queue_is_asked_for_only_until_it_is_known_to_be_long() -> None:
    """A context worker's, that has prompts enough for a second, in virtual time."""
    clients, turns = 128, 4

    async def client(running: Service, number: int) -> None:
        with await running.connect() as connection:
            for turn in range(turns):
                prompt = request(turns * number + turn, 1, stream=False)
                await running.exchange(connection, prompt, is_whole)

    async def asked() -> float:
        async with service() as running:
            await asyncio.gather(*(client(running, number) for number in range(clients)))
            return running.ingress.gauges()["asked"]

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert 0 < runner.run(asked()) <= clients
