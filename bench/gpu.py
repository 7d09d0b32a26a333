"""The Transformers engine on a CUDA device: tokens a second, and handoffs between two processes.

    python -m bench.gpu [--json FILE]

The model is a Llama of 1.1 billion parameters (TinyLlama's shape) with random weights in bfloat16:
what it says is noise, what it costs is not. Measured beside each other on the same device:

- prefill and decode tokens/s of this engine at several batch sizes,
- the same of `model.generate` of Transformers, with its own default cache,
- the bound that memory sets on decoding: every step reads all weights, and the KV of all sequences,
  once; bytes over the bandwidth that a large copy reaches.

Then a second process computes prompts and hands their KV blocks to this one over TCP, both on the
one device. Before all that the demonstration model answers in float32 on the CPU, on the device
with and without CUDA graphs, and through a handoff; its greedy tokens must be the same everywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import operator
import statistics
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from actors.engines.base import Handoff, Phase, Request
from actors.engines.transformers import TransformersEngine, TransformersOptions
from actors.messages.sampling import Sampling

PROMPT_TOKENS = 512
OUTPUT_TOKENS = 128
VOCABULARY = 32_000
CAPITALS = Path(__file__).parents[1] / "topologies" / "models" / "capitals"
HANDOFFS = 20
LONG_PROMPT_TOKENS = 2048
_COLUMNS = ("prefill", "generate", "decode", "generate", "bound")


class Rate(msgspec.Struct):
    """What one batch size reached, in tokens a second of all sequences together."""

    batch: int
    prefill: float
    decode: float
    generate_prefill: float
    generate_decode: float
    decode_bound: float


class HandoffTimes(msgspec.Struct):
    """Of one prompt length; milliseconds from submitting the decode to its blocks' arrival."""

    prompt_tokens: int
    megabytes: float
    p50_ms: float
    max_ms: float


class Report(msgspec.Struct):
    device: str
    torch: str
    answers: dict[str, float]
    """Of the demonstration model: the share of greedy tokens equal to those on the CPU."""
    bandwidth_gb_s: float
    """Bytes read plus bytes written by a large device-to-device copy."""
    parameters: int
    rates: list[Rate]
    handoffs: list[HandoffTimes]


def make_model(directory: Path) -> int:
    """Write the random checkpoint; the number of its parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        vocab_size=VOCABULARY,
        max_position_embeddings=8192,
        dtype=torch.bfloat16,
    )
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(directory)
    return sum(parameter.numel() for parameter in model.parameters())


def prompts(batch: int, length: int, salt: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1000 * salt + batch)
    return torch.randint(3, VOCABULARY, (batch, length), generator=generator).tolist()


def on_gpu(model: str) -> TransformersOptions:
    return TransformersOptions(
        model=model,
        device="cuda",
        kv_memory="16GiB",
        max_step_tokens=8192,
        prefix_cache=False,
        transport="tcp",
    )


@asynccontextmanager
async def running(options: TransformersOptions) -> AsyncIterator[TransformersEngine]:
    engine = TransformersEngine(options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def request(
    number: int, prompt: Sequence[int], tokens: int, phase: Phase, handoff: Handoff | None = None
) -> Request:
    sampling = Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    return Request(number, array("I", prompt).tobytes(), sampling, phase, handoff)


class Ran(msgspec.Struct):
    """One batch through an engine."""

    tokens: dict[int, list[int]] = {}
    first_s: float = 0.0
    """Until every sequence had its first token."""
    total_s: float = 0.0


async def run_batch(
    engine: TransformersEngine, batch: Sequence[Sequence[int]], tokens: int, first_number: int
) -> Ran:
    began = time.perf_counter()
    ran = Ran({first_number + index: [] for index in range(len(batch))})
    for index, prompt in enumerate(batch):
        engine.submit(request(first_number + index, prompt, tokens, "whole"))
    left = len(batch)
    async with aclosing(engine.steps()) as steps:  # type: ignore[type-var]  # a generator in fact
        async for outputs in steps:
            for output in outputs:
                ran.tokens[output.id] += output.tokens
                left -= output.finish is not None
            if not ran.first_s and all(ran.tokens.values()):
                ran.first_s = time.perf_counter() - began
            if not left:
                break
    ran.total_s = time.perf_counter() - began
    return ran


def run_generate(model: Any, batch: Sequence[Sequence[int]], tokens: int) -> Ran:
    """The same by Transformers' own loop: once for the first token alone, once for all."""
    ids = torch.tensor(batch, device="cuda")

    def timed(count: int) -> tuple[float, list[list[int]]]:
        torch.cuda.synchronize()
        began = time.perf_counter()
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
        )
        torch.cuda.synchronize()
        return time.perf_counter() - began, found[:, ids.shape[1] :].tolist()

    timed(1)
    first_s, _ = timed(1)
    total_s, found = timed(tokens)
    return Ran(dict(enumerate(found)), first_s, total_s)


