"""Resources that run out: file descriptors, space for logs and for etcd's data."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import aetcd
import pytest

from bench.disturb.stage import Stage
from tests.faults.conftest import Hurt, answered, judged, streams
from tests.faults.test_plane import converged, etcd

pytestmark = [pytest.mark.process, pytest.mark.long]

NOTHING = 0
SPARE_FILES = 4
CROWD = 64


@contextmanager
def limited(pid: int, which: int, limit: int) -> Iterator[None]:
    """A running process may use no more than so much, for the duration."""
    before = resource.prlimit(pid, which)
    resource.prlimit(pid, which, (limit, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, which, before)


def test_no_stream_suffers_when_no_log_can_be_written(hurt: Hurt) -> None:
    async def no_space(service: Stage) -> list[str]:
        nodes = [name for name in service.children() if name[-1].isdecimal()]
        with ExitStack() as limits:
            for name in nodes:
                limits.enter_context(limited(service.pid(name), resource.RLIMIT_FSIZE, NOTHING))
            made = await streams(service, 8)
            # Something that everybody has a line to log about.
            os.kill(service.pid("nats"), signal.SIGKILL)
            wrong = await judged(made)
        await service.at_rest()
        after = await answered(service)
        return wrong + ([after] if after else [])

    before = {name: child.pid for name, child in hurt.service.children().items()}

    assert hurt.do(no_space(hurt.service)) == []

    now = {name: child.pid for name, child in hurt.service.children().items()}
    assert [name for name in now if now[name] != before[name]] == ["nats"]


def test_streams_go_on_and_new_clients_come_later_when_an_ingress_is_out_of_files(
    hurt: Hurt,
) -> None:
    async def no_files(service: Stage) -> list[str]:
        made = await streams(service, 8)
        pids = [service.pid(name) for name in service.names("ingress")]
        crowd: list[asyncio.StreamWriter] = []
        with ExitStack() as limits:
            for pid in pids:
                most = _highest(pid) + SPARE_FILES
                limits.enter_context(limited(pid, resource.RLIMIT_NOFILE, most))
            for _ in range(CROWD):
                _, writer = await asyncio.open_connection(*service.address)
                crowd.append(writer)
            wrong = await judged(made)
            full = [
                pid
                for pid in pids
                if _highest(pid) + 1 >= resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
            ]
            for writer in crowd:
                writer.transport.abort()
        after = await answered(service)
        await service.at_rest()
        assert full, "no ingress ran out of files"
        return wrong + ([after] if after else [])

    before = {name: child.pid for name, child in hurt.service.children().items()}

    assert hurt.do(no_files(hurt.service)) == []

    assert {name: child.pid for name, child in hurt.service.children().items()} == before


def test_an_etcd_that_can_write_nothing_is_replaced_and_nobody_notices(hurt: Hurt) -> None:
    async def no_space(service: Stage) -> list[str]:
        made = await streams(service, 8, 200)
        pid = service.pid("etcd")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (NOTHING, resource.RLIM_INFINITY))
        # The first thing that it is asked to write ends it.
        with suppress(aetcd.ClientError, TimeoutError):
            async with asyncio.timeout(5.0), etcd(service) as client:
                await client.put(b"/elsewhere", b"1")
        async with asyncio.timeout(60.0):
            while service.pid("etcd") == pid:  # noqa: ASYNC110 - written to a file
                await asyncio.sleep(0.1)
        wrong = await judged(made)
        await converged(service)
        await service.at_rest()
        after = await answered(service)
        return wrong + ([after] if after else [])

    assert hurt.do(no_space(hurt.service)) == []


def _highest(pid: int) -> int:
    return max(int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir())
