"""Did a change help? The service of two checkouts under the same load, in turn.

    python -m bench.in_turn BEFORE [AFTER] [--topology isolated|fused] [--load whole|instant|paced]

A machine drifts: the same service takes a fifth more or less for a token than half a minute ago, as
its neighbours come and go. So both services run all the time, and a few seconds of load go to one
and then to the other; each slice is compared with the one beside it. BEFORE and AFTER (this one)
are checkouts that `make setup` has been run in. Prints CPU a token, or a whole answer, of each
process, and the median of the ratios with its quartiles.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from bench.loadgen.cpu import all_processes, select
from bench.profile import COUNTERS, LOADS, drive, nodes_of, served
from bench.versus.base import ROOT
from bench.versus.cases import Case
from bench.versus.peers import Understudy, fused, isolated

SETTLE_S = 1.5
"""From the beginning of a slice's load to the first count."""
DRAIN_S = 1.0
"""For what is still under way when the load pauses."""
LEAST_US = 0.2
"""A process that takes less is not shown."""

Costs = Mapping[str, float]
"""Of one slice, by process: CPU in µs a token or a whole answer."""


class Side:
    """One checkout's service, and a load on it that can be paused."""

    def __init__(self, service: Understudy, case: Case) -> None:
        self.slices: list[Costs] = []
        self._service = service
        self._case = case
        self._names = {pid: name for name, pid in nodes_of(service).items()}
        self._load = drive(service, case)

    def slice(self, seconds: float) -> None:
        """Drive the service for a while, and note what its processes take."""
        counter = COUNTERS[self._case.stream]
        self._signal(signal.SIGCONT)
        time.sleep(SETTLE_S)
        first, before = served(self._service, counter), self._cpu()
        time.sleep(seconds)
        last, after = served(self._service, counter), self._cpu()
        self._signal(signal.SIGSTOP)
        time.sleep(DRAIN_S)
        if last == first:
            sys.exit(f"{self._service.url} served nothing in {seconds:g} s")
        scale = 1e6 / (last - first)
        costs = {name: (cpu_s - before.get(name, 0.0)) * scale for name, cpu_s in after.items()}
        self.slices.append(costs)

    def end(self) -> None:
        self._signal(signal.SIGCONT)
        self._load.terminate()
        self._load.wait()

    def _cpu(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for process in select(all_processes(), self._service.pids):
            name = self._names.get(process.pid, process.name)
            found[name] = found.get(name, 0.0) + process.cpu_s
        return found

    def _signal(self, number: signal.Signals) -> None:
        for process in select(all_processes(), [str(self._load.pid)]):
            os.kill(process.pid, number)


class Row(msgspec.Struct, frozen=True):
    """One process, or all of them together: medians over all slices."""

    name: str
    before: float
    after: float
    ratio: float
    """Of the slices beside each other, like the quartiles."""
    quartiles: tuple[float, float]


def compare(before: Sequence[Costs], after: Sequence[Costs]) -> list[Row]:
    """What the two sides took, slice by slice: first all processes, then the dearest ones first.
    There have to be two slices of each at least."""
    names = sorted({name for costs in (*before, *after) for name in costs})
    rows = [_row(name, before, after, [name]) for name in names]
    shown = [row for row in rows if max(row.before, row.after) >= LEAST_US]
    shown.sort(key=lambda row: -row.before)
    return [_row("all", before, after, names), *shown]


def _row(name: str, before: Sequence[Costs], after: Sequence[Costs], of: Sequence[str]) -> Row:
    sums = [[sum(costs.get(one, 0.0) for one in of) for costs in side] for side in (before, after)]
    ratios = [b / a for a, b in zip(*sums, strict=True) if a]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (0.0, 0.0, 0.0)
    return Row(name, statistics.median(sums[0]), statistics.median(sums[1]), middle, (low, high))


def table(rows: Sequence[Row], unit: str) -> str:
    lines = [f"µs of CPU {unit:<12}{'before':>9}{'after':>9}{'ratio':>8}   quartiles"]
    for row in rows:
        low, high = row.quartiles
        lines.append(
            f"  {row.name:<20}{row.before:>9.2f}{row.after:>9.2f}{row.ratio:>8.3f}"
            f"   {low:.3f} to {high:.3f}"
        )
    return "\n".join(lines)


@contextmanager
def sides(services: Sequence[Understudy], case: Case) -> Iterator[list[Side]]:
    """Both services, each driven and paused."""
    with ExitStack() as stack:
        for service in services:
            stack.enter_context(service.running(case.speedup))
        made: list[Side] = []
        for service in services:
            made.append(Side(service, case))
            stack.callback(made[-1].end)
            made[-1].slice(1.0)  # fills caches
            made[-1].slices.clear()
        yield made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="a checkout of the version before")
    parser.add_argument("after", type=Path, nargs="?", default=ROOT, help="this one, if left out")
    parser.add_argument("--topology", choices=("isolated", "fused"), default="fused")
    parser.add_argument("--load", choices=LOADS, default="paced", help="as for bench.profile")
    parser.add_argument("--concurrency", type=int, help="128, if left out")
    parser.add_argument("--rounds", type=int, default=20, help="slices of each, 2 at least")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each slice")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("--rounds: there have to be 2 at least")
    case = LOADS[arguments.load]
    if arguments.concurrency:
        case = msgspec.structs.replace(case, concurrency=arguments.concurrency)
    make = fused if arguments.topology == "fused" else isolated
    services = [
        make(side, root.resolve())
        for side, root in (("before", arguments.before), ("after", arguments.after))
    ]
    try:
        with sides(services, case) as both:
            for number in range(arguments.rounds):
                for side in both if number % 2 == 0 else both[::-1]:
                    side.slice(arguments.seconds)
                print(f"\r{number + 1} of {arguments.rounds}", end="", file=sys.stderr, flush=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        sys.exit(f"{error}: has `make setup` been run in both checkouts?")
    print(file=sys.stderr)
    unit = "a token" if case.stream else "an answer"
    print(table(compare(both[0].slices, both[1].slices), unit))


if __name__ == "__main__":
    main()
