"""Where CPU goes: a flame graph of each process of a service under load.

    python -m bench.profile [--topology isolated|fused] [--stream] [--seconds 10]

Starts the service on the simulated engine, drives it, and has py-spy look at each node in turn.
Writes one SVG a node, and prints where each spends most of its own time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bench.versus.cases import INSTANT, Case
from bench.versus.peers import Understudy, fused, isolated

OUT = Path(__file__).parent / "out" / "profile"
PY_SPY = Path(sys.executable).with_name("py-spy")
TOP = 25
IDLE = ("_worker (concurrent/futures/thread.py", "Thread.run (threading.py")
"""Threads that wait for work; py-spy cannot always tell."""


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
    command += ["--output-tokens", str(case.output_tokens)]
    command += [] if case.stream else ["--no-stream"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def look(name: str, pid: int, seconds: int) -> Counter[str]:
    """Record one process twice over: a picture to look at, and samples to count."""
    stem = OUT / name.replace("/", ".")
    own: Counter[str] = Counter()
    for form, path in (("flamegraph", f"{stem}.svg"), ("raw", f"{stem}.txt")):
        command = [str(PY_SPY), "record", "--pid", str(pid), "--duration", str(seconds)]
        command += ["--rate", "400", "--format", form, "--output", path]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for line in Path(f"{stem}.txt").read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frame = stack.split(";")[-1].rpartition(":")[0] or stack.split(";")[-1]
        if frame not in IDLE:
            own[frame] += int(count)
    return own


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", choices=("isolated", "fused"), default="fused")
    parser.add_argument("--stream", action="store_true", help="streams of 128 tokens")
    parser.add_argument("--seconds", type=int, default=10, help="of each look")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    service = fused() if arguments.topology == "fused" else isolated()
    tokens = 128 if arguments.stream else 1
    case = Case("profile", 64, 1, tokens, stream=arguments.stream, speedup=INSTANT)
    with service.running(INSTANT):
        load = drive(service, case)
        try:
            for name, pid in nodes_of(service).items():
                own = look(name, pid, arguments.seconds)
                total = sum(own.values()) or 1
                print(f"\n{name}: its own time by function ({OUT / name.replace('/', '.')}.svg)")
                for frame, count in own.most_common(TOP):
                    print(f"  {count / total:6.1%}  {frame}")
        finally:
            load.terminate()
            load.wait()


if __name__ == "__main__":
    main()
