"""Tokens for requests that are over."""

from __future__ import annotations

from actors.ingress.unwanted import KEPT, REPEAT_S, Unwanted
from actors.messages.frame import Chunk
from actors.runtime.address import Address

WORKER = Address("generation", 0, 7)


def test_a_worker_is_told_once_and_again_when_it_goes_on() -> None:
    unwanted = Unwanted()
    chunk = Chunk(1, 0, 3, [4])

    assert unwanted.is_news(WORKER, chunk, 10.0)
    assert not unwanted.is_news(WORKER, chunk, 10.1)
    assert unwanted.is_news(WORKER, chunk, 10.0 + REPEAT_S)
    assert unwanted.is_news(WORKER, Chunk(1, 1, 0, [4]), 10.1), "another attempt"


def test_it_forgets_the_oldest() -> None:
    unwanted = Unwanted()
    for number in range(KEPT + 1):
        unwanted.is_news(WORKER, Chunk(number, 0, 0, [1]), 1.0)

    assert not unwanted.is_news(WORKER, Chunk(KEPT, 0, 0, [1]), 1.0)
    assert unwanted.is_news(WORKER, Chunk(0, 0, 0, [1]), 1.0)
