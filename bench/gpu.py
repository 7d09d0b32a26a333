"""The Transformers engine on a CUDA device: tokens a second, and handoffs between two processes.

    python -m bench.gpu [--json FILE]

The model is a Llama of 1.1 billion parameters (TinyLlama's shape) with random weights in bfloat16:
what it says is noise, what it costs is not. Measured beside each other on the same device:

- prefill and decode tokens/s of this engine at several batch sizes,
- the same of `model.generate` of Transformers, with its own default cache,
- the bound that memory sets on decoding: every step reads all weights, and the KV of all sequences,
  once; bytes over the bandwidth that a large copy reaches.

Then a second process computes prompts and hands their KV blocks to this one over TCP, both on the
one device, and the greedy tokens must be those of one engine alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from array import array
from collections.abc import Sequence
from contextlib import aclosing
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
HANDOFFS = 20
LONG_PROMPT_TOKENS = 2048
_COLUMNS = ("prefill", "generate", "decode", "generate", "bound", "same")


class Rate(msgspec.Struct):
    """What one batch size reached, in tokens a second of all sequences together."""

    batch: int
    prefill: float
    decode: float
    generate_prefill: float
    generate_decode: float
    decode_bound: float
    same_tokens: float
    """The share of greedy tokens equal to those of `model.generate`."""


class HandoffTimes(msgspec.Struct):
    """Of one prompt length; milliseconds from submitting the decode to its blocks' arrival."""

    prompt_tokens: int
    megabytes: float
    p50_ms: float
    max_ms: float
    same_tokens: bool


class Report(msgspec.Struct):
    device: str
    torch: str
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


def make_engine(model: str) -> TransformersEngine:
    return TransformersEngine(
        TransformersOptions(
            model=model,
            device="cuda",
            kv_memory="16GiB",
            max_running=64,
            max_step_tokens=8192,
            prefix_cache=False,
            transport="tcp",
        )
    )


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


async def measure_rates(
    model_path: str, batches: Sequence[int], parameters: int, bytes_per_s: float
) -> list[Rate]:
    reference = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.bfloat16).to("cuda")
    engine = make_engine(model_path)
    await engine.start()
    rates = []
    number = 0
    for batch in batches:
        for salt in (1, 0):  # the first pass warms kernels and allocators up
            given = prompts(batch, PROMPT_TOKENS, salt)
            ours = await run_batch(engine, given, OUTPUT_TOKENS, number)
            number += batch
        theirs = run_generate(reference, given, OUTPUT_TOKENS)
        pairs = [
            (a, b)
            for mine, other in zip(ours.tokens.values(), theirs.tokens.values(), strict=True)
            for a, b in zip(mine, other, strict=True)
        ]
        prompt, output = batch * PROMPT_TOKENS, batch * (OUTPUT_TOKENS - 1)
        rates.append(
            Rate(
                batch,
                prompt / ours.first_s,
                output / (ours.total_s - ours.first_s),
                prompt / theirs.first_s,
                output / (theirs.total_s - theirs.first_s),
                decode_bound(parameters, batch, bytes_per_s),
                sum(a == b for a, b in pairs) / len(pairs),
            )
        )
    await engine.close()
    del reference
    torch.cuda.empty_cache()
    return rates


def serve_prefills(model_path: str, pipe: Connection) -> None:
    """The other process: prompts in, handoffs out, until None comes."""

    async def serve() -> None:
        engine = make_engine(model_path)
        await engine.start()
        pipe.send("ready")
        number = 0
        steps = engine.steps()
        while (prompt := await asyncio.to_thread(pipe.recv)) is not None:
            engine.submit(request(number, prompt, OUTPUT_TOKENS, "prefill"))
            while (handoff := (await anext(steps))[0].handoff) is None:
                pass
            pipe.send((handoff.first_token, handoff.ticket))
            await asyncio.to_thread(pipe.recv)  # the other side has fetched
            engine.release(number)
            number += 1
        await engine.close()

    asyncio.run(serve())


async def measure_handoffs(model_path: str) -> list[HandoffTimes]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    other = context.Process(target=serve_prefills, args=(model_path, there))
    other.start()
    engine = make_engine(model_path)
    await engine.start()
    await asyncio.to_thread(here.recv)
    found = []
    number = 0
    tokens = 16
    for length in (PROMPT_TOKENS, LONG_PROMPT_TOKENS):
        times, same = [], True
        for prompt in prompts(HANDOFFS, length, salt=7):
            alone = await run_batch(engine, [prompt], tokens, number)
            number += 1
            here.send(prompt)
            first, ticket = await asyncio.to_thread(here.recv)
            began = time.perf_counter()
            engine.submit(request(number, prompt, tokens, "decode", Handoff(first, ticket)))
            decoded = [first]
            async with aclosing(engine.steps()) as steps:  # type: ignore[type-var]  # as above
                async for outputs in steps:
                    if outputs[0].fetched:
                        times.append(time.perf_counter() - began)
                        here.send("fetched")
                    decoded += outputs[0].tokens
                    if outputs[0].finish is not None:
                        break
            same &= decoded == alone.tokens[number - 1]
            number += 1
        megabytes = 2 * 22 * 2 * 4 * 64 * length / 1e6
        milliseconds = [1e3 * one for one in times]
        found.append(
            HandoffTimes(
                length, megabytes, statistics.median(milliseconds), max(milliseconds), same
            )
        )
    here.send(None)
    await engine.close()
    other.join()
    return found


def table(report: Report) -> str:
    lines = [
        f"{report.device}, torch {report.torch}, copies at {report.bandwidth_gb_s:.0f} GB/s",
        f"{report.parameters / 1e9:.2f}e9 parameters in bfloat16",
        f"prompts of {PROMPT_TOKENS}, outputs of {OUTPUT_TOKENS} tokens; tokens/s",
        "",
        f"{'batch':>5}" + "".join(f"{name:>11}" for name in _COLUMNS),
    ]
    lines += [
        f"{rate.batch:>5}{rate.prefill:>11.0f}{rate.generate_prefill:>11.0f}{rate.decode:>11.0f}"
        f"{rate.generate_decode:>11.0f}{rate.decode_bound:>11.0f}{rate.same_tokens:>11.1%}"
        for rate in report.rates
    ]
    lines += ["", "handoff to another process on the same device, over TCP"]
    lines += [
        f"{one.prompt_tokens:>5} tokens, {one.megabytes:.1f} MB: p50 {one.p50_ms:.1f} ms, "
        f"max {one.max_ms:.1f} ms; tokens {'' if one.same_tokens else 'NOT '}those of one engine"
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
        bytes_per_s = bandwidth()
        rates = asyncio.run(measure_rates(directory, arguments.batches, parameters, bytes_per_s))
        handoffs = asyncio.run(measure_handoffs(directory))
    report = Report(
        torch.cuda.get_device_name(),
        torch.__version__,
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
