from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from actors.runtime.address import Address
from actors.runtime.message import encode
from actors.runtime.node import Departed, departures
from actors.runtime.transport.nats import NatsTransport
from supervisor.departures import Departures
from tests.plane import Plane

pytestmark = pytest.mark.process


@contextlib.asynccontextmanager
async def hearing(plane: Plane, namespace: str) -> AsyncIterator[asyncio.Queue[bytes]]:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    transport = NatsTransport(plane.nats_settings, "hearer")
    await transport.start()
    try:
        await transport.subscribe(departures(namespace), lambda frame, _: heard.put_nowait(frame))
        yield heard
    finally:
        await transport.close()


async def test_a_server_that_starts_after_the_supervisor_hears_of_departures(
    tmp_path: Path,
) -> None:
    plane = Plane(tmp_path)
    impatient = msgspec.structs.replace(plane.nats_settings, connect_timeout_s=0.1)
    told = Departures("late", impatient)
    told.open()
    await asyncio.sleep(0.5)  # for the first try to fail
    address = Address("generation", 0, 7)
    try:
        plane.nats.start()
        async with hearing(plane, "late") as heard, asyncio.timeout(20):
            while heard.empty():
                told.publish([address], "killed")
                await asyncio.sleep(0.1)
            assert heard.get_nowait() == encode(Departed(address, "killed"))
        await told.wait_closed()
    finally:
        plane.nats.kill()
