"""Workers that die at a certain token, and a role of which nobody is left."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import msgspec
import pytest

from bench.disturb.stage import Stage, stage
from bench.disturb.stream import Asked, Stream, run
from tests.faults.conftest import PATIENT, Hurt, answered, judged, streams
from tests.faults.http import get
from tests.faults.test_plane import LEASE_S

pytestmark = pytest.mark.process

TOKENS = 48
ALONE = "children.generation.replicas=1"


def test_a_worker_killed_at_the_first_a_middle_and_the_last_but_one_token_costs_none(
    tmp_path: Path,
) -> None:
    # Of the sequence that a worker is the first to get in its life. The context worker makes the
    # first token of each attempt; so these are tokens 2, 22 and 47 of 48.
    deaths = [(1, "first"), (20, "middle"), (25, "last-but-one")]
    faults = [
        {"do": "kill", "request": 1, "token": token, "marker": str(tmp_path / name)}
        for token, name in deaths
    ]
    script = f"children.generation.options.engine.faults={msgspec.json.encode(faults).decode()}"

    async def killed() -> list[str]:
        async with stage(tmp_path, *PATIENT, "--set", ALONE, "--set", script) as service:
            stream = Stream(Asked.random(random.Random(3), TOKENS), "test", 0)
            await run(stream, service.address, timeout_s=60.0)
            await service.at_rest()
            return [] if stream.verdict == "right" else [f"{stream.verdict}: {stream.problem}"]

    with asyncio.Runner() as runner:
        assert runner.run(killed()) == []
    assert [name for _, name in deaths if not (tmp_path / name).exists()] == []


@pytest.mark.long
def test_without_a_worker_of_a_role_new_requests_are_turned_away_soon_and_served_when_one_is_back(
    hurt: Hurt,
) -> None:
    async def all_gone(service: Stage) -> tuple[list[str], tuple[str, float], int, str]:
        loop = asyncio.get_running_loop()
        made = await streams(service, 8, 200)
        os.kill(service.supervisor_pid, signal.SIGSTOP)
        try:
            for name in service.names("generation"):
                os.kill(service.pid(name), signal.SIGKILL)
            # Until their leases have run out each attempt still gets the first token, from a
            # context worker, and with it one token further.
            await asyncio.sleep(LEASE_S + 4.0)
            begun = loop.time()
            new = Stream(Asked.random(random.Random(1), 8), "test", 0)
            await run(new, service.address, timeout_s=30.0)
            turned_away = new.verdict or "", loop.time() - begun
            ready = await get(service.address, "/ready")
        finally:
            os.kill(service.supervisor_pid, signal.SIGCONT)
        wrong = await judged(made)
        await service.at_rest()
        return wrong, turned_away, ready, await answered(service)

    wrong, (verdict, took_s), ready, after = hurt.do(all_gone(hurt.service))

    assert wrong == []
    assert verdict == "refused"
    # Who comes when a role has just fallen waits for its successor, for 3 s.
    assert took_s < 5.0
    assert ready == 503
    assert after == ""
