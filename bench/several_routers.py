"""Whether several routers choose as one would: 1, 2 and 4 routers before 8 simulated workers.

    python -m bench.several_routers              (3 minutes), JSON
    python -m bench.several_routers --quick      a quarter of it

Requests go to any of the routers by chance, as they do when each ingress process has a router of
its own. Workers, engines and routers are the real ones, in virtual time (see `bench.fleet`).

One more router gets no requests. It sees each placement of all the others at once, which is what a
single router would know, and is asked before every choice what it would choose:

    the same     the worker chosen is the one that it would take, or its equal in cost and load
    regret       what the chosen worker costs more than that one by its books, in KV blocks; mean

Two equals are the same here, since chance decides between them; so 1 router agrees with itself in
every choice, or the measurement is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np

from actors.messages.events import Placed
from actors.messages.route import Route
from actors.router.actor import Router
from actors.router.options import AdmissionOptions, RouterOptions
from actors.router.placement import Ask, Decision, placements
from actors.router.strategies import Wanted, costs_of
from actors.runtime.actor import handler
from bench.fleet import Fleet, fleet
from bench.routing import (
    RESULTS,
    WARM_UP,
    WORKERS,
    Load,
    WorkloadName,
    hit_rate,
    imbalance,
    measure_capacity,
)
from bench.virtual_time import run

COUNTS = (1, 2, 4)
LOAD = 0.8
TOLERANCE = 1e-6


class Cell(msgspec.Struct):
    """So many routers under one workload."""

    workload: str
    routers: int
    requests: int
    ttft_p50_ms: float
    ttft_p99_ms: float
    hit_rate: float
    imbalance: float
    decisions: int
    same: float
    """Share of the choices."""
    regret_blocks: float


class Results(msgspec.Struct):
    """What --json writes."""

    load: float
    capacity_per_s: dict[str, float]
    cells: list[Cell]
    seconds: float


class Agreement:
    """Counts how often what was chosen is what one router would have chosen."""

    def __init__(self) -> None:
        self.decisions = 0
        self.same = 0
        self.regret = 0.0

    def compare(self, knowing: Router, model: str, ask: Ask, decision: Decision) -> None:
        """Before the choice is counted anywhere."""
        pool = knowing.roster.site(model).alone
        runs = knowing.index.match(ask.blocks, pool.mask)
        costs = costs_of(pool, Wanted(ask.blocks), runs, knowing.options.cost)
        ranks = list(zip(costs, pool.weights, strict=True))
        best = min(ranks)
        chosen = next(
            rank
            for rank, member in zip(ranks, pool.members, strict=True)
            if member.address == decision.generation.member.address
        )
        self.decisions += 1
        self.same += max(chosen[0] - best[0], chosen[1] - best[1]) <= TOLERANCE
        self.regret += chosen[0] - best[0]


class Knowing(Router):
    """Gets no requests, and learns of every placement as it is made."""

    @handler
    def placed(self, message: Placed) -> None:
        """Known already."""


class Watched(Router):
    """A router whose choices are compared."""

    knowing: Knowing | None = None
    agreement: Agreement | None = None

    def _expect(self, message: Route, ask: Ask, decision: Decision, now: float) -> None:
        super()._expect(message, ask, decision, now)
        if self.knowing is not None and self.agreement is not None:
            self.agreement.compare(self.knowing, message.model, ask, decision)
            for placement in placements(message.key, ask, decision):
                self.knowing.roster.place(placement, now)
            member = self.knowing.roster.member(decision.computing.member.address)
            if member is not None:
                self.knowing.index.predict(member.slot, ask.blocks[decision.computing.matched :])


async def measure(workload: WorkloadName, routers: int, capacity: float, seconds: float) -> Cell:
    """So many routers under one load."""
    options = RouterOptions(admission=AdmissionOptions(enabled=False))
    async with fleet(options, WORKERS, [*([Watched] * routers), Knowing]) as made:
        agreement = watch(made)
        began = asyncio.get_running_loop().time()
        await Load(workload, made, seed=2).open_loop(LOAD * capacity, seconds)
        outcomes, in_hand = made.client.outcomes, made.in_hand
    outcomes = [one for one in outcomes if one.end_s >= began + WARM_UP * seconds]
    ttft = np.array([one.first_s - one.sent_s for one in outcomes]) * 1000
    p50, p99 = np.percentile(ttft, (50, 99))
    return Cell(
        workload=workload,
        routers=routers,
        requests=len(outcomes),
        ttft_p50_ms=float(p50),
        ttft_p99_ms=float(p99),
        hit_rate=hit_rate(outcomes),
        imbalance=imbalance(in_hand),
        decisions=agreement.decisions,
        same=agreement.same / agreement.decisions,
        regret_blocks=agreement.regret / agreement.decisions,
    )


def watch(made: Fleet) -> Agreement:
    """Have the choices of all routers but the last compared with what the last one knows."""
    *watched, knowing = made.routers
    assert isinstance(knowing, Knowing)
    agreement = Agreement()
    for router in watched:
        assert isinstance(router, Watched)
        router.knowing, router.agreement = knowing, agreement
    made.client.routers = [router.address for router in watched]
    return agreement


def show(cell: Cell) -> None:
    print(
        f"{cell.workload:10s} {cell.routers:7d} {cell.ttft_p50_ms:8.0f} {cell.ttft_p99_ms:8.0f} "
        f"{cell.hit_rate:7.1%} {cell.imbalance:7.2f} {cell.same:8.1%} {cell.regret_blocks:8.2f}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a quarter of the time")
    parser.add_argument("--workloads", nargs="+", default=get_args(WorkloadName))
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS)
    parser.add_argument("--seconds", type=float, default=20.0, help="of arrivals, virtual")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", default=RESULTS / "several_routers.json"
    )
    arguments = parser.parse_args()
    seconds = arguments.seconds / 4 if arguments.quick else arguments.seconds
    began = time.monotonic()
    results = Results(LOAD, {}, [], 0.0)
    print("workload   routers TTFT p50   p99 ms    hits  imbal.     same   regret")
    for workload in arguments.workloads:
        capacity = run(measure_capacity(workload, seconds))
        results.capacity_per_s[workload] = capacity
        for count in arguments.counts:
            cell = run(measure(workload, count, capacity, seconds))
            results.cells.append(cell)
            show(cell)
    results.seconds = time.monotonic() - began
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    print(f"{results.seconds:.0f} s; {arguments.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
