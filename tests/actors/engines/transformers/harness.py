"""Running requests to their end, and what came of them."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from actors.engines.base import Finish, Handoff, Output, Request
from actors.engines.prompts import pack
from actors.engines.transformers import TransformersEngine, TransformersOptions
from actors.messages.sampling import Findings, Logprobs, Sampling

PATIENCE_S = 20.0


def packed(tokens: Iterable[int]) -> bytes:
    return pack(array("I", tokens))


def request(number: int, prompt: Iterable[int], /, **sampling: Any) -> Request:
    """A whole request, greedy and for five tokens unless said otherwise."""
    settings = {"max_tokens": 5, "temperature": 0.0, "ignore_eos": True} | sampling
    return Request(number, packed(prompt), Sampling(**settings))


@dataclass
class Result:
    """All outputs of one request, joined."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[Logprobs] = field(default_factory=list)
    finish: Finish | None = None
    handoff: Handoff | None = None
    fetched: bool = False
    cached_tokens: int = 0
    error: str = ""
    outputs: int = 0
    findings: Findings | None = None

    def add(self, output: Output) -> None:
        assert self.finish is None, "an output came after the last one"
        self.tokens += output.tokens
        self.logprobs += output.logprobs or []
        self.finish = output.finish
        self.handoff = output.handoff or self.handoff
        self.fetched |= output.fetched
        self.cached_tokens += output.cached_tokens
        self.error = output.error
        self.findings = output.findings or self.findings
        self.outputs += 1

    @property
    def over(self) -> bool:
        return self.finish is not None or self.handoff is not None


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[TransformersEngine]:
    engine = TransformersEngine(TransformersOptions(**({"kv_memory": "1MiB"} | options)))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def play(
    engine: TransformersEngine,
    requests: Iterable[Request],
    until: Callable[[dict[int, Result]], bool] | None = None,
) -> dict[int, Result]:
    """Submit requests and read steps until all are over, or until the caller is content."""
    results: dict[int, Result] = {}
    for item in requests:
        results[item.id] = Result()
        engine.submit(item)
    await read(engine, results, until)
    return results


async def read(
    engine: TransformersEngine,
    results: dict[int, Result],
    until: Callable[[dict[int, Result]], bool] | None = None,
) -> None:
    """Read steps into the results."""

    def everything(found: dict[int, Result]) -> bool:
        return all(result.over for result in found.values())

    if not results:
        return
    async with asyncio.timeout(PATIENCE_S), aclosing(engine.steps()) as steps:  # type: ignore[type-var]  # the contract says iterator; it is a generator
        async for outputs in steps:
            assert outputs, "a step without outputs"
            for output in outputs:
                results[output.id].add(output)
            if (until or everything)(results):
                return


async def settle(engine: TransformersEngine) -> None:
    """Wait until the engine has worked off what was said to it, and reported."""
    async with asyncio.timeout(PATIENCE_S):
        while engine.busy:  # noqa: ASYNC110 - the contract has no event for coming to rest
            await asyncio.sleep(0)
        await asyncio.sleep(0)
