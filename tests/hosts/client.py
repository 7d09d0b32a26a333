"""Streams on one host, each of which must bring every token of its reference; run by the tests.

    python -m tests.hosts.client http://127.0.0.1:8080 STREAMS TOKENS

Prints `begun` when every stream has begun, then one line of JSON for each: verdict and problem.
"""

from __future__ import annotations

import asyncio
import random
import sys

import msgspec

from bench.disturb.stream import Asked, Stream, run

PATIENCE_S = 120.0


async def main(url: str, number: int, tokens: int) -> None:
    host, _, port = url.removeprefix("http://").rpartition(":")
    dice = random.Random(7)
    streams = [Stream(Asked.random(dice, tokens), host, n) for n in range(number)]
    async with asyncio.TaskGroup() as group:
        for stream in streams:
            group.create_task(run(stream, (host, int(port)), timeout_s=PATIENCE_S))
        while not all(stream.begun or stream.verdict for stream in streams):  # noqa: ASYNC110 - no event of ours
            await asyncio.sleep(0.01)
        print("begun", flush=True)
    for stream in streams:
        said = {"verdict": stream.verdict, "problem": stream.problem, "gap_s": stream.silence_s}
        print(msgspec.json.encode(said).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
