"""Tries an engine on this host, step by step, and says what came of each.

`python -m actors.worker.doctor` reads a `Patient` as JSON from stdin and prints a `Finding` a line,
as soon as each is known. `supervise doctor` runs it, so that whatever an engine does to its process
is done to this one. Ends with 0 when everything passed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from actors.engines.base import Engine, EngineError, Finish, Handoff, Info, Output, Request
from actors.engines.prompts import pack_tokens
from actors.engines.tensorrt_llm.options import TensorRtLlmOptions
from actors.messages.cards import Duty
from actors.messages.sampling import Sampling
from actors.worker.engines import engine_name, make_engine
from actors.worker.options import EngineOptions, WorkerOptions

LOAD_S = 1800.0
STEP_S = 120.0
EVENT_S = 15.0
TOKENS = 8
_SHARED_MEMORY = 0.3
"""Of a GPU for each of two engines that are tried on it together."""


class Patient(msgspec.Struct, frozen=True):
    """What is to be tried."""

    options: dict[str, Any]
    """Of a worker."""
    base_dir: str


class Finding(msgspec.Struct, frozen=True):
    """One step."""

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    text: str


async def examine(options: WorkerOptions, base_dir: Path) -> AsyncIterator[Finding]:
    """Import, load, one prompt, one statistic, one cache event; then a prompt handed over."""
    engine = options.engine
    name = engine_name(engine)
    if isinstance(engine, TensorRtLlmOptions):
        found = await asyncio.to_thread(_installation, engine)
        yield found
        if found.outcome == "failed":
            return
    whole: list[int] = []
    try:
        began = time.monotonic()
        async with _running(engine, base_dir, "aggregated") as one:
            info = one.info
            text = (
                f"{info.model}, {info.max_context_tokens} tokens of context, {info.blocks_total} "
                f"blocks of {info.block_tokens}, {time.monotonic() - began:.1f} s"
            )
            yield Finding(f"{name}: load", "passed", text)
            whole = await one.run(_request(1, info, "whole"))
            yield Finding("one prompt, aggregated", "passed", f"{len(whole)} tokens")
            yield _statistic(info)
            yield await _event(one)
    except (EngineError, TimeoutError) as error:
        yield Finding(f"{name}: aggregated", "failed", _say(error))
        return
    try:
        async with (
            _running(_halved(engine), base_dir, "context") as context,
            _running(_halved(engine), base_dir, "generation") as generation,
        ):
            asked = _request(1, context.info, "prefill")
            handoff = await context.prefill(asked)
            decode = _request(1, context.info, "decode", handoff)
            said = [handoff.first_token, *await generation.run(decode)]
            context.engine.release(1)
    except (EngineError, TimeoutError) as error:
        yield Finding("one prompt, disaggregated", "failed", _say(error))
        return
    same = said == whole
    text = f"{len(handoff.ticket)} bytes of ticket; " + (
        "the same tokens as aggregated" if same else f"other tokens than aggregated: {said}"
    )
    yield Finding("one prompt, disaggregated", "passed" if same else "failed", text)


def _installation(options: TensorRtLlmOptions) -> Finding:
    from actors.engines.tensorrt_llm.api import find_api  # noqa: PLC0415 - one engine of several

    try:
        api = find_api(options.arguments.get("backend"))
    except EngineError as error:
        return Finding("TensorRT-LLM", "failed", str(error))
    features = ", ".join(
        name
        for name, there in (
            ("hands over", api.hands_over),
            ("cache_transceiver_config", api.transceiver is not None),
            ("pytorch_backend_config", api.pytorch is not None),
        )
        if there
    )
    return Finding("TensorRT-LLM", "passed", f"version {api.version}: {features or 'basic'}")


class _Trial:
    """A started engine and its outputs."""

    def __init__(self, engine: Engine, info: Info) -> None:
        self.engine = engine
        self.info = info
        self._steps = engine.steps()

    async def run(self, request: Request) -> list[int]:
        """The tokens of a request, run to its end."""
        tokens: list[int] = []
        async for output in self._outputs(request):
            tokens += output.tokens
            if output.finish is not None:
                if output.finish is Finish.ERROR:
                    raise EngineError(output.error)
                break
        return tokens

    async def prefill(self, request: Request) -> Handoff:
        async for output in self._outputs(request):
            if output.handoff is not None:
                return output.handoff
            if output.finish is not None:
                raise EngineError(output.error or f"ended at once: {output.finish}")
        raise EngineError("the engine ended")

    async def _outputs(self, request: Request) -> AsyncIterator[Output]:
        self.engine.submit(request)
        async with asyncio.timeout(STEP_S):
            async for outputs in self._steps:
                for output in outputs:
                    if output.id == request.id:
                        yield output


@asynccontextmanager
async def _running(options: EngineOptions, base_dir: Path, duty: Duty) -> AsyncIterator[_Trial]:
    engine = make_engine(options, base_dir, duty=duty)
    try:
        async with asyncio.timeout(LOAD_S):
            info = await engine.start()
        yield _Trial(engine, info)
    finally:
        await engine.close()


def _request(
    number: int, info: Info, phase: Literal["whole", "prefill", "decode"], handoff: Any = None
) -> Request:
    length = min(2 * info.block_tokens + 3, info.max_context_tokens - TOKENS - 1)
    prompt = pack_tokens(1 + position % (info.vocabulary - 2) for position in range(length))
    sampling = Sampling(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
    return Request(number, prompt, sampling, phase, handoff)


def _statistic(info: Info) -> Finding:
    if info.blocks_total:
        return Finding("one statistic", "passed", f"{info.blocks_total} blocks in all")
    return Finding("one statistic", "failed", "none came: load is counted by what was submitted")


async def _event(trial: _Trial) -> Finding:
    if not trial.info.publishes_cache_events:
        return Finding("one KV event", "skipped", "this engine, or version, tells none")
    deadline = time.monotonic() + EVENT_S
    while time.monotonic() < deadline:
        blocks = sum(len(getattr(event, "blocks", ())) for event in trial.engine.cache_snapshot())
        if blocks:
            return Finding("one KV event", "passed", f"{blocks} blocks are in the cache")
        await asyncio.sleep(0.1)  # the contract has no event for this
    return Finding("one KV event", "failed", f"none came within {EVENT_S:g} s")


def _halved(options: EngineOptions) -> EngineOptions:
    """For two engines on one device."""
    if not isinstance(options, TensorRtLlmOptions):
        return options
    kv_cache = {**options.arguments.get("kv_cache_config", {})}
    kv_cache.setdefault("free_gpu_memory_fraction", _SHARED_MEMORY)
    arguments = {**options.arguments, "kv_cache_config": kv_cache}
    return msgspec.structs.replace(options, arguments=arguments)


def _say(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def _main(patient: Patient) -> int:
    options = msgspec.convert(patient.options, WorkerOptions)
    failed = False
    async for finding in examine(options, Path(patient.base_dir)):
        failed = failed or finding.outcome == "failed"
        print(msgspec.json.encode(finding).decode(), flush=True)
    return int(failed)


if __name__ == "__main__":
    CODE = asyncio.run(_main(msgspec.json.decode(sys.stdin.buffer.read(), type=Patient)))
    with suppress(OSError):
        sys.stdout.flush()
    # An engine's own threads may not end; what they print was printed.
    os._exit(CODE)
