"""How cost grows with streams, workers, prompts and ingress nodes: real processes, simulated
engines.

    python -m bench.growth                          everything (10 minutes), JSON and a plot
    python -m bench.growth --only streams --streams 1 100 1000
    python -m bench.growth --only workers

    streams   so many at once on one ingress, paced so that about 2000 tokens a second come (a step
              of 6 ms at least, 2.5 s at most): CPU of each role for a token, memory for a stream
    workers   so many aggregated workers, 50 a process, at 20 requests a second: CPU of the router
              for a request and at rest, memory of the router, time to serving
    prompts   of so many tokens, sent as ids: CPU of each role for a prompt token, time to first
              token of an engine that takes none
    nodes     so many processes with an ingress, a preprocessor and a router each on one port, 200
              streams: CPU of all of them for a token

CPU is that of the processes from /proc, the client's not among them; of streams from the last one's
first token on.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import uvloop
import yaml

from bench.growth_plot import plot
from bench.serving import Served, serving

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "topologies" / "models" / "capitals"
RESULTS = Path(__file__).parent / "results"
TOKENS_PER_S = 2000.0
STEP_MS = (6.0, 2500.0)
LOOK_S = 8.0
OPENING = 400
"""Streams that wait for their first token at a time, while the load is being built up."""
ACTORS_PER_NODE = 50
RATE = 20.0
FRONT = ("router", "preprocessor", "ingress")


class Point(msgspec.Struct):
    """One measurement. Which figures there are depends on what grew."""

    what: str
    size: int
    figures: dict[str, float]


def engine(**options: Any) -> dict[str, Any]:
    """A simulated engine whose prompts take no time, and whose steps take what is asked for."""
    nothing = {"quadratic": 0.0, "linear": 0.0, "constant": 0.0}
    return {
        "kind": "simulated",
        "tokenizer": str(MODEL),
        "prefill_ms": nothing,
        "max_step_tokens": 1_000_000,
        "max_running": 20_000,
        "max_waiting": 20_000,
        "max_context_tokens": 200_000,
        "blocks": 500_000,
        **options,
    }


def paced(step_ms: float) -> dict[str, Any]:
    return engine(decode_ms={"quadratic": 0.0, "linear": 0.0, "constant": step_ms})


def worker(made: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"actor": "aggregated", "options": {"model": "simulated", "engine": made}, **more}


def topology(base: Path, children: list[dict[str, Any]]) -> Path:
    """A file with these children."""
    path = base / "growth.yaml"
    path.write_text(yaml.safe_dump({"namespace": "growth", "children": children}))
    return path


def front(**ingress: Any) -> list[dict[str, Any]]:
    options = {"max_requests": 20_000, **ingress}
    admission = {"queue": 20_000, "prefill_tokens": 10_000_000, "max_wait_s": 60.0}
    return [
        {"actor": "router", "options": {"admission": admission}},
        {"actor": "preprocessor"},
        {"actor": "ingress", "options": options},
    ]


class Meter:
    """What all streams have seen."""

    def __init__(self) -> None:
        self.begun = 0
        self.tokens = 0
        self.lost: list[str] = []
        self.news = asyncio.Event()


class Stream(asyncio.Protocol):
    """One request and its events, counted."""

    def __init__(self, request: bytes, meter: Meter) -> None:
        self._request = request
        self._meter = meter
        self._head = b""
        self._ended = False
        self.begun = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's do what asyncio's do and are no subclasses of them.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        tokens = data.count(b'"text":"') - data.count(b'"text":""')
        self._meter.tokens += tokens
        self._ended = self._ended or b"[DONE]" in data
        if tokens and not self.begun:
            self.begun = True
            self._meter.begun += 1
            self._meter.news.set()
        elif not self.begun:
            self._head += data

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.begun:
            self._meter.lost.append(f"{exc!r} {self._head[:300]!r}")
            self._meter.news.set()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()


def request_of(url: str, body: dict[str, Any]) -> bytes:
    """A POST to /v1/completions."""
    encoded = msgspec.json.encode(body)
    host = urlsplit(url).netloc
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(encoded)}\r\n\r\n"
    )
    return head.encode() + encoded


async def send(served: Served, body: dict[str, Any], meter: Meter) -> Stream:
    """One request on a connection of its own."""
    url = urlsplit(served.url)
    assert url.hostname is not None
    assert url.port is not None
    request = request_of(served.url, body)
    _, stream = await asyncio.get_running_loop().create_connection(
        lambda: Stream(request, meter), url.hostname, url.port
    )
    return stream


async def streams_open(served: Served, count: int, meter: Meter) -> list[Stream]:
    """So many streams, each of which has got its first token."""
    opened: list[Stream] = []
    while len(opened) < count:
        while len(opened) - meter.begun >= OPENING:
            await _progress(meter)
        body = {
            "model": served.model,
            "prompt": f"Stream {len(opened)} about the capital of France",
            "max_tokens": 100_000,
            "ignore_eos": True,
            "stream": True,
            "seed": len(opened),
        }
        stream = await send(served, body, meter)
        opened.append(stream)
    while meter.begun < count:
        await _progress(meter)
    return opened


async def _progress(meter: Meter) -> None:
    if meter.lost:
        raise SystemExit(f"a stream ended without a token: {meter.lost[0]}")
    meter.news.clear()
    async with asyncio.timeout(120.0):
        await meter.news.wait()


async def look(served: Served, meter: Meter, seconds: float = LOOK_S) -> dict[str, float]:
    """Microseconds of CPU for each token, by child, and all of them together."""
    cpu, tokens, began = served.cpu_s(), meter.tokens, time.monotonic()
    await asyncio.sleep(seconds)
    spent = {child: used - cpu.get(child, used) for child, used in served.cpu_s().items()}
    got = max(1, meter.tokens - tokens)
    by_role = {f"us_per_token {role}": 0.0 for role in sorted({c.partition("/")[0] for c in spent})}
    for child, seconds_used in spent.items():
        by_role[f"us_per_token {child.partition('/')[0]}"] += seconds_used * 1e6 / got
    elapsed = time.monotonic() - began
    return {
        "us_per_token": sum(spent.values()) * 1e6 / got,
        "tokens_per_s": got / elapsed,
        **by_role,
    }


async def measure_streams(base: Path, count: int) -> Point:
    step_ms = min(max(count / TOKENS_PER_S * 1000, STEP_MS[0]), STEP_MS[1])
    children = [worker(paced(step_ms)), *front()]
    async with serving(topology(base, children), base) as served:
        meter = Meter()
        for stream in await streams_open(served, 1, meter):
            stream.close()  # everything has been used once
        before = served.resident_mb()
        meter = Meter()
        opened = await streams_open(served, count, meter)
        figures = await look(served, meter, max(LOOK_S, 3 * step_ms / 1000))
        after = served.resident_mb()
        for role in (*FRONT, "aggregated"):
            grown = after[f"{role}/0"] - before[f"{role}/0"]
            figures[f"kb_per_stream {role}"] = grown * 1000 / count
        figures["mb ingress"] = after["ingress/0"]
        figures["step_ms"] = step_ms
        for stream in opened:
            stream.close()
    return Point("streams", count, figures)


async def measure_workers(base: Path, count: int) -> Point:
    made = engine(decode_ms={"quadratic": 0.0, "linear": 0.0, "constant": 5.0}, blocks=4096)
    each = min(count, ACTORS_PER_NODE)
    crowd = {
        "name": "crowd",
        "replicas": count // each,
        # Two actors of one process need roles of their own; the router goes by what they are.
        "actors": [worker(made, role=f"worker{number}") for number in range(each)],
    }
    began = time.monotonic()
    async with serving(topology(base, [crowd, *front()]), base) as served:
        serving_s = time.monotonic() - began
        await asyncio.sleep(3.0)
        rest = await used_by(served, "router/0", LOOK_S)
        meter = Meter()
        sending = asyncio.create_task(_requests(served, meter))
        await asyncio.sleep(2.0)
        begun, cpu = meter.begun, served.cpu_s()["router/0"]
        await asyncio.sleep(LOOK_S)
        cpu, answered = served.cpu_s()["router/0"] - cpu, max(1, meter.begun - begun)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        figures = {
            "serving_s": serving_s,
            "at rest, ms of CPU a second": rest * 1000,
            "us of CPU a request": (cpu - rest * LOOK_S) * 1e6 / answered,
            "MB of memory": served.resident_mb()["router/0"],
        }
    return Point("workers", count, figures)


async def used_by(served: Served, child: str, seconds: float) -> float:
    """Seconds of CPU for each second."""
    before = served.cpu_s()[child]
    await asyncio.sleep(seconds)
    return (served.cpu_s()[child] - before) / seconds


async def _requests(served: Served, meter: Meter, **body: Any) -> None:
    """Short streams at a fixed rate, until cancelled."""
    due, number = time.monotonic(), 0
    while True:
        due, number = due + 1 / RATE, number + 1
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        said = {
            "model": served.model,
            "prompt": f"Request {number} about the capital of France",
            "max_tokens": 2,
            "stream": True,
            **body,
        }
        await send(served, said, meter)


async def measure_prompts(base: Path, tokens: int) -> Point:
    children = [worker(engine(speedup=0)), *front()]
    async with serving(topology(base, children), base) as served:
        meter = Meter()
        rounds = max(10, min(200, 1_000_000 // tokens))
        waits: list[float] = []
        before = served.cpu_s()
        for number in range(rounds + 1):
            if number == 1:
                before = served.cpu_s()  # the first one warms up
            prompt = [300 + (number * 7919 + at * 31) % 600 for at in range(tokens)]
            body = {
                "model": served.model,
                "prompt": prompt,
                "max_tokens": 1,
                "stream": True,
                "ignore_eos": True,
            }
            sent, expected = time.monotonic(), meter.begun + 1
            stream = await send(served, body, meter)
            while meter.begun < expected:
                await _progress(meter)
            waits.append(time.monotonic() - sent)
            stream.close()
        spent = {child: used - before.get(child, used) for child, used in served.cpu_s().items()}
        figures = {
            "ttft_ms": statistics.median(waits[1:]) * 1000,
            "us_per_prompt_token": sum(spent.values()) * 1e6 / (rounds * tokens),
        }
        for role in (*FRONT, "aggregated"):
            figures[f"us_per_prompt_token {role}"] = spent[f"{role}/0"] * 1e6 / (rounds * tokens)
    return Point("prompts", tokens, figures)


async def measure_nodes(base: Path, count: int) -> Point:
    streams = 200
    actors = front(reuse_port=True)
    children = [
        worker(paced(streams / TOKENS_PER_S * 1000)),
        {"name": "front", "replicas": count, "actors": actors},
    ]
    async with serving(topology(base, children), base) as served:
        meter = Meter()
        opened = await streams_open(served, streams, meter)
        figures = await look(served, meter)
        for stream in opened:
            stream.close()
    return Point("nodes", count, figures)


MEASURES = {
    "streams": measure_streams,
    "workers": measure_workers,
    "prompts": measure_prompts,
    "nodes": measure_nodes,
}
SIZES: dict[str, Sequence[int]] = {
    "streams": (1, 10, 100, 1000, 10_000),
    "workers": (1, 10, 100, 1000),
    "prompts": (100, 1000, 10_000, 100_000),
    "nodes": (1, 2, 4),
}


async def run(sizes: dict[str, Sequence[int]]) -> list[Point]:
    points = []
    for what, listed in sizes.items():
        for size in listed:
            with tempfile.TemporaryDirectory() as base:
                try:
                    point = await MEASURES[what](Path(base), size)
                except (TimeoutError, OSError) as error:
                    print(f"{what} {size}: not measured: {error!r}", flush=True)
                    continue
            points.append(point)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in point.figures.items())
            print(f"{what} {size}: {shown}", flush=True)
    return points


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    for name, sizes in SIZES.items():
        parser.add_argument(f"--{name}", nargs="+", type=int, default=sizes)
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS / "growth.json")
    parser.add_argument("--plot", type=Path, metavar="FILE", default=RESULTS / "growth.svg")
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < max(arguments.streams) + 500 and "streams" in arguments.only:
        print(f"only {hard} open files are allowed ({soft} before): fewer streams will do")
    points = uvloop.run(run({name: getattr(arguments, name) for name in arguments.only}))
    arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(points)) + b"\n")
    arguments.plot.write_text(plot(points), encoding="utf-8")
    print(f"{arguments.json}, {arguments.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
