"""Planned restarts under load: nobody is disturbed who finishes in the time a drain allows."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from bench.disturb.stage import Stage, stage
from bench.disturb.stream import Asked, Stream, run
from supervisor.calls import Accepted, Restart
from tests.faults.conftest import Hurt

pytestmark = pytest.mark.process


async def restart_under_load(service: Stage, role: str) -> list[str]:
    """What went wrong for clients that came one after the other, all the while."""
    dice = random.Random(role)
    over = asyncio.Event()
    ended: list[Stream] = []

    async def client() -> None:
        while not over.is_set():
            stream = Stream(Asked.random(dice, 48), "test", 0)
            ended.append(await run(stream, service.address, timeout_s=60.0))

    async with asyncio.TaskGroup() as group:
        for _ in range(12):
            group.create_task(client())
        await asyncio.sleep(0.5)
        await service.order(Restart(id=role, rolling=True), Accepted)
        await asyncio.sleep(0.5)
        over.set()
    await service.at_rest()
    assert len(ended) > 24
    return [f"{s.verdict}: {s.problem}" for s in ended if s.verdict != "right"]


@pytest.mark.parametrize("role", ["generation", "router", "ingress"])
def test_a_rolling_restart_fails_no_request(hurt: Hurt, role: str) -> None:
    assert hurt.do(restart_under_load(hurt.service, role)) == []


@pytest.mark.long
@pytest.mark.parametrize("role", ["context", "preprocessor"])
def test_a_rolling_restart_of_the_others_fails_no_request_either(hurt: Hurt, role: str) -> None:
    assert hurt.do(restart_under_load(hurt.service, role)) == []


def test_a_planned_restart_of_the_only_ingress_loses_no_connection(tmp_path: Path) -> None:
    only = ("children.ingress.replicas=1", "children.ingress.options={port: 8080}")

    async def restart() -> list[str]:
        sets = [part for one in only for part in ("--set", one)]
        async with stage(tmp_path, *sets) as service:
            return await restart_under_load(service, "ingress")

    with asyncio.Runner() as runner:
        assert runner.run(restart()) == []
