"""Planned restarts under load: nobody is disturbed who finishes in the time a drain allows."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.disturb.stage import Stage, stage
from bench.disturb.stream import Asked, Stream, run
from supervisor.calls import Accepted, Call, Restart, Scale
from tests.faults.conftest import PATIENT, ROLES, Hurt, judged, streams

pytestmark = pytest.mark.process

ENOUGH = 24
"""Streams for a run to say anything."""


def pids(service: Stage) -> dict[str, int]:
    return {name: child.pid for name, child in service.children().items()}


async def restart_under_load(service: Stage, role: str) -> list[str]:
    """What went wrong for clients that came one after the other, all the while."""
    return await change_under_load(service, Restart(id=role, rolling=True))


async def change_under_load(
    service: Stage, *changes: Call, meanwhile: Callable[[], None] = lambda: None
) -> list[str]:
    """The same for any changes, one after the other. `meanwhile` is called when the first is under
    way."""
    dice = random.Random(str(changes))
    over = asyncio.Event()
    ended: list[Stream] = []

    async def client() -> None:
        # Some at least meet the change, and some come behind it, however quick it is.
        while not over.is_set() or len(ended) <= ENOUGH:
            stream = Stream(Asked.random(dice, 48), "test", 0)
            ended.append(await run(stream, service.address, timeout_s=60.0))

    async with asyncio.TaskGroup() as group:
        for _ in range(12):
            group.create_task(client())
        await asyncio.sleep(0.5)
        asyncio.get_running_loop().call_later(0.1, meanwhile)
        for change in changes:
            await service.order(change, Accepted)
        await asyncio.sleep(0.5)
        over.set()
    await service.at_rest()
    assert len(ended) > ENOUGH
    return [f"{s.verdict}: {s.problem}" for s in ended if s.verdict != "right"]


@pytest.mark.parametrize("role", ROLES)
def test_a_rolling_restart_fails_no_request_and_renews_nobody_else(hurt: Hurt, role: str) -> None:
    before = pids(hurt.service)

    assert hurt.do(restart_under_load(hurt.service, role)) == []

    after = pids(hurt.service)
    assert after.keys() == before.keys()
    renewed = {name for name in after if after[name] != before[name]}
    assert renewed == {name for name in after if name.rpartition("/")[0] == role}


@pytest.mark.long
def test_scaling_down_and_up_fails_no_request(hurt: Hurt) -> None:
    changes = Scale(name="generation", replicas=1), Scale(name="generation", replicas=2)

    assert hurt.do(change_under_load(hurt.service, *changes)) == []


@pytest.mark.long
@pytest.mark.parametrize("victim", ["generation/0", "context/1", "nats", "etcd"])
def test_a_kill_in_the_middle_of_a_rolling_restart_fails_no_request(
    hurt: Hurt, victim: str
) -> None:
    service = hurt.service
    restart = Restart(id="generation", rolling=True)

    def kill() -> None:
        os.kill(service.pid(victim), signal.SIGKILL)

    assert hurt.do(change_under_load(service, restart, meanwhile=kill)) == []


def test_a_planned_restart_of_the_only_ingress_and_a_stop_lose_no_connection(
    tmp_path: Path,
) -> None:
    only = ("children.ingress.replicas=1", "children.ingress.options={port: 8080}")

    async def restart() -> list[str]:
        sets = [part for one in only for part in ("--set", one)]
        async with stage(tmp_path, *PATIENT, *sets) as service:
            wrong = await restart_under_load(service, "ingress")
            made = await streams(service, 8)
            code = await service.end()
            return wrong + await judged(made) + ([f"exit code {code}"] if code else [])

    with asyncio.Runner() as runner:
        assert runner.run(restart()) == []
