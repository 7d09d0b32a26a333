"""What killing the router costs the cache: hit rate before, and in each second after its return.

    python -m bench.router_loss              5 kills (1 minute), a table and JSON

Four context and two generation workers, simulated. Requests come at 25 a second, each with one of
48 prefixes of 1024 tokens and 32 tokens of its own; a worker can keep a third of the prefixes, so
whoever does not know where they are misses most of them. The router is killed under that load;
`back` is when its successor says that it is ready. What was in the cache is what the worker says
in the answer's usage, not what the router believed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import msgspec

from bench.serving import Served, serving

ROOT = Path(__file__).parents[1]
TOPOLOGY = ROOT / "topologies" / "simulated.yaml"
RESULTS = Path(__file__).parent / "results"
RATE = 25.0
PREFIXES = 48
PREFIX_TOKENS = 1024
OWN_TOKENS = 32
BLOCKS = 1024
CYCLE_S = 9.0
"""Between two kills: the child is stable again after 5 s, and is then restarted at once."""
WARM_UP_S = 12.0
SETS = (
    "children.context.replicas=4",
    "children.generation.replicas=2",
    f"children.context.options.engine.blocks={BLOCKS}",
    "supervision.intensity=1000",
)


class Asked(msgspec.Struct):
    """One request; times on the monotonic clock."""

    sent_s: float
    end_s: float = 0.0
    status: int = 0
    hit: float = 0.0
    """Share of the prompt that was in the worker's cache."""


class Kill(msgspec.Struct):
    """One kill; windows in seconds from when the successor was ready."""

    away_ms: float
    before: float
    """Hit rate of the 3 s before the kill."""
    while_away: float
    first_second: float
    second_second: float
    failed: int


class Results(msgspec.Struct):
    """What --json writes."""

    kills: list[Kill]
    requests: int
    failed: int
    random_placement: float
    """The hit rate that chance gives: what one worker can keep, of all prefixes."""


class Load:
    """Sends requests until it is stopped."""

    def __init__(self, served: Served, session: aiohttp.ClientSession) -> None:
        self.asked: list[Asked] = []
        self._served = served
        self._session = session
        self._rng = random.Random(7)
        self._prefixes = [
            [self._rng.randrange(10, 1000) for _ in range(PREFIX_TOKENS)] for _ in range(PREFIXES)
        ]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            due = time.monotonic()
            while True:
                due += self._rng.expovariate(RATE)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(self._ask())

    async def _ask(self) -> None:
        own = [self._rng.randrange(10, 1000) for _ in range(OWN_TOKENS)]
        body = {
            "model": self._served.model,
            "prompt": self._rng.choice(self._prefixes) + own,
            "max_tokens": 2,
            "ignore_eos": True,
        }
        asked = Asked(time.monotonic())
        self.asked.append(asked)
        async with self._session.post(f"{self._served.url}/v1/completions", json=body) as response:
            asked.status = response.status
            said = await response.json()
        asked.end_s = time.monotonic()
        if asked.status == 200:
            usage = said["usage"]
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            asked.hit = cached / usage["prompt_tokens"]

    def rate(self, since_s: float, until_s: float) -> float:
        """The hit rate of what was sent in a time."""
        hits = [
            one.hit for one in self.asked if since_s <= one.sent_s < until_s and one.status == 200
        ]
        return statistics.fmean(hits) if hits else float("nan")


async def run(kills: int) -> Results:
    connector = aiohttp.TCPConnector(limit=0)
    found = []
    with tempfile.TemporaryDirectory() as state:
        async with (
            serving(TOPOLOGY, Path(state), SETS) as served,
            aiohttp.ClientSession(connector=connector) as session,
        ):
            load = Load(served, session)
            loading = asyncio.create_task(load.run())
            await asyncio.sleep(WARM_UP_S)
            for _ in range(kills):
                lives = len(served.ready_at["router/0"])
                killed = time.monotonic()
                os.kill(served.pids["router/0"], signal.SIGKILL)
                back = await served.back("router/0", lives)
                await asyncio.sleep(max(0.0, killed + CYCLE_S - time.monotonic()))
                one = Kill(
                    away_ms=(back - killed) * 1000,
                    before=load.rate(killed - 3.0, killed),
                    while_away=load.rate(killed, back),
                    first_second=load.rate(back, back + 1.0),
                    second_second=load.rate(back + 1.0, back + 2.0),
                    failed=sum(
                        asked.status != 200
                        for asked in load.asked
                        if killed - 1.0 <= asked.sent_s < back + 2.0
                    ),
                )
                found.append(one)
                print(
                    f"away {one.away_ms:.0f} ms; hit rate before {one.before:.1%}, while away "
                    f"{one.while_away:.1%}, 1st second {one.first_second:.1%}, 2nd "
                    f"{one.second_second:.1%}; {one.failed} failed",
                    flush=True,
                )
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            ended = [asked for asked in load.asked if asked.status]
    keeps = BLOCKS * 16 / (PREFIXES * PREFIX_TOKENS)
    return Results(found, len(ended), sum(asked.status != 200 for asked in ended), keeps)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS / "router_loss.json")
    arguments = parser.parse_args()
    results = asyncio.run(run(arguments.kills))
    print(f"{results.requests} requests, {results.failed} failed")
    arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
