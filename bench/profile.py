"""Where CPU goes: a flame graph of each process of a service under load.

    python -m bench.profile [--topology isolated|fused] [--load whole|instant|paced] [--seconds 10]

Starts the service on the simulated engine and drives it. First it reads what each process uses for
a token or a whole answer, undisturbed; then py-spy looks at each node in turn. Writes one SVG a
node, and prints what each stage of a request's life takes in it, and its dearest functions: by
samples, which also fall on a process that is awake and waits for a core.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bench.loadgen.cpu import all_processes, select
from bench.profiling.stages import function_of, shares, stage_of
from bench.versus.cases import INSTANT, PACED, WORDS, Case
from bench.versus.peers import Understudy, fused, isolated

OUT = Path(__file__).parent / "out" / "profile"
PY_SPY = Path(sys.executable).with_name("py-spy")
TOP = 25
WARM_UP_S = 5.0
LOADS = {
    "whole": Case("whole answers of 1 token", 128, 1, 1, stream=False, speedup=INSTANT),
    "instant": Case("streams, instant", 128, 1, 128, stream=True, speedup=INSTANT),
    "paced": Case("streams, paced", 128, 1, 128, stream=True, speedup=PACED),
}
COUNTERS = {True: "understudy_generated_tokens_total", False: "understudy_requests_total"}
"""What a stream's cost is divided by, and a whole answer's."""


def nodes_of(service: Understudy) -> dict[str, int]:
    """Name and pid of every node."""
    command = [sys.executable, "-m", "supervisor", "status", "--json"]
    command += ["--namespace", service.namespace]
    environment = {**os.environ, "UNDERSTUDY_STATE_DIR": str(service.state)}
    shown = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    children = msgspec.json.decode(shown)["children"]
    return {c["id"]: c["pid"] for c in children if "/" in c["id"] and c.get("actors")}


def drive(service: Understudy, case: Case) -> subprocess.Popen[bytes]:
    """A load that lasts longer than the look."""
    address = urlsplit(service.url)
    command = [sys.executable, "-m", "bench.load", "--url", f"http://{address.netloc}"]
    command += ["--model", service.model, "--ignore-eos", "--requests", "1000000"]
    command += ["--concurrency", str(case.concurrency), "--duration", "600"]
    command += ["--input-tokens", str(WORDS), "--output-tokens", str(case.output_tokens)]
    command += [] if case.stream else ["--no-stream"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def served(service: Understudy, counter: str) -> float:
    """How many the ingress has counted so far."""
    address = urlsplit(service.url)
    with closing(HTTPConnection(address.hostname or "", address.port, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return sum(float(value) for value in re.findall(rf"^{counter}\S* (\S+)$", text, re.MULTILINE))


class Cost(msgspec.Struct, frozen=True):
    """CPU of one process, in µs a token or a whole answer."""

    us: float
    kernel_us: float
    """Of `us`, for system calls."""


def costs(service: Understudy, case: Case, seconds: int) -> dict[int, Cost]:
    """What each process of the service takes, by pid. Ends the program if nothing is served."""
    counter = COUNTERS[case.stream]
    time.sleep(WARM_UP_S)
    first, before = served(service, counter), select(all_processes(), service.pids)
    time.sleep(seconds)
    last, after = served(service, counter), select(all_processes(), service.pids)
    if last == first:
        sys.exit(f"{service.url} served nothing in {seconds} s: its logs are below {service.state}")
    earlier = {process.pid: process for process in before}
    scale = 1e6 / (last - first)
    return {
        now.pid: Cost(
            (now.cpu_s - earlier[now.pid].cpu_s) * scale,
            (now.kernel_s - earlier[now.pid].kernel_s) * scale,
        )
        for now in after
        if now.pid in earlier
    }


def look(name: str, pid: int, seconds: int) -> list[str]:
    """Record one process twice over: a picture to look at, and samples to count."""
    stem = OUT / name.replace("/", ".")
    for form, path in (("flamegraph", f"{stem}.svg"), ("raw", f"{stem}.txt")):
        command = [str(PY_SPY), "record", "--pid", str(pid), "--duration", str(seconds)]
        command += ["--rate", "400", "--nonblocking", "--format", form, "--output", path]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return Path(f"{stem}.txt").read_text().splitlines()


def show(name: str, cost: Cost, unit: str, samples: list[str]) -> None:
    picture = OUT / name.replace("/", ".")
    print(f"\n{name}: {cost.us:.1f} µs {unit}, {cost.kernel_us:.1f} in the kernel ({picture}.svg)")
    for title, part_of in (("by stage", stage_of), ("its own time by function", function_of)):
        print(f"  {title}")
        for part, share in list(shares(samples, part_of).items())[:TOP]:
            print(f"  {share * cost.us:8.2f} µs  {share:6.1%}  {part}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", choices=("isolated", "fused"), default="fused")
    parser.add_argument(
        "--load",
        choices=LOADS,
        default="whole",
        help="on 128 connections: whole answers of one token, or streams of 128 tokens from an "
        "engine that takes no time, or from one that takes about 6 ms a step",
    )
    parser.add_argument("--seconds", type=int, default=10, help="of each look")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    service = fused() if arguments.topology == "fused" else isolated()
    case = LOADS[arguments.load]
    unit = "a token" if case.stream else "a request"
    with service.running(case.speedup):
        load = drive(service, case)
        try:
            nodes = nodes_of(service)
            cost = costs(service, case, arguments.seconds)
            whole = sum(one.us for one in cost.values())
            others = whole - sum(cost[pid].us for pid in nodes.values())
            print(f"all: {whole:.1f} µs {unit}; supervisor, NATS, etcd: {others:.1f}")
            for name, pid in nodes.items():
                show(name, cost[pid], unit, look(name, pid, arguments.seconds))
        finally:
            load.terminate()
            load.wait()


if __name__ == "__main__":
    main()
