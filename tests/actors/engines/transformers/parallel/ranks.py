"""Engines over several ranks in one MPI program, for tests that drive them from outside.

    mpirun -n 3 python -m tests.actors.engines.transformers.parallel.ranks DIRECTORY OPTIONS 1 2

with a server of one rank and one of two. OPTIONS are a `TransformersOptions` in JSON, but for the
size. The leader of server N listens on DIRECTORY/N, for one connection: lines of requests
(JSON, msgspec's), answered by lines of what they came to (MessagePack in base64). Ends with its
connection.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from pathlib import Path

import msgspec

from actors.engines import world
from actors.engines.base import Request
from actors.engines.transformers import TransformersEngine, TransformersOptions
from actors.engines.transformers.parallel.follower import follow
from tests.actors.engines.transformers.harness import Result, play

LINE_BYTES = 1 << 20


class Orders(msgspec.Struct):
    """One line: requests to run together, prefills to release first, and whether to end."""

    requests: list[Request] = []
    release: list[int] = []


async def lead(options: TransformersOptions, path: Path) -> None:
    engine = TransformersEngine(options)
    await engine.start()
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                orders = msgspec.json.decode(line, type=Orders)
                for number in orders.release:
                    engine.release(number)
                results = await play(engine, orders.requests)
                # JSON has no NaN, which the first token of a prompt has for a log probability.
                writer.write(base64.b64encode(msgspec.msgpack.encode(results)) + b"\n")
        finally:
            writer.close()
            over.set()

    async with await asyncio.start_unix_server(serve, path, limit=LINE_BYTES):
        await over.wait()
    await engine.close()


def main() -> None:
    directory, options, *sizes = sys.argv[1:]
    rank, first, number, size = world.place()[0], 0, -1, 0
    while rank >= first + size:
        first += size
        number += 1
        size = int(sizes[number])
    if rank == first:
        decoded = msgspec.json.decode(options, type=TransformersOptions)
        decoded = msgspec.structs.replace(decoded, tensor_parallel_size=size)
        asyncio.run(lead(decoded, Path(directory) / str(number)))
        code = 0
    else:
        code = follow(first, size)
    if code == 0:
        world.finalize()
    os._exit(code)


__all__ = ("Orders", "Result")

if __name__ == "__main__":
    main()