def bandwidth() -> float:
    """Bytes a second, read plus written, of a copy that fits no cache."""
    source = torch.randint(0, 255, (2 << 30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(12):
        torch.cuda.synchronize()
        began = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * source.numel() / statistics.median(times[2:])


def decode_bound(parameters: int, batch: int, bytes_per_s: float) -> float:
    """Tokens a second if a step only read weights and KV, each once, in bfloat16."""
    kv_bytes = 2 * 22 * 2 * 4 * 64 * (PROMPT_TOKENS + OUTPUT_TOKENS / 2)
    return batch * bytes_per_s / (2 * parameters + batch * kv_bytes)


def serve_prefills(options: TransformersOptions, pipe: Connection) -> None:
    """A neighbour's process: prompts in, handoffs out, until None comes."""

    async def serve() -> None:
        async with running(options) as engine:
            steps = engine.steps()
            pipe.send("ready")
            number = 0
            while (prompt := await asyncio.to_thread(pipe.recv)) is not None:
                engine.submit(request(number, prompt, OUTPUT_TOKENS, "prefill"))
                while (handoff := (await anext(steps)).full[0].handoff) is None:
                    pass
                pipe.send((handoff.first_token, handoff.ticket))
                await asyncio.to_thread(pipe.recv)  # the other side has fetched
                engine.release(number)
                number += 1

    asyncio.run(serve())


class Neighbour:
    """An engine in a process of its own that computes prompts for this one."""

    def __init__(self, options: TransformersOptions) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve_prefills, args=(options, theirs))
        self._process.start()
        self._pipe.recv()

    async def complete(
        self, engine: TransformersEngine, number: int, prompt: Sequence[int], tokens: int
    ) -> tuple[list[int], float]:
        """Prefill over there, decode here: all tokens, and the seconds that the fetch took."""
        self._pipe.send(prompt)
        first, ticket = await asyncio.to_thread(self._pipe.recv)
        began = time.perf_counter()
        fetched_s = 0.0
        engine.submit(request(number, prompt, tokens, "decode", Handoff(first, ticket)))
        decoded = [first]
        async with aclosing(engine.steps()) as steps:  # type: ignore[type-var]  # a generator in fact
            async for outputs in steps:
                [output] = outputs
                if output.fetched:
                    fetched_s = time.perf_counter() - began
                    self._pipe.send("fetched")
                decoded += output.tokens
                if output.finish is not None:
                    break
        return decoded, fetched_s

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join()


async def check_answers() -> dict[str, float]:
    """The demonstration model, whose answers mean something, everywhere it can run."""
    asked = [[(31 * i + 7 * j) % 400 + 5 for j in range(40)] for i in range(16)]
    plain = msgspec.structs.replace(on_gpu(str(CAPITALS)), dtype="float32", kv_memory="64MiB")
    variants = {
        "CPU": msgspec.structs.replace(plain, device="cpu"),
        "CUDA": plain,
        "CUDA, no graphs": msgspec.structs.replace(plain, cuda_graphs=False),
    }
    found: dict[str, list[list[int]]] = {}
    for name, options in variants.items():
        async with running(options) as engine:
            found[name] = list((await run_batch(engine, asked, 32, 0)).tokens.values())
    neighbour = Neighbour(plain)
    async with running(plain) as engine:
        found["CUDA, handed over"] = [
            (await neighbour.complete(engine, number, prompt, 32))[0]
            for number, prompt in enumerate(asked)
        ]
    neighbour.close()
    expected = [token for tokens in found.pop("CPU") for token in tokens]
    return {
        name: sum(map(operator.eq, expected, (t for tokens in answers for t in tokens)))
        / len(expected)
        for name, answers in found.items()
    }


async def measure_handoffs(model_path: str) -> list[HandoffTimes]:
    found = []
    neighbour = Neighbour(on_gpu(model_path))
    async with running(on_gpu(model_path)) as engine:
        for length in (PROMPT_TOKENS, LONG_PROMPT_TOKENS):
            times = []
            for number, prompt in enumerate(prompts(HANDOFFS, length, salt=7)):
                _, seconds = await neighbour.complete(engine, number, prompt, 2)
                times.append(1e3 * seconds)
            megabytes = 2 * 22 * 2 * 4 * 64 * length / 1e6
            found.append(HandoffTimes(length, megabytes, statistics.median(times), max(times)))
    neighbour.close()
    return found


async def measure_rates(
    model_path: str, batches: Sequence[int], parameters: int, bytes_per_s: float
) -> list[Rate]:
    reference = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.bfloat16).to("cuda")
    rates = []
    number = 0
    async with running(on_gpu(model_path)) as engine:
        for batch in batches:
            for salt in (1, 0):  # the first pass warms kernels and allocators up
                given = prompts(batch, PROMPT_TOKENS, salt)
                ours = await run_batch(engine, given, OUTPUT_TOKENS, number)
                number += batch
            theirs = run_generate(reference, given, OUTPUT_TOKENS)
            prompt, output = batch * PROMPT_TOKENS, batch * (OUTPUT_TOKENS - 1)
            rates.append(
                Rate(
                    batch,
                    prompt / ours.first_s,
                    output / (ours.total_s - ours.first_s),
                    prompt / theirs.first_s,
                    output / (theirs.total_s - theirs.first_s),
                    decode_bound(parameters, batch, bytes_per_s),
                )
            )
    del reference
    torch.cuda.empty_cache()
    return rates


