"""This project, NVIDIA Dynamo and sglang-router side by side: one client, one engine timing.

    python -m bench.versus_dynamo [--rounds 3] [--json FILE]

The peers are installed into environments of their own under bench/out when not there. Services
of one speed of engine run at the same time and are driven in turn, round by round, so that a noisy
minute hits all of them. CPU is read from /proc for every process of a service, by role.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bench.load import run
from bench.loadgen.cpu import all_processes, select
from bench.versus.base import NotInstalled, Service
from bench.versus.cases import CASES, Case, Figures, figures, table
from bench.versus.peers import Alike, Dynamo, SglangRouter, fused, gathered, isolated
from bench.versus.plot import plot


class Report(msgspec.Struct):
    """What --json writes."""

    rounds: int
    runs: list[Figures]


def measure(service: Service, case: Case, number: int) -> Figures:
    """One run of one case."""
    address = urlsplit(service.url)
    plan = case.plan(str(address.hostname), address.port or 80, service.model, seed=number)
    done = run(plan, service.pids, show_bar=sys.stderr.isatty())
    return figures(service.name, case, number, done, peak_rss_mb(service.pids))


def peak_rss_mb(pids: list[str]) -> dict[str, float]:
    """The most that each process of the service ever had resident; of one name, the largest."""
    peaks: dict[str, float] = {}
    for process in select(all_processes(), pids):
        try:
            status = Path(f"/proc/{process.pid}/status").read_text("ascii", errors="replace")
        except OSError:
            continue  # it ended while we looked
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                peak = int(line.split()[1]) / 1024
                peaks[process.name] = max(peaks.get(process.name, 0.0), round(peak, 1))
    return peaks


def warm_up(service: Service, case: Case) -> None:
    """Let caches fill and connections open; its figures are thrown away."""
    small = msgspec.structs.replace(case, requests=max(20, case.concurrency))
    measure(service, small, 1_000_000)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose names contain these")
    parser.add_argument("--without-peer", action="store_true", help="measure this project alone")
    parser.add_argument(
        "--services", nargs="+", help="only these: dynamo sglang fused isolated gathered alike"
    )
    parser.add_argument("--json", type=Path, help="write every run here, too")
    parser.add_argument("--plot", type=Path, help="draw the CPU of all cases here, as SVG")
    arguments = parser.parse_args()
    cases = [case for case in CASES if any(part in case.name for part in arguments.only)]
    services: list[Service] = [fused(), isolated(), gathered(), Alike()]
    if not arguments.without_peer:
        services = [Dynamo(), SglangRouter(), *services]
    if arguments.services:
        services = [one for one in services if one.name in arguments.services]
    found: list[Figures] = []
    try:
        for speedup in dict.fromkeys(case.speedup for case in cases):
            with ExitStack() as stack:
                for service in services:
                    stack.enter_context(service.running(speedup))
                for case in (case for case in cases if case.speedup == speedup):
                    for service in services:
                        warm_up(service, case)
                    found += [
                        measure(service, case, number)
                        for number in range(arguments.rounds)
                        for service in services
                    ]
                    print(f"done: {case.name}", file=sys.stderr)
    except NotInstalled as error:
        sys.exit(f"error: {error}; --without-peer measures this project alone")
    names = [service.name for service in services]
    print(table(found, names, names[0]))
    if arguments.json is not None:
        arguments.json.write_bytes(
            msgspec.json.format(msgspec.json.encode(Report(arguments.rounds, found)))
        )
    if arguments.plot is not None:
        arguments.plot.write_text(plot(found, names, names[0]), encoding="utf-8")
    return int(any(one.failed for one in found))


if __name__ == "__main__":
    sys.exit(main())
