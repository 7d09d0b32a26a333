"""Buckets in the real NATS, also when that fails; and those of one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from actors.runtime.transport.base import Transport
from actors.runtime.transport.buckets import BucketLimits, BucketUnavailable, ValueTooLong
from actors.runtime.transport.local import LocalBus, LocalTransport
from actors.runtime.transport.nats import NatsTransport
from tests.plane import Plane

pytestmark = pytest.mark.process
LIMITS = BucketLimits(ttl_s=60.0, total_bytes=200_000, value_bytes=50_000)


@asynccontextmanager
async def connected(plane: Plane, kind: str = "nats") -> AsyncIterator[Transport]:
    transport: Transport = LocalTransport(LocalBus())
    if kind == "nats":
        transport = NatsTransport(plane.nats_settings, "test")
    await transport.start()
    try:
        yield transport
    finally:
        await transport.close()


@pytest.mark.parametrize("kind", ["nats", "local"])
async def test_a_value_is_kept_until_it_is_deleted(plane: Plane, kind: str) -> None:
    async with connected(plane, kind) as transport:
        bucket = transport.bucket(f"kept-{kind}", LIMITS)
        await bucket.put("a", b"1")
        await bucket.put("a", b"2")
        again = transport.bucket(f"kept-{kind}", LIMITS)

        assert await again.get("a") == b"2"
        assert await again.get("b") is None
        await again.delete("a")
        await again.delete("a")
        assert await bucket.get("a") is None


@pytest.mark.parametrize("kind", ["nats", "local"])
async def test_what_is_too_long_is_refused_and_the_oldest_goes(plane: Plane, kind: str) -> None:
    async with connected(plane, kind) as transport:
        bucket = transport.bucket(f"full-{kind}", LIMITS)
        with pytest.raises(ValueTooLong):
            await bucket.put("a", b"x" * 50_001)
        for number in range(6):
            await bucket.put(str(number), b"x" * 45_000)

        assert await bucket.get("0") is None
        assert await bucket.get("5") is not None


@pytest.mark.parametrize("kind", ["nats", "local"])
async def test_a_value_goes_when_its_time_is_over(plane: Plane, kind: str) -> None:
    async with connected(plane, kind) as transport:
        limits = BucketLimits(ttl_s=0.5, total_bytes=1000, value_bytes=1000)
        bucket = transport.bucket(f"short-{kind}", limits)
        await bucket.put("a", b"1")

        async with asyncio.timeout(15):
            while await bucket.get("a") is not None:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.05)


async def test_the_limits_of_the_latest_comer_hold(plane: Plane) -> None:
    async with connected(plane) as transport:
        await transport.bucket("changed", LIMITS).put("a", b"1")
        shorter = BucketLimits(ttl_s=30.0, total_bytes=100_000, value_bytes=1000)

        assert await transport.bucket("changed", shorter).get("a") == b"1"


async def test_a_killed_server_has_lost_nothing_when_it_is_back(plane: Plane) -> None:
    async with connected(plane) as transport:
        bucket = transport.bucket("lasting", LIMITS)
        await bucket.put("a", b"1")
        with plane.nats.killed():
            waiting = asyncio.create_task(bucket.get("a"))
            await asyncio.sleep(0)

        assert await waiting == b"1"
        await bucket.put("b", b"2")
        assert await bucket.get("b") == b"2"


async def test_a_server_that_stays_away_is_an_error(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.runtime.transport.jetstream.PATIENCE_S", 0.3)
    async with connected(plane) as transport:
        bucket = transport.bucket("away", LIMITS)
        await bucket.put("a", b"1")
        with plane.nats.killed(), pytest.raises(BucketUnavailable):
            await bucket.get("a")
