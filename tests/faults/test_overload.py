"""Three times what a service can do, for a while."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from bench.disturb.stage import Stage, stage
from bench.disturb.stream import Asked, Stream, run
from tests.faults.conftest import PATIENT, answered, judged, streams

pytestmark = [pytest.mark.process, pytest.mark.long]

TOKENS = 32
CLIENTS = 96
"""Two workers run 4 each, as many again are with them, and 8 wait with the router."""
FEW = (
    "children.generation.options.engine.max_running=4",
    "children.context.options.engine.max_running=4",
    "children.router.options={admission: {queue: 8}}",
)
FOR_S = 10.0


def test_under_three_times_its_load_a_service_answers_what_it_can_and_turns_the_rest_away_at_once(
    tmp_path: Path,
) -> None:
    async def overload(service: Stage) -> tuple[list[Stream], list[str]]:
        loop = asyncio.get_running_loop()
        dice = random.Random(1)
        over = loop.time() + FOR_S
        ended: list[Stream] = []

        async def client() -> None:
            while loop.time() < over:
                stream = Stream(Asked.random(dice, TOKENS), "test", 0)
                ended.append(await run(stream, service.address, timeout_s=60.0))
                if stream.verdict == "refused":
                    await asyncio.sleep(0.5)

        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client())
        await service.at_rest()
        # As soon as the load is gone everything is as it was.
        wrong = await judged(await streams(service, 4, TOKENS))
        after = await answered(service)
        return ended, wrong + ([after] if after else [])

    async def run_it() -> tuple[list[Stream], list[str]]:
        sets = [word for one in FEW for word in ("--set", one)]
        async with stage(tmp_path, *PATIENT, *sets) as service:
            return await overload(service)

    with asyncio.Runner() as runner:
        ended, after = runner.run(run_it())

    assert after == []
    served = [one for one in ended if one.verdict == "right"]
    refused = [one for one in ended if one.verdict == "refused"]
    assert len(served) + len(refused) == len(ended), {one.problem for one in ended}
    assert all(one.problem.startswith("429") for one in refused)
    # It was too much, and yet most of the time was spent on answers.
    assert len(refused) > CLIENTS / 2
    assert len(served) > CLIENTS / 2
