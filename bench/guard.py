"""Does a token, or a request, cost more than it did? Steady counts, held to stored ones.

    python -m bench.guard [--store]

A whole service runs in this process and in virtual time, under streams and then under whole
answers. Counted are what Python executes, the messages and bytes between the roles, and the writes
and bytes to the clients: the same on a busy machine, an idle one, and a slow one. More than 15 %
above bench/results/guard.json is a failure; `--store` takes the counts of now over, to be committed
with the change that explains them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from actors.runtime.tracing import TracingSettings
from bench.guarding.counting import Counts, counting
from bench.guarding.service import Loop, Service, request, service

STORED = Path(__file__).parent / "results" / "guard.json"
TOLERANCE = 0.15
STREAMS, TOKENS = 32, 48
REQUESTS, AT_ONCE = 96, 8
DONE = b"data: [DONE]\n\n\r\n0\r\n\r\n"
ENVIRONMENT = {**os.environ, "PYTHONHASHSEED": "0"}
OF_PYTHON = ("instructions", "calls", "c_calls")
"""Depend on the version of Python, and are stored for each."""

Figures = dict[str, float]


class Stored(msgspec.Struct):
    """What bench/results/guard.json holds: by case, then by count."""

    always: dict[str, Figures] = {}
    by_python: dict[str, dict[str, Figures]] = {}
    """By version, `3.11`."""


async def measure(counts: Counts, tracing: TracingSettings | None = None) -> dict[str, Figures]:
    """The counts of each case, per token or per request."""
    found: dict[str, Figures] = {}
    # Made before: what a client does for a request is not counted.
    to_stream = [request(number, TOKENS, stream=True) for number in range(STREAMS)]
    whole = [request(number, 1, stream=False) for number in range(REQUESTS)]
    async with service(tracing) as running:
        for name, work, units in (
            ("", streams(running, to_stream), STREAMS),  # fills caches; its counts are dropped
            ("streamed token", streams(running, to_stream), STREAMS * TOKENS),
            ("", answers(running, whole[:AT_ONCE]), AT_ONCE),
            ("whole answer", answers(running, whole), REQUESTS),
        ):
            found[name] = await counted(running, counts, work, units)
    del found[""]
    return found


async def counted(
    running: Service, counts: Counts, work: Coroutine[Any, Any, int], units: int
) -> Figures:
    """What a piece of work costs, divided by `units`."""
    before, messages, size = counts.copy(), running.wire.messages, running.wire.bytes
    to_clients = await work
    used = counts - before
    return {
        "instructions": used.instructions / units,
        "calls": used.calls / units,
        "c_calls": used.c_calls / units,
        "writes": used.writes / units,
        "messages": (running.wire.messages - messages) / units,
        "wire_bytes": (running.wire.bytes - size) / units,
        "client_bytes": to_clients / units,
    }


async def streams(running: Service, requests: Sequence[bytes]) -> int:
    """Streams side by side; the bytes that their clients got."""

    async def one(asked: bytes) -> int:
        with await running.connect() as client:
            answer = await running.exchange(client, asked, lambda got: got.endswith(DONE))
        assert answer.count(b"data: ") > TOKENS, answer[-300:]
        return len(answer)

    return sum(await asyncio.gather(*map(one, requests)))


async def answers(running: Service, requests: Sequence[bytes]) -> int:
    """Whole answers of one token on a few connections; the bytes that the clients got."""

    async def some(first: int) -> int:
        size = 0
        with await running.connect() as client:
            for asked in requests[first::AT_ONCE]:
                answer = await running.exchange(client, asked, is_whole)
                assert answer.startswith(b"HTTP/1.1 200 "), answer[:300]
                size += len(answer)
        return size

    return sum(await asyncio.gather(*map(some, range(AT_ONCE))))


def is_whole(answer: bytes) -> bool:
    """Whether an answer of known length is complete."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    length = next(
        (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0"
    )
    return bool(blank) and len(body) >= int(length.partition(b":")[2])


def compare(found: dict[str, Figures], stored: dict[str, Figures]) -> tuple[list[str], list[str]]:
    """A table of all that is stored, and one sentence for each count that has grown too much."""
    lines, worse = [], []
    for case, figures in stored.items():
        lines += ["", f"{case:<20}{'stored':>12}{'now':>12}{'change':>9}"]
        for name, before in figures.items():
            now = found[case][name]
            change = now / before - 1 if before else 0.0
            lines.append(f"  {name:<18}{before:>12.2f}{now:>12.2f}{change:>+9.1%}")
            if change > TOLERANCE:
                worse.append(
                    f"a {case} takes {now:.2f} {name}, {change:+.0%} ({before:.2f} stored)"
                )
    return lines, worse


def read_stored() -> Stored:
    try:
        return msgspec.json.decode(STORED.read_bytes(), type=Stored)
    except FileNotFoundError:
        return Stored()


def store(found: dict[str, Figures], version: str) -> None:
    stored = read_stored()
    stored.always = {
        case: {name: value for name, value in figures.items() if name not in OF_PYTHON}
        for case, figures in found.items()
    }
    # Counts of other versions are of other code now.
    stored.by_python = {
        version: {
            case: {name: figures[name] for name in OF_PYTHON} for case, figures in found.items()
        }
    }
    STORED.write_bytes(msgspec.json.format(msgspec.json.encode(stored)) + b"\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", action="store_true", help="take today's counts over")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of a set must not be another each time.
        command = [sys.executable, "-m", "bench.guard", *sys.argv[1:]]
        return subprocess.run(command, env=ENVIRONMENT, check=False).returncode
    version = ".".join(platform.python_version_tuple()[:2])
    with counting() as counts, asyncio.Runner(loop_factory=Loop) as runner:
        found = runner.run(measure(counts))
    if arguments.store:
        store(found, version)
        print(f"stored in {STORED}")
        return 0
    stored = read_stored()
    lines, worse = compare(found, stored.always)
    if version in stored.by_python:
        more, worse_too = compare(found, stored.by_python[version])
        lines, worse = lines + more, worse + worse_too
    else:
        lines += ["", f"what Python {version} executes is not stored: not compared"]
    print("\n".join(lines))
    if worse:
        print(f"\nMore than {TOLERANCE:.0%} above {STORED.name}:")
        print("\n".join(f"  {one}" for one in worse))
        print("Intended? python -m bench.guard --store, and commit it with the reason.")
    return int(bool(worse) or not stored.always)


if __name__ == "__main__":
    sys.exit(main())
