"""NATS and etcd hurt in every way that a machine like this can do."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aetcd
import msgspec
import pytest

from actors.runtime.process import NodeSpec
from bench.disturb.stage import Stage
from tests.faults.conftest import Hurt, answered, judged, streams

pytestmark = pytest.mark.process

PREFIX = b"/chaos/mailboxes/"
MAILBOXES = 8
"""Two of each worker, two ingresses, a router and a preprocessor."""
CONVERGE_S = 30.0
LEASE_S = 10.0


@asynccontextmanager
async def etcd(service: Stage) -> AsyncIterator[Any]:
    raw = service.layout.node_spec("router/0").read_bytes()
    url = urlsplit(msgspec.json.decode(raw, type=NodeSpec).etcd.urls[0])
    client = aetcd.Client(host=url.hostname, port=url.port)
    await client.connect()
    try:
        yield client
    finally:
        await client.close()


async def converged(service: Stage) -> None:
    """Return when every mailbox is in the registry again."""
    async with asyncio.timeout(CONVERGE_S):
        while True:
            try:
                async with etcd(service) as client:
                    if len(list((await client.get_prefix(PREFIX)).kvs)) == MAILBOXES:
                        return
            except aetcd.ClientError:
                pass  # it is just coming up
            await asyncio.sleep(0.05)


@asynccontextmanager
async def unattended(service: Stage) -> AsyncIterator[None]:
    """The supervisor is stopped, so that it starts nothing again meanwhile."""
    pid = service.supervisor_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def under_streams(service: Stage, harm: Any, tokens: int = 200) -> list[str]:
    """What streams say that were under way during the harm; the registry is whole after it."""
    made = await streams(service, 8, tokens)
    await harm(service)
    wrong = await judged(made)
    await converged(service)
    await service.at_rest()
    after = await answered(service)
    return wrong + ([after] if after else [])


async def delete_keys(service: Stage) -> None:
    async with etcd(service) as client:
        await client.delete_prefix(PREFIX)


async def revoke_leases(service: Stage) -> None:
    async with etcd(service) as client:
        for lease in {kv.lease for kv in (await client.get_prefix(PREFIX)).kvs}:
            await client.revoke_lease(lease)


async def compact(service: Stage) -> None:
    async with etcd(service) as client:
        for number in range(50):
            await client.put(b"/elsewhere", str(number).encode())
        revision = (await client.get_prefix(PREFIX)).header.revision
        await client.compact(revision, physical=True)
    os.kill(service.pid("etcd"), signal.SIGKILL)


async def lose_data(service: Stage) -> None:
    async with unattended(service):
        os.kill(service.pid("etcd"), signal.SIGKILL)
        for directory in service.base.glob("chaos/etcd*"):
            shutil.rmtree(directory, ignore_errors=True)


async def etcd_away(service: Stage) -> None:
    async with unattended(service):
        os.kill(service.pid("etcd"), signal.SIGKILL)
        await asyncio.sleep(LEASE_S * 1.5)


async def nats_away(service: Stage) -> None:
    async with unattended(service):
        os.kill(service.pid("nats"), signal.SIGKILL)
        await asyncio.sleep(90.0)


async def nats_paused(service: Stage) -> None:
    async with unattended(service):
        pid = service.pid("nats")
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(5.0)
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("harm", [delete_keys, revoke_leases, compact, lose_data])
def test_streams_go_on_and_the_registry_is_mended(hurt: Hurt, harm: Any) -> None:
    assert hurt.do(under_streams(hurt.service, harm)) == []


@pytest.mark.long
@pytest.mark.parametrize("harm", [etcd_away, nats_paused, nats_away])
def test_streams_outlast_a_server_that_is_away_for_long(hurt: Hurt, harm: Any) -> None:
    assert hurt.do(under_streams(hurt.service, harm)) == []


@pytest.mark.long
def test_a_worker_that_slept_past_its_lease_without_a_supervisor_does_no_harm(hurt: Hurt) -> None:
    async def sleep(service: Stage) -> None:
        async with unattended(service):
            pid = service.pid("generation/0")
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(LEASE_S * 1.3)
            os.kill(pid, signal.SIGCONT)

    assert hurt.do(under_streams(hurt.service, sleep, tokens=400)) == []
