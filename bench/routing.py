"""What each routing strategy is worth: 8 simulated workers, three workloads, three loads.

    python -m bench.routing                          everything (8 minutes), JSON and a plot
    python -m bench.routing --quick                  a quarter of it
    python -m bench.routing --workloads shared --strategies kv least_loaded

The workers, their engines and the router are the real ones, in virtual time (see `bench.fleet`):
the figures are those of the policy, and do not depend on this machine.

    multi_turn   conversations of six turns, from 400 to 1800 tokens, two seconds of thought
    shared       48 groups of prompts that share 2048 tokens and differ in 64: more than a worker
                 can cache, less than all together can
    unshared     400 to 1000 tokens that nobody else has

Capacity is what `least_loaded` gets through of a workload with 800 units always in flight. The
loads are open loop, Poisson arrivals at 0.5, 0.8 and 1.2 of it, without admission control: the
queues are the engines' own. Then `overload`: arrivals at 1 and at 3 times the capacity with
admission as it is by default; goodput counts answers whose first token came within 10 s.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import sys
import time
from array import array
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy as np

from actors.messages.hints import Hints
from actors.router.options import AdmissionOptions, RouterOptions, StrategyName
from bench.fleet import Fleet, Outcome, fleet, tokens
from bench.routing_plot import plot
from bench.virtual_time import run

WorkloadName = Literal["multi_turn", "shared", "unshared"]
STRATEGIES: tuple[StrategyName, ...] = (
    "kv",
    "least_loaded",
    "power_of_two",
    "round_robin",
    "random",
)
LOADS = (0.5, 0.8, 1.2)
WORKERS = 8
OUTPUT_TOKENS = 32
TURNS = 6
GROUPS = 48
IN_FLIGHT = 800
"""Units at a time when capacity is measured: more than all workers run at once."""
WARM_UP = 0.25
"""Of the time that requests arrive in; what is sent before is not counted."""
GOOD_S = 10.0
RESULTS = Path(__file__).parent / "results"


class Cell(msgspec.Struct):
    """One strategy under one load."""

    workload: str
    strategy: str
    load: float
    offered_per_s: float
    requests: int
    refused: int
    throughput_per_s: float
    """Answers completed, over the time that arrivals came."""
    ttft_p50_ms: float
    ttft_p99_ms: float
    hit_rate: float
    """Prompt tokens found in a cache, of all."""
    imbalance: float
    """Requests in hand of the busiest worker, over the mean; averaged over time."""
    goodput_per_s: float
    queue_peak: int
    rss_mb: float
    """The most memory this process has used so far."""


class Results(msgspec.Struct):
    """What --json writes."""

    capacity_per_s: dict[str, float]
    cells: list[Cell]
    overload: list[Cell]
    seconds: float
    quick: bool


class Load:
    """Sends a workload's requests to a fleet."""

    def __init__(self, workload: WorkloadName, made: Fleet, seed: int) -> None:
        self._rng = random.Random(f"{seed}/{workload}")
        self._made = made
        self._groups = [tokens(random.Random(f"{seed}/{g}"), 2048) for g in range(GROUPS)]
        self.unit: Callable[[], Coroutine[Any, Any, None]] = {
            "multi_turn": self._conversation,
            "shared": self._shared,
            "unshared": self._unshared,
        }[workload]
        self.requests_per_unit = TURNS if workload == "multi_turn" else 1

    async def _ask(self, prompt: array[int], session: int = 0) -> array[int]:
        answer = await self._made.client.generate(prompt, OUTPUT_TOKENS, Hints(session=session))
        assert isinstance(answer, array)
        return answer

    async def _shared(self) -> None:
        prompt = self._rng.choice(self._groups) + tokens(self._rng, 64)
        await self._ask(prompt)

    async def _unshared(self) -> None:
        await self._ask(tokens(self._rng, self._rng.randint(400, 1000)))

    async def _conversation(self) -> None:
        rng = random.Random(self._rng.random())
        history = tokens(rng, 400)
        for _ in range(TURNS):
            history = history + await self._ask(history)
            await asyncio.sleep(rng.expovariate(0.5))
            history += tokens(rng, 240)

    async def open_loop(self, requests_per_s: float, seconds: float) -> None:
        """Poisson arrivals; returns when all have ended."""
        rate = requests_per_s / self.requests_per_unit
        async with asyncio.TaskGroup() as group:
            left_s = seconds
            while (gap_s := self._rng.expovariate(rate)) < left_s:
                left_s -= gap_s
                await asyncio.sleep(gap_s)
                group.create_task(self.unit())

    async def closed_loop(self, in_flight: int, seconds: float) -> None:
        """So many units at a time, until the time is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds

        async def repeat() -> None:
            while loop.time() < until:
                await self.unit()

        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(repeat())


async def measure_capacity(workload: WorkloadName, seconds: float) -> float:
    """Requests a second that `least_loaded` gets through."""
    options = RouterOptions(strategy="least_loaded", admission=AdmissionOptions(enabled=False))
    async with fleet(options, WORKERS) as made:
        await Load(workload, made, seed=1).closed_loop(IN_FLIGHT, seconds)
        ends = sorted(one.end_s for one in made.client.outcomes)
    # The steady middle: neither the first prompts, which hit nothing, nor the last to end.
    middle = ends[len(ends) // 4 : -len(ends) // 4]
    return len(middle) / (middle[-1] - middle[0])


async def measure(
    workload: WorkloadName,
    options: RouterOptions,
    load: float,
    capacity: float,
    seconds: float,
) -> Cell:
    """One strategy under one load."""
    async with fleet(options, WORKERS) as made:
        began = asyncio.get_running_loop().time()
        peak = asyncio.create_task(_peak(made))
        await Load(workload, made, seed=2).open_loop(load * capacity, seconds)
        peak.cancel()
        queue_peak = (await asyncio.gather(peak, return_exceptions=True))[0]
        outcomes, in_hand = made.client.outcomes, made.in_hand
    steady, end = began + WARM_UP * seconds, began + seconds
    outcomes = [one for one in outcomes if one.end_s >= steady]
    served = [one for one in outcomes if not one.refused]
    ttft = np.array([one.first_s - one.sent_s for one in served]) * 1000
    p50, p99 = np.percentile(ttft, (50, 99))
    in_time = [one for one in served if one.end_s <= end]
    good = [one for one in in_time if one.first_s - one.sent_s <= GOOD_S]
    return Cell(
        workload=workload,
        strategy=options.strategy,
        load=load,
        offered_per_s=load * capacity,
        requests=len(outcomes),
        refused=len(outcomes) - len(served),
        throughput_per_s=len(in_time) / (end - steady),
        ttft_p50_ms=float(p50),
        ttft_p99_ms=float(p99),
        hit_rate=hit_rate(served),
        imbalance=imbalance(in_hand),
        goodput_per_s=len(good) / (end - steady),
        queue_peak=queue_peak if isinstance(queue_peak, int) else 0,
        rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


async def _peak(made: Fleet) -> int:
    """The longest the router's queue was, told when cancelled."""
    longest = 0
    try:
        while True:
            longest = max(longest, int(made.routers[0].gauges()["waiting"]))
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        return longest


