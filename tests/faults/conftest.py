"""A real service of many processes, shared by the tests of a module, that is hurt in each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from bench.disturb.judge import broken, invalid, problems, rows_of
from bench.disturb.kinds import KINDS
from bench.disturb.rounds import Counts, Round, one_round
from bench.disturb.stage import Stage, stage
from bench.disturb.stream import Asked, Stream, run

T = TypeVar("T")
TOKENS = 96
ROLES = ("context", "generation", "router", "preprocessor", "ingress")
PATIENT = tuple(word for role in ROLES for word in ("--set", f"children.{role}.start_deadline=60s"))
"""For a machine on which the imports alone may take longer than the 5 s of chaos.yaml."""


class Hurt:
    """The service, and the loop that everything about it runs on."""

    def __init__(self, runner: asyncio.Runner, service: Stage) -> None:
        self.service = service
        self.counts = Counts(service)
        self._runner = runner

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def round(self, *kinds: str, streams: int = 16) -> Round:
        """Streams with these faults in the middle of them, back to rest at the end."""
        chosen = [KINDS[kind] for kind in kinds]
        dice = random.Random(" ".join(kinds))
        return self.do(
            one_round(self.service, chosen, dice, self.counts, streams=streams, tokens=TOKENS)
        )


def verdict(done: Round, *, may_fail: bool = False) -> list[str]:
    """Everything that speaks against a round; empty when there is nothing."""
    found = broken(rows_of([done]), bars=False, may_fail=may_fail)
    found += [done.unsettled] if done.unsettled else []
    # How fast this client is does not matter where no time is judged.
    found += invalid([done], lag_p99_s=0.0, minimum=1)
    return found + problems(done.streams) if found else []


async def streams(service: Stage, number: int, tokens: int = TOKENS) -> list[Stream]:
    """So many streams, begun; each judges itself in the task that its `task` is."""
    dice = random.Random(number)
    made = [Stream(Asked.random(dice, tokens), "test", n) for n in range(number)]
    loop = asyncio.get_running_loop()
    for stream in made:
        stream.task = loop.create_task(run(stream, service.address, timeout_s=200.0))
    async with asyncio.timeout(30):
        while not all(stream.begun for stream in made):  # noqa: ASYNC110 - no event of ours
            await asyncio.sleep(0.01)
    return made


async def judged(made: list[Stream]) -> list[str]:
    """What was wrong with streams, once all have ended."""
    await asyncio.gather(*(stream.task for stream in made if stream.task is not None))
    return [f"{s.verdict}: {s.problem}" for s in made if s.verdict != "right"]


async def answered(service: Stage) -> str:
    """A request after everything: empty when it is served as it should be."""
    stream = Stream(Asked.random(random.Random(7), 16), "test", 0)
    await run(stream, service.address, timeout_s=30.0)
    return "" if stream.verdict == "right" else f"{stream.verdict}: {stream.problem}"


@pytest.fixture(scope="module")
def hurt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hurt]:
    base = tmp_path_factory.mktemp("faults")
    with asyncio.Runner() as runner:
        manager = stage(base, *PATIENT)
        service = runner.run(manager.__aenter__())
        try:
            yield Hurt(runner, service)
        finally:
            runner.run(manager.__aexit__(None, None, None))
