"""Context workers hear of fetched blocks soon, and of several at once."""

from __future__ import annotations

import asyncio

import pytest

from actors.messages.key import RequestKey
from actors.messages.work import Fetched
from actors.runtime.address import Address
from actors.worker.receipts import GATHER_S, LINGER_S, Receipts
from bench.virtual_time import run

CONTEXT = Address("context", 0, 1)
INGRESS = Address("ingress", 0, 2)


def receipt(number: int) -> tuple[Address, Fetched]:
    return CONTEXT, Fetched(RequestKey(INGRESS, number, 0))


class Told:
    """Receipts, and what they have told when."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.receipts = Receipts(self.tell, self.loop.time)
        self.heard: list[tuple[float, int]] = []

    def tell(self, context: Address, fetched: Fetched) -> None:
        assert context == CONTEXT
        self.heard.append((self.loop.time(), fetched.key.number))


def test_they_leave_with_the_first_tokens_after_a_gathering() -> None:
    async def test() -> None:
        told = Told()
        told.receipts.add([receipt(1)])
        told.receipts.along()
        await asyncio.sleep(GATHER_S / 2)
        told.receipts.add([receipt(2), receipt(3)])
        told.receipts.along()
        assert told.heard == []

        await asyncio.sleep(GATHER_S / 2)
        told.receipts.along()

        assert told.heard == [(GATHER_S, number) for number in (1, 2, 3)]
        await asyncio.sleep(10.0)
        assert len(told.heard) == 3

    run(test())


def test_they_leave_by_themselves_where_there_are_no_tokens() -> None:
    async def test() -> None:
        told = Told()
        told.receipts.add([])
        await asyncio.sleep(1.0)
        for number in (1, 2):
            told.receipts.add([receipt(number)])
            await asyncio.sleep(10.0)

        assert [number for _, number in told.heard] == [1, 2]
        assert [at % 1.0 for at, _ in told.heard] == pytest.approx([GATHER_S + LINGER_S] * 2)

    run(test())


def test_they_can_be_sent_at_once() -> None:
    async def test() -> None:
        told = Told()
        told.receipts.add([receipt(1)])
        told.receipts.send()
        told.receipts.send()
        await asyncio.sleep(10.0)

        assert told.heard == [(0.0, 1)]

    run(test())
