"""How long a service takes from the command to its first answered token, and where the time goes.

    python -m bench.startup [--runs 5] [FILE ...]

Byte code and files are warm after the first run, which is thrown away. Milliseconds after the
command: when each child was started, when it was ready, and when the first answer was whole.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import msgspec

from supervisor.services import free_ports

FILES = ("topologies/disagg.yaml", "topologies/simulated.yaml")
DEADLINE_S = 120.0
END_S = 30.0


class Line(msgspec.Struct):
    """The part of a supervisor's log that is of interest here."""

    event: str
    child: str = ""
    models: list[str] = []


def measure(file: str) -> dict[str, float]:
    """One start: milliseconds by mark."""
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "supervisor", "up", file, "--port", str(port)]
        began = time.monotonic()
        started = subprocess.Popen(
            [*command, "--namespace", f"startup-{port}"],
            env={**os.environ, "UNDERSTUDY_STATE_DIR": state},
            stderr=subprocess.PIPE,
        )
        try:
            return _watch(started, began, f"http://127.0.0.1:{port}")
        finally:
            started.terminate()
            try:
                started.communicate(timeout=END_S)
            except subprocess.TimeoutExpired:
                started.kill()
                started.communicate()


def _watch(started: subprocess.Popen[bytes], began: float, url: str) -> dict[str, float]:
    marks: dict[str, float] = {}
    assert started.stderr is not None
    for raw in started.stderr:
        try:
            line = msgspec.json.decode(raw, type=Line)
        except msgspec.MsgspecError:
            continue  # what is no line of the log
        now_ms = (time.monotonic() - began) * 1000
        if line.event in {"child_starting", "child_ready"}:
            marks.setdefault(f"{line.child} {line.event.removeprefix('child_')}", now_ms)
        if line.event == "ready":
            marks["all ready"] = now_ms
            _ask(url, line.models[0])
            marks["first answer"] = (time.monotonic() - began) * 1000
            return marks
    raise RuntimeError("the service ended before it was ready")


def _ask(url: str, model: str) -> None:
    asked = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 1}
    request = urllib.request.Request(  # noqa: S310 - to ourselves
        f"{url}/v1/chat/completions",
        msgspec.json.encode(asked),
        {"Content-Type": "application/json"},
    )
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:  # noqa: S310
                answer.read()
                return
        except urllib.error.HTTPError:
            if time.monotonic() > deadline:
                raise


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", default=FILES, metavar="FILE")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    for file in arguments.files:
        measure(file)
        runs = [measure(file) for _ in range(arguments.runs)]
        print(f"\n{Path(file).name}: milliseconds after the command, {len(runs)} starts")
        print(f"  {'':<28}{'median':>9}{'least':>9}{'most':>9}")
        for mark in runs[0]:
            values = [run[mark] for run in runs]
            middle = statistics.median(values)
            print(f"  {mark:<28}{middle:>9.0f}{min(values):>9.0f}{max(values):>9.0f}")


if __name__ == "__main__":
    main()
