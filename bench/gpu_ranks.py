"""The Transformers engine split over two CUDA devices: sums over NCCL, tokens a second.

    python -m bench.gpu_ranks [--ranks 2] [--json FILE]

Starts itself under mpirun, one rank a device, once for each question: does the demonstration model
say on several devices what it says on the CPU (float32, greedy), and how fast are the 1.1 billion
parameters of `bench.gpu` on one device and on several, without CUDA graphs both times, as an
engine of several ranks has none. Its vectors (embeddings) are compared, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import operator
import os
import subprocess
import sys
import tempfile
from array import array
from contextlib import aclosing
from pathlib import Path

import msgspec
import torch

from actors.engines import world
from actors.engines.base import Request
from actors.engines.prompts import pack_tokens
from actors.engines.transformers import TransformersOptions
from actors.engines.transformers.parallel.follower import follow
from actors.messages.sampling import Sampling
from bench.gpu import (
    CAPITALS,
    OUTPUT_TOKENS,
    PROMPT_TOKENS,
    make_model,
    on_gpu,
    prompts,
    run_batch,
    running,
)
from supervisor.launchers.mpirun import ENVIRONMENT, command, find_mpirun

BATCHES = (1, 8, 64)
ASKED = [[(31 * i + 7 * j) % 400 + 5 for j in range(40)] for i in range(16)]
ANSWER_TOKENS = 32
DEADLINE_S = 240


class Speed(msgspec.Struct):
    """Of one batch size; tokens a second of all sequences together."""

    batch: int
    prefill: float
    decode: float


class Report(msgspec.Struct):
    device: str
    torch: str
    ranks: int
    answers: float
    """The demonstration model: the share of greedy tokens equal to those on the CPU."""
    vectors: float
    """The demonstration model: the largest difference of a number in its vectors from the CPU's."""
    one: list[Speed]
    several: list[Speed]


def small(device: str, ranks: int) -> TransformersOptions:
    """The demonstration model, in the CPU's precision."""
    options = on_gpu(str(CAPITALS))
    return msgspec.structs.replace(
        options, dtype="float32", kv_memory="64MiB", device=device, tensor_parallel_size=ranks
    )


def large(model: str, ranks: int) -> TransformersOptions:
    return msgspec.structs.replace(on_gpu(model), cuda_graphs=False, tensor_parallel_size=ranks)


async def answers(options: TransformersOptions) -> list[int]:
    """All tokens of all answers, in the order asked."""
    async with running(options) as engine:
        ran = await run_batch(engine, ASKED, ANSWER_TOKENS, 0)
    return [token for tokens in ran.tokens.values() for token in tokens]


async def vectors(options: TransformersOptions) -> list[float]:
    """All numbers of the vectors of all that is asked, in its order."""
    wish = Sampling(max_tokens=1, temperature=0.0, prompt="embedding")
    found: dict[int, bytes] = {}
    async with running(options) as engine:
        for number, tokens in enumerate(ASKED):
            engine.submit(Request(number, pack_tokens(tokens), wish))
        async with aclosing(engine.steps()) as steps:  # type: ignore[type-var]  # a generator in fact
            async for outputs in steps:
                found |= {one.id: one.findings.embedding for one in outputs if one.findings}
                if len(found) == len(ASKED):
                    break
    return [value for number in range(len(ASKED)) for value in array("f", found[number])]


async def speeds(options: TransformersOptions) -> list[Speed]:
    found = []
    number = 0
    async with running(options) as engine:
        for batch in BATCHES:
            for salt in (1, 0):  # the first pass warms kernels and allocators up
                ran = await run_batch(
                    engine, prompts(batch, PROMPT_TOKENS, salt), OUTPUT_TOKENS, number
                )
                number += batch
            decode_s = ran.total_s - ran.first_s
            found.append(
                Speed(
                    batch,
                    batch * PROMPT_TOKENS / ran.first_s,
                    batch * (OUTPUT_TOKENS - 1) / decode_s,
                )
            )
    return found


def be_rank(question: str, model: str, result: Path) -> int:
    """Lead, and write what was found, or follow; the exit code."""
    rank, ranks = world.place()
    if rank > 0:
        code = follow(0, ranks)
    else:
        found: object
        match question:
            case "answers":
                found = asyncio.run(answers(small("cuda", ranks)))
            case "vectors":
                found = asyncio.run(vectors(small("cuda", ranks)))
            case _:
                found = asyncio.run(speeds(large(model, ranks)))
        result.write_bytes(msgspec.json.encode(found))
        code = 0
    if code == 0:
        world.finalize()
    os._exit(code)


def under_mpirun(question: str, model: str, ranks: int) -> bytes:
    """What the leading rank found. Raises CalledProcessError when the program failed."""
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "result.json"
        me = (sys.executable, "-m", "bench.gpu_ranks", "--rank", question, model, str(result))
        argv = command(find_mpirun(os.environ), ranks, me)
        environ = {**os.environ, **ENVIRONMENT}
        subprocess.run(argv, check=True, env=environ, timeout=DEADLINE_S)
        return result.read_bytes()


def table(report: Report) -> str:
    lines = [
        f"{report.device}, torch {report.torch}",
        f"demonstration model on {report.ranks} devices: {report.answers:.1%} as on the CPU",
        f"its vectors: within {report.vectors:.0e} of the CPU's",
        f"tokens/s on 1 device and on {report.ranks}; prompts of {PROMPT_TOKENS} tokens",
        f"{'batch':>5}{'prefill':>22}{'decode':>22}",
    ]
    lines += [
        f"{one.batch:>5}{one.prefill:>11.0f}{more.prefill:>11.0f}"
        f"{one.decode:>11.0f}{more.decode:>11.0f}"
        for one, more in zip(report.one, report.several, strict=True)
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the report here, too")
    parser.add_argument("--rank", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        question, model, result = arguments.rank
        be_rank(question, model, Path(result))
    if torch.cuda.device_count() < arguments.ranks:
        parser.exit(2, f"bench.gpu_ranks: torch sees fewer than {arguments.ranks} CUDA devices\n")
    with tempfile.TemporaryDirectory() as model:
        make_model(Path(model))
        expected = asyncio.run(answers(small("cpu", 1)))
        found = msgspec.json.decode(under_mpirun("answers", model, arguments.ranks), type=list[int])
        mine = asyncio.run(vectors(small("cpu", 1)))
        theirs = msgspec.json.decode(
            under_mpirun("vectors", model, arguments.ranks), type=list[float]
        )
        one = asyncio.run(speeds(large(model, 1)))
        several = msgspec.json.decode(
            under_mpirun("speeds", model, arguments.ranks), type=list[Speed]
        )
    report = Report(
        torch.cuda.get_device_name(),
        str(torch.__version__),
        arguments.ranks,
        sum(map(operator.eq, expected, found)) / len(expected),
        max(abs(a - b) for a, b in zip(mine, theirs, strict=True)),
        one,
        several,
    )
    print(table(report))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(msgspec.to_builtins(report), indent=1) + "\n")


if __name__ == "__main__":
    main()
