"""What the drawn faults do not reach: memory that is lost in several places at once, an etcd that
goes back in time, and clocks that jump."""

from __future__ import annotations

import msgspec
import pytest

from tests.simulation import scenario as scenarios
from tests.simulation.run import Result, leave, not_up, play, probe
from tests.simulation.workload import Call
from tests.simulation.world import World

SEEDS = range(3)
ROUTER = "router/0"
KEY = b"/sim/mailboxes/router/0"
HOUR_S = 3600.0
UP_S = 60.0
RELISTED_S = 4.0


def scenario(seed: int, *, asks: bool = False) -> scenarios.Scenario:
    """An undisturbed service of single processes."""
    drawn = scenarios.make(seed)
    kept = [msgspec.structs.replace(ask, ingress=0, leave_after=None) for ask in drawn.asks]
    return msgspec.structs.replace(
        drawn, layout="singles", watchdog=True, faults=[], asks=kept if asks else []
    )


async def up(world: World) -> None:
    await world.until(lambda: not_up(world), UP_S, "the service is up")


async def passes(world: World, seconds: float) -> None:
    due = world.loop.now + seconds
    await world.until(lambda: "" if world.loop.now > due else "early", seconds + 1, "time")


def succeeded_by_one_that_knows_nothing(world: World) -> None:
    """The supervisor dies, and one takes over that has not heard of any life that is over."""
    assert world.supervisor is not None
    world.supervisor.above.clear()
    world.start_supervisor()


def broken(result: Result) -> str:
    """What it broke; empty when nothing."""
    return result.failure


@pytest.mark.parametrize("seed", SEEDS)
def test_lives_go_on_counting_when_etcd_and_the_supervisor_forget_at_once(seed: int) -> None:
    async def life(world: World) -> None:
        world.start_supervisor()
        await up(world)
        router = world.proc_of(ROUTER)
        assert router is not None
        world.etcd.stop()
        router.kill()
        succeeded_by_one_that_knows_nothing(world)
        world.etcd.start(empty=True)
        await up(world)
        await probe(world)
        await leave(world)

    assert broken(play(scenario(seed), life)) == ""


@pytest.mark.parametrize("seed", SEEDS)
def test_lives_go_on_counting_when_the_clock_goes_back_and_the_supervisor_forgets(
    seed: int,
) -> None:
    async def life(world: World) -> None:
        world.start_supervisor()
        await up(world)
        router = world.proc_of(ROUTER)
        assert router is not None
        router.kill()
        # As when its lease has run out.
        world.etcd.delete(KEY)
        world.wall_ahead_s = -HOUR_S
        succeeded_by_one_that_knows_nothing(world)
        await up(world)
        await probe(world)
        await leave(world)

    assert broken(play(scenario(seed), life)) == ""


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_goes_back_to_a_life_that_a_restored_etcd_tells_of(seed: int) -> None:
    async def life(world: World) -> None:
        world.start_supervisor()
        await up(world)
        backup = world.etcd.backup()
        router = world.proc_of(ROUTER)
        assert router is not None
        router.kill()
        await world.until(
            lambda: "" if world.proc_of(ROUTER) is not router else "not yet", UP_S, "a successor"
        )
        await up(world)
        successor = world.proc_of(ROUTER)
        assert successor is not None
        # The others read the old list before its owner can mend it.
        world.etcd.unreachable.add(successor)
        world.etcd.stop()
        world.etcd.restore(backup)
        await passes(world, RELISTED_S)
        world.etcd.unreachable.clear()
        await up(world)
        await probe(world)
        await leave(world)

    assert broken(play(scenario(seed), life)) == ""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S])
def test_a_wall_clock_that_jumps_disturbs_no_request_and_restarts_nobody(
    seed: int, ahead_s: float
) -> None:
    async def life(world: World) -> None:
        world.start_supervisor()
        await up(world)
        procs = {name: world.proc_of(name) for (name,) in world.scenario.nodes}
        for ask in world.scenario.asks:
            world.loop.call_later(ask.at, world.open_call, Call(world, ask))
        await passes(world, scenarios.WORK_S / 2)
        world.wall_ahead_s = ahead_s
        await world.until(
            lambda: ", ".join(
                str(ask.number)
                for ask in world.scenario.asks
                if not any(call.ask is ask and call.ended for call in world.calls)
            ),
            UP_S,
            "every request has ended",
        )
        assert {call.outcome for call in world.calls} == {"ok"}
        assert {name: world.proc_of(name) for name in procs} == procs
        await probe(world)
        await leave(world)

    assert broken(play(scenario(seed, asks=True), life)) == ""
