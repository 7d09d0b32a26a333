"""What traces cost, on and off.

    python -m bench.tracing_cost [--rounds 3] [--counts]

First counts, as `bench.guard` takes them: a whole service in this process and in virtual time, not
traced and then traced. What the exporter's own thread does is not among them. Then CPU: two
services of `topologies/simulated.yaml` in real processes, one traced, get the same load in turn,
streams and then whole answers. Spans go to a collector in another process, which takes and forgets
them; every request is traced. `--counts`: those alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

from actors.runtime.tracing import TracingSettings
from bench.guard import ENVIRONMENT, Figures, measure
from bench.guarding.counting import counting
from bench.guarding.service import Loop
from bench.load import Run
from bench.serving import Served, serving

TOPOLOGY = Path(__file__).parents[1] / "topologies" / "simulated.yaml"
KINDS = {
    "streams of 128 tokens": ("--concurrency=64", "--requests=192", "--output-tokens=128"),
    "whole answers of 1 token": (
        "--concurrency=16",
        "--requests=1500",
        "--output-tokens=1",
        "--no-stream",
    ),
}
COUNTED = ("instructions", "calls", "c_calls", "messages", "wire_bytes")


class Sink(BaseHTTPRequestHandler):
    """Takes spans, and forgets them."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def collecting() -> Iterator[str]:
    """The address of a collector in a process of its own."""
    command = (sys.executable, "-m", "bench.tracing_cost", "--sink")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def be_sink() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


def count(tracing: TracingSettings | None) -> dict[str, Figures]:
    with counting() as counts, asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(measure(counts, tracing))


def counts(url: str) -> str:
    """A table. Not traced comes first: nothing of OpenTelemetry may have been loaded by then."""
    off = count(None)
    loaded = [name for name in sys.modules if name.startswith("opentelemetry")]
    on = count(TracingSettings(endpoint=url))
    lines = [f"modules of OpenTelemetry loaded where nothing is traced: {len(loaded)}"]
    for case, figures in off.items():
        lines += ["", f"{case:<24}{'off':>12}{'on':>12}{'':>9}"]
        for name in COUNTED:
            before, now = figures[name], on[case][name]
            change = f"{now / before - 1:+.1%}" if before else ""
            lines.append(f"  {name:<22}{before:>12.2f}{now:>12.2f}{change:>9}")
    return "\n".join(lines)


def load(served: Served, arguments: tuple[str, ...], result: Path) -> Run:
    """One load on one service."""
    command = (
        *(sys.executable, "-m", "bench.load", "--url", served.url, "--model", served.model),
        *("--api=completions", "--ignore-eos", "--input-tokens=64", *arguments),
        *("--cpu-of", str(served.supervisor.pid), "--json", str(result)),
    )
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return msgspec.json.decode(result.read_bytes(), type=Run)


async def cpu(url: str, rounds: int) -> str:
    """A table."""
    used: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        for name in ("off", "on"):
            (base / name).mkdir()
        async with (
            serving(TOPOLOGY, base / "off") as off,
            serving(TOPOLOGY, base / "on", (f"tracing.endpoint={url}",)) as on,
        ):
            for turn in range(-1, rounds):  # the first warms up
                for kind, arguments in KINDS.items():
                    for name, served in (("off", off), ("on", on)):
                        done = await asyncio.to_thread(load, served, arguments, base / "run.json")
                        assert not done.summary.errors, done.summary
                        if turn >= 0:
                            ms = sum(one.cpu_s for one in done.cpu) * 1000
                            used.setdefault((kind, name), []).append(ms / done.summary.succeeded)
    lines = [f"{'CPU of a request, ms':<28}{'off':>10}{'on':>10}{'':>9}   {rounds} rounds"]
    for kind in KINDS:
        off_ms, on_ms = (statistics.median(used[kind, name]) for name in ("off", "on"))
        each = " ".join(
            f"{b:.2f}/{a:.2f}" for b, a in zip(used[kind, "off"], used[kind, "on"], strict=True)
        )
        lines.append(f"{kind:<28}{off_ms:>10.3f}{on_ms:>10.3f}{on_ms / off_ms - 1:>+9.1%}   {each}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--counts", action="store_true")
    parser.add_argument("--sink", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sink:
        be_sink()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of a set must not be another each time.
        command = [sys.executable, "-m", "bench.tracing_cost", *sys.argv[1:]]
        return subprocess.run(command, env=ENVIRONMENT, check=False).returncode
    with collecting() as url:
        print(counts(url), flush=True)
        if not arguments.counts:
            print(f"\n{asyncio.run(cpu(url, arguments.rounds))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