def imbalance(in_hand: list[list[int]]) -> float:
    """Requests of the busiest worker over the mean of all; the mean of the samples in which there
    was at least one for each."""
    counts = np.array(in_hand, dtype=float)
    busy = counts[counts.sum(axis=1) >= WORKERS]
    return float((busy.max(axis=1) / busy.mean(axis=1)).mean()) if len(busy) else 1.0


def hit_rate(outcomes: list[Outcome]) -> float:
    """Prompt tokens found in a cache, of all."""
    prompt = sum(one.prompt_tokens for one in outcomes)
    return sum(one.cached_tokens for one in outcomes) / prompt if prompt else 0.0


def show(cell: Cell) -> None:
    print(
        f"{cell.workload:10s} {cell.load:4.1f} {cell.strategy:13s} "
        f"{cell.offered_per_s:7.1f} {cell.throughput_per_s:7.1f} {cell.refused:6d}  "
        f"{cell.ttft_p50_ms:8.0f} {cell.ttft_p99_ms:8.0f}   {cell.hit_rate:5.1%}  "
        f"{cell.imbalance:5.2f}  {cell.goodput_per_s:7.1f}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a quarter of the time")
    parser.add_argument("--workloads", nargs="+", default=get_args(WorkloadName))
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES)
    parser.add_argument("--loads", nargs="+", type=float, default=LOADS)
    parser.add_argument("--seconds", type=float, default=20.0, help="of arrivals, virtual")
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS / "routing.json")
    parser.add_argument("--plot", type=Path, metavar="FILE", default=RESULTS / "routing.svg")
    arguments = parser.parse_args()
    seconds = arguments.seconds / 4 if arguments.quick else arguments.seconds
    began = time.monotonic()
    results = Results({}, [], [], 0.0, arguments.quick)
    print(
        "workload   load strategy      offered  served refused  TTFT p50  p99 ms   hits   imbal. "
        "goodput"
    )
    for workload in arguments.workloads:
        capacity = run(measure_capacity(workload, seconds))
        results.capacity_per_s[workload] = capacity
        for load in arguments.loads:
            for strategy in arguments.strategies:
                options = RouterOptions(
                    strategy=strategy, admission=AdmissionOptions(enabled=False)
                )
                cell = run(measure(workload, options, load, capacity, seconds))
                results.cells.append(cell)
                show(cell)
    for workload in arguments.workloads:
        for load in (1.0, 3.0):
            work = measure(
                workload, RouterOptions(), load, results.capacity_per_s[workload], seconds
            )
            cell = run(work)
            results.overload.append(cell)
            show(cell)
    results.seconds = time.monotonic() - began
    for path in (arguments.json, arguments.plot):
        path.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    arguments.plot.write_text(plot(results.cells), encoding="utf-8")
    print(f"{results.seconds:.0f} s; {arguments.json}, {arguments.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