def table(report: Report) -> str:
    lines = [
        f"{report.device}, torch {report.torch}, copies at {report.bandwidth_gb_s:.0f} GB/s",
        f"{report.parameters / 1e9:.2f}e9 parameters in bfloat16",
        *(
            f"demonstration model, {name}: {share:.1%} as on the CPU"
            for name, share in report.answers.items()
        ),
        f"prompts of {PROMPT_TOKENS}, outputs of {OUTPUT_TOKENS} tokens; tokens/s",
        "",
        f"{'batch':>5}" + "".join(f"{name:>11}" for name in _COLUMNS),
    ]
    lines += [
        f"{rate.batch:>5}{rate.prefill:>11.0f}{rate.generate_prefill:>11.0f}{rate.decode:>11.0f}"
        f"{rate.generate_decode:>11.0f}{rate.decode_bound:>11.0f}"
        for rate in report.rates
    ]
    lines += ["", "handoff to another process on the same device, over TCP"]
    lines += [
        f"{one.prompt_tokens:>5} tokens, {one.megabytes:.1f} MB: p50 {one.p50_ms:.1f} ms, "
        f"max {one.max_ms:.1f} ms"
        for one in report.handoffs
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--json", type=Path, help="write the report here, too")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(2, "bench.gpu: torch sees no CUDA device\n")
    with tempfile.TemporaryDirectory() as directory:
        parameters = make_model(Path(directory))
        answers = asyncio.run(check_answers())
        bytes_per_s = bandwidth()
        rates = asyncio.run(measure_rates(directory, arguments.batches, parameters, bytes_per_s))
        handoffs = asyncio.run(measure_handoffs(directory))
    report = Report(
        torch.cuda.get_device_name(),
        str(torch.__version__),
        answers,
        bytes_per_s / 1e9,
        parameters,
        rates,
        handoffs,
    )
    print(table(report))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(msgspec.to_builtins(report), indent=1) + "\n")


if __name__ == "__main__":
    main()
