"""The local bus: every frame has the fate it was given."""

from __future__ import annotations

import asyncio

import pytest

from actors.runtime.errors import AskTimeout, NoSuchActor
from actors.runtime.transport.local import LocalBus, LocalTransport


class Ear:
    """Collects frames; `until` waits for some number of them."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self._more = asyncio.Event()

    def __call__(self, frame: bytes, _reply: str) -> None:
        self.frames.append(frame)
        self._more.set()

    async def until(self, count: int) -> list[bytes]:
        while len(self.frames) < count:
            self._more.clear()
            await self._more.wait()
        return self.frames


async def connected(bus: LocalBus) -> tuple[LocalTransport, Ear]:
    transport, ear = LocalTransport(bus), Ear()
    await transport.start()
    await transport.subscribe("s", ear)
    return transport, ear


async def test_frames_arrive_in_order() -> None:
    transport, ear = await connected(LocalBus())
    for number in range(5):
        transport.publish("s", bytes([number]))

    assert await ear.until(5) == [bytes([number]) for number in range(5)]
    assert transport.statistics() == (5, 5, 0)


async def test_a_lost_frame_never_arrives() -> None:
    transport, ear = await connected(LocalBus(lambda _, frame: [] if frame == b"1" else [0.0]))
    for number in range(3):
        transport.publish("s", b"%d" % number)

    assert await ear.until(2) == [b"0", b"2"]


async def test_a_doubled_frame_arrives_twice() -> None:
    transport, ear = await connected(LocalBus(lambda *_: [0.0, 0.0]))
    transport.publish("s", b"x")

    assert await ear.until(2) == [b"x", b"x"]


async def test_a_delayed_frame_is_overtaken() -> None:
    transport, ear = await connected(LocalBus(lambda _, frame: [0.01 if frame == b"late" else 0]))
    transport.publish("s", b"late")
    transport.publish("s", b"soon")

    assert await ear.until(2) == [b"soon", b"late"]


async def test_a_lost_request_times_out_and_an_unheard_one_fails_at_once() -> None:
    transport, _ = await connected(LocalBus(lambda *_: []))

    with pytest.raises(AskTimeout):
        await transport.request("s", b"x", 0.01)
    with pytest.raises(NoSuchActor):
        await transport.request("nowhere", b"x", 60)


async def test_a_cancelled_subscription_hears_nothing() -> None:
    bus = LocalBus()
    transport, ear = await connected(bus)
    other = Ear()
    subscription = await transport.subscribe("s", other)
    await subscription.cancel()

    transport.publish("s", b"x")
    await ear.until(1)

    assert other.frames == []
    before = transport.health
    await transport.close()
    assert (before, transport.health) == ("connected", "lost")
