"""Three times what the service can do, over HTTP, against real processes.

    python -m bench.overload                 (2 minutes), a table and JSON
    python -m bench.overload --seconds 5     shorter

`topologies/simulated.yaml` with a generation worker that runs 8 sequences at a time. Four runs:

    capacity   32 requests always in flight: what it gets through
    1x, 3x     Poisson arrivals at that rate and at three times that rate, one client
    mixed      3x again, of four clients with API keys of their own: `heavy` sends most; `light`
               sends a tenth of the capacity; `first` as much with a priority of 5; `hasty` as much
               with a time limit of 1 s

Goodput counts whole answers whose first token came within 10 s. After 3x one request comes back
when the last refusal's Retry-After is over: how long it then queued says whether that was honest.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import msgspec

from bench.serving import Served, serving

ROOT = Path(__file__).parents[1]
TOPOLOGY = ROOT / "topologies" / "simulated.yaml"
RESULTS = Path(__file__).parent / "results"
RUNNING = 8
OUTPUT_TOKENS = 48
IN_FLIGHT = 32
GOOD_S = 10.0
WARM_UP_S = 1.5
SETS = (
    f"children.generation.options.engine.max_running={RUNNING}",
    "children.router.options={admission: {max_priority: 10}}",
)


class Client(msgspec.Struct, frozen=True):
    """Who asks, and how."""

    name: str
    share: float
    """Of the capacity, that it asks for."""
    headers: dict[str, str] = {}


class Answer(msgspec.Struct):
    """What became of one request; times in seconds."""

    client: str
    due: float
    status: int = 0
    first: float = 0.0
    """From when it was due; 0 when no token came."""
    end: float = 0.0
    tokens: int = 0
    queued_ms: float = 0.0
    retry_after: float = 0.0

    @property
    def good(self) -> bool:
        return self.status == 200 and self.tokens > 0 and 0 < self.first <= GOOD_S


class Share(msgspec.Struct):
    """What one client saw."""

    client: str
    sent: int
    statuses: dict[str, int]
    goodput_per_s: float
    served: float
    """Share of its requests."""
    ttft_p50_ms: float
    ttft_p99_ms: float
    queued_p50_ms: float
    longest_s: float
    """The slowest answer of any kind, a refusal too."""


class Phase(msgspec.Struct):
    """One run."""

    name: str
    offered_per_s: float
    goodput_per_s: float
    clients: list[Share]
    retry_after_s: list[float]
    """Of the refusals: least, median, most."""
    router_mb: list[float]
    """Resident: at the start, at the most."""
    ingress_mb: list[float]


class Results(msgspec.Struct):
    """What --json writes."""

    capacity_per_s: float
    phases: list[Phase]
    goodput_3x_over_1x: float
    came_back: Answer | None
    seconds: float


class Driver:
    """Asks a service."""

    def __init__(self, served: Served, session: aiohttp.ClientSession) -> None:
        self._served = served
        self._session = session
        self._rng = random.Random(1)
        self._number = 0

    async def ask(self, client: Client) -> Answer:
        """One streamed completion."""
        self._number += 1
        body = {
            "model": self._served.model,
            "prompt": f"Request {self._number} of {client.name}: the capital of France is",
            "max_tokens": OUTPUT_TOKENS,
            "stream": True,
            "ignore_eos": True,
            "seed": self._number,
        }
        headers = {"x-understudy-explain": "1", **client.headers}
        answer = Answer(client.name, time.monotonic())
        url = f"{self._served.url}/v1/completions"
        async with self._session.post(url, json=body, headers=headers) as response:
            answer.status = response.status
            answer.retry_after = float(response.headers.get("retry-after", 0))
            answer.queued_ms = float(response.headers.get("x-understudy-queued-ms", 0))
            async for line in response.content:
                if response.status == 200 and line.startswith(b"data: {"):
                    answer.tokens += b'"text":""' not in line
                    answer.first = answer.first or time.monotonic() - answer.due
        answer.end = time.monotonic() - answer.due
        return answer

    async def closed(self, seconds: float, skipped_s: float = WARM_UP_S) -> float:
        """Whole answers a second with so many requests always in flight, after the beginning."""
        client, ends = Client("closed", 0.0), []
        began = time.monotonic()

        async def repeat() -> None:
            while time.monotonic() < began + seconds:
                answer = await self.ask(client)
                if answer.good:
                    ends.append(answer.due + answer.end - began)

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(repeat())
        steady = [end for end in ends if skipped_s <= end <= seconds]
        return len(steady) / (seconds - skipped_s)

    async def open(
        self, clients: Sequence[Client], capacity: float, seconds: float
    ) -> list[Answer]:
        """Poisson arrivals of all clients; returns when every request is answered."""
        tasks = []
        rate = capacity * sum(client.share for client in clients)
        began = due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while (due := due + self._rng.expovariate(rate)) < began + seconds:
                await asyncio.sleep(due - time.monotonic())
                [client] = self._rng.choices(clients, [client.share for client in clients])
                tasks.append(group.create_task(self.ask(client)))
        return [task.result() for task in tasks]


async def measure(
    driver: Driver,
    served: Served,
    name: str,
    clients: Sequence[Client],
    capacity: float,
    seconds: float,
) -> tuple[Phase, list[Answer]]:
    """One run of an open loop."""
    peaks: dict[str, list[float]] = {"router/0": [], "ingress/0": []}

    async def watch() -> None:
        while True:
            resident = served.resident_mb()
            for child, seen in peaks.items():
                seen.append(resident.get(child, 0.0))
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch())
    try:
        answers = await driver.open(clients, capacity, seconds)
    finally:
        watching.cancel()
    waits = sorted(one.retry_after for one in answers if one.status == 429)
    phase = Phase(
        name=name,
        offered_per_s=len(answers) / seconds,
        goodput_per_s=sum(one.good for one in answers) / seconds,
        clients=[
            _share(client.name, [one for one in answers if one.client == client.name], seconds)
            for client in clients
        ],
        retry_after_s=[waits[0], statistics.median(waits), waits[-1]] if waits else [],
        router_mb=[peaks["router/0"][0], max(peaks["router/0"])],
        ingress_mb=[peaks["ingress/0"][0], max(peaks["ingress/0"])],
    )
    return phase, answers


def _share(name: str, answers: Sequence[Answer], seconds: float) -> Share:
    good = [one for one in answers if one.good]
    firsts = sorted(one.first * 1000 for one in good)
    return Share(
        client=name,
        sent=len(answers),
        statuses=dict(Counter(str(one.status) for one in answers)),
        goodput_per_s=len(good) / seconds,
        served=len(good) / max(1, len(answers)),
        ttft_p50_ms=_at(firsts, 0.5),
        ttft_p99_ms=_at(firsts, 0.99),
        queued_p50_ms=_at(sorted(one.queued_ms for one in good), 0.5),
        longest_s=max((one.end for one in answers), default=0.0),
    )


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def _key(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


MIXED = (
    Client("heavy", 2.7, _key("heavy")),
    Client("light", 0.1, _key("light")),
    Client("first", 0.1, {**_key("first"), "x-understudy-priority": "5"}),
    Client("hasty", 0.1, {**_key("hasty"), "x-understudy-timeout-s": "1.0"}),
)


async def run(seconds: float) -> Results:
    """Everything, on a service of its own."""
    began = time.monotonic()
    connector = aiohttp.TCPConnector(limit=0)
    with tempfile.TemporaryDirectory() as state:
        async with (
            serving(TOPOLOGY, Path(state), SETS) as served,
            aiohttp.ClientSession(connector=connector) as session,
        ):
            driver = Driver(served, session)
            await driver.closed(WARM_UP_S, 0.0)
            capacity = await driver.closed(max(6.0, seconds / 2))
            print(f"capacity {capacity:.1f} answers/s", flush=True)
            phases, came_back = [], None
            for name, clients in (
                ("1x", (Client("all", 1.0),)),
                ("3x", (Client("all", 3.0),)),
                ("mixed", MIXED),
            ):
                phase, answers = await measure(driver, served, name, clients, capacity, seconds)
                phases.append(phase)
                show(phase)
                if name == "3x":
                    came_back = await _come_back(driver, answers)
                await asyncio.sleep(2.0)
    ratio = phases[1].goodput_per_s / max(phases[0].goodput_per_s, 1e-9)
    return Results(capacity, phases, ratio, came_back, time.monotonic() - began)


async def _come_back(driver: Driver, answers: Sequence[Answer]) -> Answer | None:
    """Ask when the last refused one was told to."""
    refused = [one for one in answers if one.retry_after]
    if not refused:
        return None
    last = max(refused, key=lambda one: one.due + one.end)
    await asyncio.sleep(last.due + last.end + last.retry_after - time.monotonic())
    return await driver.ask(Client("back", 0.0))


def show(phase: Phase) -> None:
    print(
        f"{phase.name}: offered {phase.offered_per_s:.1f}/s, goodput {phase.goodput_per_s:.1f}/s; "
        f"Retry-After {phase.retry_after_s} s; router {phase.router_mb[0]:.1f} to "
        f"{phase.router_mb[1]:.1f} MB, ingress {phase.ingress_mb[0]:.1f} to "
        f"{phase.ingress_mb[1]:.1f} MB"
    )
    for one in phase.clients:
        print(
            f"    {one.client:6s} {one.sent:5d} sent, {one.served:6.1%} served, {one.statuses}; "
            f"TTFT {one.ttft_p50_ms:.0f} / {one.ttft_p99_ms:.0f} ms, queued {one.queued_p50_ms:.0f}"
            f" ms, slowest of all {one.longest_s:.2f} s",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of arrivals in each run")
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS / "overload.json")
    arguments = parser.parse_args()
    results = asyncio.run(run(arguments.seconds))
    print(f"goodput at 3x over that at 1x: {results.goodput_3x_over_1x:.2f}")
    if results.came_back is not None:
        print(
            f"came back after Retry-After: {results.came_back.status}, queued "
            f"{results.came_back.queued_ms:.1f} ms"
        )
    arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    print(f"{results.seconds:.0f} s; {arguments.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
