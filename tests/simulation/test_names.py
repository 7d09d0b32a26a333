"""Who owns a name, when its owner was frozen or cut off and another has claimed it."""

from __future__ import annotations

import msgspec
import pytest

from supervisor import tree
from tests.simulation import scenario as scenarios
from tests.simulation.run import leave, not_up, play, probe
from tests.simulation.world import World

BEYOND_THE_LEASE_S = 14.0
PROMPTLY_S = 8.0
"""A third of a lease until its owner looks after it, and a time-out of etcd."""


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["aggregated/0", "router/0", "ingress/0"])
@pytest.mark.parametrize("how", ["frozen", "cut off"])
def test_an_owner_whose_name_was_claimed_meanwhile_ends_itself(
    seed: int, name: str, how: str
) -> None:
    async def life(world: World) -> None:
        world.start_supervisor()
        await world.until(lambda: not_up(world), 20.0, "the service is up")
        owner = world.proc_of(name)
        assert owner is not None
        if how == "frozen":
            owner.freeze()
        else:
            world.etcd.unreachable.add(owner)
        await _passes(world, BEYOND_THE_LEASE_S)
        spec = next(child for child in world.scenario.tree().children if child.id == name)
        assert isinstance(spec, tree.ChildSpec)
        stranger = world.loop.process("stranger")
        world.begin("stranger", stranger, msgspec.structs.replace(spec.data, link=None))
        await world.until(
            lambda: "" if stranger in world.nodes and world.nodes[stranger].cells else "not yet",
            10.0,
            "the name is claimed",
        )
        await _passes(world, 1.0)
        if how == "frozen":
            owner.thaw()
        else:
            world.etcd.unreachable.clear()
        await world.until(
            lambda: "" if owner.dead else f"{owner} lives", PROMPTLY_S, "the owner ended itself"
        )
        await probe(world)
        assert not stranger.dead
        stranger.kill()
        await world.until(lambda: not_up(world), 60.0, "the service is up again")
        await probe(world)
        await leave(world)

    scenario = scenarios.make(seed)
    scenario = msgspec.structs.replace(
        scenario, layout="aggregated", watchdog=False, faults=[], asks=[]
    )
    result = play(scenario, life)

    assert result.failure == ""
    assert result.sometimes["a node that had lost its name ended itself"] == 1


async def _passes(world: World, seconds: float) -> None:
    due = world.loop.now + seconds
    await world.until(lambda: "" if world.loop.now >= due else "it is early", seconds + 1, "time")
