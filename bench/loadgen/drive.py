"""One client process: sends its share of the requests, open or closed loop."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import msgspec
import uvloop

from bench.loadgen.client import Client
from bench.loadgen.measure import Record, Tally
from bench.loadgen.workload import Workload, poisson_times, share

_LAG_PERIOD_S = 0.01
_PROGRESS_EVERY = 20  # lag samples


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What all client processes do together; `index` says which of them this is."""

    workload: Workload
    host: str
    port: int
    api_key: str = ""
    timeout_s: float = 120.0
    requests: int | None = None
    """None: until `duration_s` is over."""
    duration_s: float | None = None
    rate: float | None = None
    """Arrivals a second, over all processes; None for closed loop."""
    concurrency: int = 1
    """Closed loop: requests in flight, over all processes."""
    max_in_flight: int = 4096
    """Open loop: further arrivals wait here, and their latency counts from their arrival."""
    processes: int = 1
    index: int = 0

    @property
    def numbers(self) -> Iterator[int]:
        """The requests of this process."""
        if self.requests is None:
            return itertools.count(self.index, self.processes)
        return iter(range(self.index, self.requests, self.processes))


class Progress(msgspec.Struct, array_like=True, tag="progress"):
    """How far one process is."""

    sent: int
    ended: int
    failed: int


class Ready(msgspec.Struct, array_like=True, tag="ready"):
    """Imports are done; waiting for `Go`."""


class Result(msgspec.Struct, array_like=True, tag="result"):
    """The last message of a process."""

    tally: Tally


class Go(msgspec.Struct, array_like=True, tag="go"):
    """Begin at this time of the monotonic clock, which all processes of a host share."""

    began: float


FromClient = Progress | Ready | Result


class Driver:
    """Sends the requests of one plan."""

    def __init__(self, plan: Plan, began: float) -> None:
        self.progress = Progress(0, 0, 0)
        self._plan = plan
        self._began = began
        self._client = Client(plan.host, plan.port, api_key=plan.api_key, timeout_s=plan.timeout_s)

    @property
    def tally(self) -> Tally:
        """What was seen so far."""
        return self._client.tally

    async def run(self) -> None:
        """Until every request has ended. To stop early, cancel it."""
        plan = self._plan
        await asyncio.sleep(max(0.0, self._began - time.monotonic()))
        try:
            async with asyncio.TaskGroup() as group:
                if plan.rate is not None:
                    await self._send_open(group, plan.rate)
                    return
                numbers = plan.numbers
                for _ in range(share(plan.concurrency, plan.processes, plan.index)):
                    group.create_task(self._send_closed(numbers))
        finally:
            self._client.close()

    async def _send_closed(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            due_s = time.monotonic() - self._began
            if self._over(due_s):
                return
            await self._send(number, due_s)

    async def _send_open(self, group: asyncio.TaskGroup, rate: float) -> None:
        plan = self._plan
        room = asyncio.Semaphore(max(1, share(plan.max_in_flight, plan.processes, plan.index)))
        times = poisson_times(rate / plan.processes, f"{plan.workload.seed}/{plan.index}")
        for number, due_s in zip(plan.numbers, times, strict=False):
            if self._over(due_s):
                return
            await asyncio.sleep(self._began + due_s - time.monotonic())
            await room.acquire()
            sending = group.create_task(self._send(number, due_s))
            sending.add_done_callback(lambda _: room.release())

    def _over(self, at_s: float) -> bool:
        return self._plan.duration_s is not None and at_s >= self._plan.duration_s

    async def _send(self, number: int, due_s: float) -> None:
        workload = self._plan.workload
        record = Record(number, due_s)
        self.progress.sent += 1
        await self._client.fetch(
            record,
            path=workload.path,
            body=workload.body(number),
            stream=workload.stream,
            began=self._began,
        )
        self.progress.ended += 1
        self.progress.failed += bool(record.error)


async def watch_loop(lags_s: list[float], report: Callable[[], None]) -> None:
    """Record how late the loop is, and report now and then, until cancelled."""
    loop = asyncio.get_running_loop()
    for tick in itertools.count(1):
        due = loop.time() + _LAG_PERIOD_S
        await asyncio.sleep(_LAG_PERIOD_S)
        lags_s.append(max(0.0, loop.time() - due))
        if tick % _PROGRESS_EVERY == 0:
            report()


def client_process(pipe: Connection, plan: Plan) -> None:
    """The entry point of a client process: Ready, wait for Go, run, Result.

    Anything received after Go means to stop early.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    pipe.send_bytes(msgspec.msgpack.encode(Ready()))
    go = msgspec.msgpack.decode(pipe.recv_bytes(), type=Go)
    tally = uvloop.run(_drive(pipe, Driver(plan, go.began)))
    # The loop watched it and left it non-blocking; a long tally does not fit a pipe at once.
    os.set_blocking(pipe.fileno(), True)
    pipe.send_bytes(msgspec.msgpack.encode(Result(tally)))


async def _drive(pipe: Connection, driver: Driver) -> Tally:
    began_cpu_s = time.process_time()
    driving = asyncio.create_task(driver.run())
    watching = asyncio.create_task(
        watch_loop(
            driver.tally.lags_s,
            lambda: pipe.send_bytes(msgspec.msgpack.encode(driver.progress)),
        )
    )
    asyncio.get_running_loop().add_reader(pipe.fileno(), driving.cancel)
    try:
        await driving
    except asyncio.CancelledError:
        if not driving.cancelled():
            raise
    finally:
        asyncio.get_running_loop().remove_reader(pipe.fileno())
        watching.cancel()
    driver.tally.cpu_s = time.process_time() - began_cpu_s
    return driver.tally
