"""A child that cannot start as the plane is away: tried for as long as it takes, or an error."""

from __future__ import annotations

import pytest

from supervisor.tree import Backoff, Boot, Kind, Reason, Shutdown, State, Strategy, SupervisorSpec
from tests.supervisor.stage import BOOM, Script, Stage, child

AWAY = Reason(Kind.UNAVAILABLE, "exit code 69, NATS or etcd out of reach")
REFUSED = Reason(Kind.REFUSED, "exit code 77, NATS or etcd does not let it in")
TRIES = 50
SLOW = Backoff(initial_s=1, max_s=1, jitter=0)
STRATEGIES = (Strategy.ONE_FOR_ONE, Strategy.REST_FOR_ONE, Strategy.ONE_FOR_ALL)


def _spec(strategy: Strategy) -> SupervisorSpec:
    children = tuple(child(name, backoff=SLOW) for name in ("a", "b", "c"))
    return SupervisorSpec("root", strategy, intensity=1, period_s=1000, children=children)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_tree_that_goes_on_waits_for_the_plane_and_ends_nothing(strategy: Strategy) -> None:
    stage = Stage(_spec(strategy), b=Script(starts=[*[AWAY] * TRIES, "ready"]))
    stage.send(Boot(patient=True))
    stage.advance(TRIES - 5)
    assert stage.state("a") is State.RUNNING
    assert stage.state("b") is State.RESTARTING
    assert stage.state("c") is State.WAITING

    stage.advance(10)

    assert [stage.state(name) for name in ("root", "a", "b", "c")] == [State.RUNNING] * 4
    assert stage.gone is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_child_that_fell_is_tried_until_the_plane_is_back(strategy: Strategy) -> None:
    stage = Stage(_spec(strategy), b=Script(starts=["ready", *[AWAY] * TRIES, "ready"])).boot()
    stage.die("b")
    stage.advance(TRIES + 10)

    assert [stage.state(name) for name in ("root", "a", "b", "c")] == [State.RUNNING] * 4
    assert stage.gone is None


def test_other_failures_to_start_count_as_ever() -> None:
    stage = Stage(_spec(Strategy.ONE_FOR_ONE), b=Script(starts=["ready", BOOM])).boot()
    stage.die("b")
    stage.advance(10)

    assert stage.gone is not None


def test_a_first_start_without_the_plane_fails_and_says_why() -> None:
    stage = Stage(_spec(Strategy.ONE_FOR_ONE), b=Script(starts=[AWAY])).boot()

    assert stage.gone is not None
    assert stage.gone.reason.origin == AWAY


def test_a_first_start_that_is_refused_fails_also_where_the_plane_is_waited_for() -> None:
    stage = Stage(_spec(Strategy.ONE_FOR_ONE), b=Script(starts=[AWAY, AWAY, REFUSED]))
    stage.send(Boot(patient=True))
    stage.advance(10)

    assert stage.gone is not None
    assert stage.gone.reason.origin == REFUSED


@pytest.mark.parametrize("resumed", [False, True])
def test_once_up_a_refusal_is_sat_out(*, resumed: bool) -> None:
    first = [REFUSED] if resumed else []
    script = Script(starts=[*first, "ready", *[REFUSED] * TRIES, "ready"])
    stage = Stage(_spec(Strategy.ONE_FOR_ONE), b=script)
    stage.send(Boot(resumed=resumed))
    stage.advance(5)
    stage.die("b")
    stage.advance(TRIES + 10)

    assert [stage.state(name) for name in ("root", "a", "b", "c")] == [State.RUNNING] * 4
    assert stage.gone is None


def test_a_tree_that_waits_for_the_plane_can_be_shut_down() -> None:
    stage = Stage(_spec(Strategy.REST_FOR_ONE), b=Script(starts=[AWAY]))
    stage.send(Boot(patient=True))
    stage.advance(5)
    stage.send(Shutdown())

    assert stage.gone is not None
    assert stage.live == {}
