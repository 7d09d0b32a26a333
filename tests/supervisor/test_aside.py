"""Children that stand aside: understudies, as the pure tree sees them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from supervisor.tree import (
    SHUTDOWN,
    Backoff,
    Done,
    Kind,
    ReportKind,
    RestartChild,
    Start,
    StartChild,
    State,
    Stop,
    Strategy,
    SupervisorSpec,
    TerminateChild,
)
from supervisor.tree.errors import BadCombination, InvalidAside
from supervisor.tree.validate import check
from tests.supervisor.stage import BOOM, Script, Stage, child, started, stopped

GROUPS = [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE]
ALL = [Strategy.ONE_FOR_ONE, *GROUPS]


def tree(strategy: Strategy = Strategy.ONE_FOR_ONE, intensity: int = 3) -> SupervisorSpec:
    """The understudy stands first, to show that its place means nothing."""
    late = child("u", aside=True, backoff=Backoff(first_s=1.0, initial_s=2.0, jitter=0.0))
    return SupervisorSpec(
        "root",
        strategy,
        intensity=intensity,
        period_s=60.0,
        children=(late, child("a"), child("b")),
    )


@pytest.mark.parametrize("strategy", ALL)
def test_it_is_started_when_its_siblings_are_up_and_waited_for_by_nobody(
    strategy: Strategy,
) -> None:
    stage = Stage(tree(strategy), u=Script(starts=["hang"])).boot()

    assert started(stage.log) == ["a", "b", "u"]
    assert stage.state("root") is State.RUNNING
    assert stage.state("u") is State.STARTING


@pytest.mark.parametrize("strategy", ALL)
def test_it_is_stopped_before_its_siblings(strategy: Strategy) -> None:
    stage = Stage(tree(strategy)).boot()

    log = stage.shut_down()

    assert stopped(log) == ["u", "b", "a"]
    assert stage.ended()


@pytest.mark.parametrize("strategy", GROUPS)
def test_a_group_restart_leaves_it_alone(strategy: Strategy) -> None:
    stage = Stage(tree(strategy)).boot()
    (run,) = stage.runs("u")

    stage.die("a")

    assert stage.runs("u") == (run,)
    assert stage.child("b").run > stage.child("a").run > run


@pytest.mark.parametrize("strategy", ALL)
def test_its_own_end_restarts_nobody_else_and_counts_against_nobody(strategy: Strategy) -> None:
    stage = Stage(tree(strategy, intensity=0)).boot()
    before = stage.runs("a", "b")

    for _ in range(5):
        stage.die("u")
        stage.advance(100)

    assert stage.runs("a", "b") == before
    assert stage.state("u") is State.RUNNING
    assert stage.child("u").restarts == 5


def test_a_start_of_it_that_fails_is_tried_again_and_fails_nobody_elses() -> None:
    stage = Stage(tree(), u=Script(starts=[BOOM, BOOM, "ready"])).boot()

    assert stage.state("root") is State.RUNNING
    assert stage.state("u") is State.RESTARTING
    stage.advance(1.0)  # the first try again
    assert stage.state("u") is State.RESTARTING
    stage.advance(2.0)
    assert stage.state("u") is State.RUNNING


def test_a_start_of_it_that_fails_while_others_still_come_up_ends_nothing() -> None:
    """A child that is added meanwhile has its turn behind it."""
    hang = Script(starts=["hang"])
    stage = Stage(tree(), b=hang, v=hang, u=hang).boot()
    stage.call(StartChild(1, "root", child("v")))
    stage.ready("b")
    assert started(stage.log) == ["a", "b", "u", "v"]

    stage.die("u")

    assert stage.state("root") is State.STARTING
    stage.advance(1.0)
    assert stage.state("u") is State.STARTING  # again, and nobody waits for that either
    stage.ready("v")
    assert stage.state("root") is State.RUNNING


@pytest.mark.parametrize("strategy", GROUPS)
def test_its_back_off_neither_holds_up_a_group_restart_nor_ends_with_one(
    strategy: Strategy,
) -> None:
    spec = tree(strategy)
    slow = child("a", backoff=Backoff(first_s=5.0))
    stage = Stage(replace(spec, children=(slow, *spec.children[::2])))
    stage.boot()

    stage.die("a")  # the group waits for 5 s
    stage.die("u")
    stage.advance(1.0)
    assert stage.state("u") is State.RUNNING
    assert stage.state("a") is State.RESTARTING
    assert stage.state("b") is State.WAITING

    stage.advance(4.0)
    assert stage.runs("a", "b") > (0, 0)


@pytest.mark.parametrize("strategy", GROUPS)
def test_one_that_had_not_been_started_yet_is_started_after_a_group_restart(
    strategy: Strategy,
) -> None:
    stage = Stage(tree(strategy), b=Script(starts=["hang", "ready"])).boot()
    assert stage.state("u") is State.WAITING

    stage.die("a")

    assert stage.state("root") is State.RUNNING
    assert stage.state("u") is State.RUNNING


def test_a_promoted_one_is_replaced_after_its_first_back_off_and_nobody_is_to_blame() -> None:
    stage = Stage(tree(intensity=0)).boot()
    (run,) = stage.runs("u")

    log = stage.promote("u")

    assert not [action for action in log if isinstance(action, Start | Stop)]
    assert stage.state("u") is State.RESTARTING
    assert stage.child("u").next_retry == stage.now + 1.0
    stage.advance(0.99)
    assert stage.runs("u") == (0,)
    stage.advance(0.01)
    after = stage.child("u")
    assert after.run > run
    assert (after.state, after.restarts, after.failures) == (State.RUNNING, 0, 0)
    assert after.last_exit is None
    assert stage.reports(ReportKind.CHILD_TERMINATED) == []


def test_promotions_in_a_row_do_not_lengthen_the_back_off() -> None:
    stage = Stage(tree()).boot()

    for _ in range(4):
        stage.promote("u")
        assert stage.child("u").next_retry == stage.now + 1.0
        stage.advance(1.0)


def test_one_that_is_promoted_while_it_loads_answers_who_waits_for_it() -> None:
    stage = Stage(tree(), u=Script(starts=["ready", "hang", "ready"])).boot()
    assert stage.call(RestartChild(1, "u", force=True)) is None

    stage.promote("u")

    assert stage.replies[1] == Done("u")
    stage.advance(1.0)
    assert stage.state("u") is State.RUNNING


def test_a_promotion_that_crosses_an_order_to_stop_is_its_end() -> None:
    stage = Stage(tree(), u=Script(on_stop=None)).boot()
    assert stage.call(TerminateChild(1, "u")) is None

    stage.promote("u")

    assert stage.replies[1] == Done("u")
    assert stage.state("u") is State.STOPPED
    assert stage.child("u").last_exit == SHUTDOWN


def test_a_shutdown_does_not_wait_for_one_that_was_promoted() -> None:
    stage = Stage(tree()).boot()
    stage.promote("u")

    stage.shut_down()

    assert stage.ended()


def test_one_that_is_added_and_cannot_start_is_forgotten_like_any_other() -> None:
    stage = Stage(tree(), v=Script(starts=[BOOM])).boot()

    stage.call(StartChild(1, "root", child("v", aside=True)))

    assert [one.id for one in stage.tree.which_children("root")] == ["u", "a", "b"]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidAside):
        check(SupervisorSpec("root", children=(child("a", aside="yes"),)))  # type: ignore[arg-type]  # the mistake
    template = child("w", aside=True)
    with pytest.raises(BadCombination, match="no order"):
        check(SupervisorSpec("root", Strategy.SIMPLE_ONE_FOR_ONE, template=template))


@given(
    strategy=st.sampled_from(ALL),
    events=st.lists(st.sampled_from(["die a", "die b", "die u", "promote u", "wait"]), max_size=20),
)
def test_whatever_happens_to_it_the_others_live_as_if_it_were_not_there(
    strategy: Strategy, events: list[str]
) -> None:
    spec = tree(strategy, intensity=100)
    alone = replace(spec, children=spec.children[1:])
    stages = Stage(spec).boot(), Stage(alone).boot()

    for event in events:
        what, _, name = event.partition(" ")
        for stage in stages:
            if what == "wait":
                stage.advance(1.0)
            elif stage.live.get(name):
                (stage.die if what == "die" else stage.promote)(name)

    with_it, without = ([x for x in one.log if isinstance(x, Start | Stop)] for one in stages)
    kept = [(type(x), x.id) for x in with_it if x.id != "u"]
    assert kept == [(type(x), x.id) for x in without]
    assert Kind.KILLED not in {
        one.last_exit and one.last_exit.kind for one in stages[0].tree.status()
    }
