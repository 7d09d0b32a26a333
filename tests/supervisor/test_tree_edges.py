"""Corners of the tree that only one order of events reaches; each was found by changing a line."""

from __future__ import annotations

from supervisor.tree import (
    KILLED,
    NORMAL,
    SHUTDOWN,
    AutoShutdown,
    Backoff,
    Done,
    Kind,
    Reason,
    ReportKind,
    Restart,
    RestartChild,
    Shutdown,
    State,
    Strategy,
    SupervisorSpec,
    TerminateChild,
)
from tests.supervisor.stage import BOOM, Script, Stage, child, started

SLOW = Script(stop_takes_s=3.0)


def root(*children: object, **settings: object) -> SupervisorSpec:
    return SupervisorSpec("root", children=children, **{"intensity": 9, **settings})  # type: ignore[arg-type]  # short for tests


def test_a_later_group_restart_takes_in_what_an_earlier_one_is_still_stopping() -> None:
    """`x` was given up and is back by hand, so that it is no part of the first one."""
    spec = root(
        *(child("a"), child("b"), child("x", max_failures=2)), strategy=Strategy.REST_FOR_ONE
    )
    stage = Stage(spec, b=SLOW).boot()
    stage.die("x")
    stage.die("x")
    assert stage.state("x") is State.FAILED
    stage.die("a")  # b takes its time to stop
    stage.call(RestartChild(1, "x"))
    stage.die("x")

    stage.advance(3.0)

    assert [stage.state(name) for name in "abx"] == [State.RUNNING] * 3


def test_a_significant_child_that_will_be_back_keeps_its_supervisor_up() -> None:
    once, late = Restart.TRANSIENT, Backoff(first_s=5.0)
    a = child("a", once, significant=True, backoff=late)
    b = child("b", once, significant=True)
    stage = Stage(root(a, b, auto_shutdown=AutoShutdown.ALL_SIGNIFICANT)).boot()
    stage.die("a", BOOM)

    stage.die("b", NORMAL)

    assert not stage.ended()
    stage.advance(5.0)
    stage.die("a", NORMAL)
    assert stage.ended()


def test_an_end_that_waits_for_the_start_keeps_its_exit_code() -> None:
    a = child("a", Restart.TEMPORARY, significant=True)
    spec = root(a, child("b"), auto_shutdown=AutoShutdown.ANY_SIGNIFICANT)
    stage = Stage(spec, b=Script(starts=["hang"])).boot()
    stage.die("a", BOOM)

    stage.ready("b")

    assert stage.gone is not None
    assert stage.gone.exit_code == 1


def test_who_is_about_to_be_stopped_does_not_come_up_any_more() -> None:
    stage = Stage(root(child("a"), child("b")), a=Script(starts=["ready", "hang"]), b=SLOW).boot()
    stage.die("a")
    stage.shut_down()

    stage.ready("a")

    assert stage.state("a") is State.STARTING
    stage.advance(3.0)
    assert stage.ended()


def test_a_deadline_that_passes_during_a_shutdown_restarts_nobody() -> None:
    a = child("a", start_deadline_s=1.0)
    stage = Stage(root(a, child("b")), a=Script(starts=["ready", "hang"]), b=SLOW).boot()
    stage.die("a")
    stage.shut_down()
    mark = len(stage.log)

    stage.advance(10.0)

    assert stage.ended()
    assert started(stage.log[mark:]) == []


def test_an_instance_that_has_to_be_killed_alone_is_reported_alone() -> None:
    """Only at the end of their supervisor are such reports gathered."""
    pool = SupervisorSpec(
        "pool", Strategy.SIMPLE_ONE_FOR_ONE, template=child("w", shutdown_s=1.0), count=2
    )
    stage = Stage(root(pool), **{"w/0": Script(on_stop=None)}).boot()

    stage.call(TerminateChild(1, "w/0"))
    stage.advance(1.0)

    [report] = stage.reports(ReportKind.SHUTDOWN_ERROR)
    assert (report.id, report.reason, report.count) == ("w/0", KILLED, 1)


def test_an_order_to_restart_who_is_being_swept_away_waits_for_the_group() -> None:
    stage = Stage(root(child("a"), child("b"), strategy=Strategy.ONE_FOR_ALL), b=SLOW).boot()
    stage.die("a")
    mark = len(stage.log)

    assert stage.call(RestartChild(1, "b", force=True)) is None
    stage.advance(3.0)

    assert started(stage.log[mark:]) == ["a", "b"]
    assert stage.replies[1] == Done("b", stage.live["b"])
    assert stage.child("b").restarts == 0


def test_the_first_order_to_end_is_the_one_that_is_told() -> None:
    stage = Stage(root(child("a")), a=SLOW).boot()
    stage.shut_down()

    stage.send(Shutdown(Reason(Kind.ABNORMAL, "another")))
    stage.advance(3.0)

    assert stage.gone is not None
    assert (stage.gone.reason, stage.gone.exit_code) == (SHUTDOWN, 0)


def test_who_is_started_by_hand_has_all_its_failures_before_it_again() -> None:
    stage = Stage(root(child("a", max_failures=2))).boot()
    stage.die("a")
    stage.die("a")
    stage.call(RestartChild(1, "a"))

    stage.die("a")

    assert stage.state("a") is State.RUNNING
    stage.die("a")
    assert stage.state("a") is State.FAILED


def test_what_waited_for_its_next_try_is_stopped_at_the_end() -> None:
    stage = Stage(root(child("a", backoff=Backoff(first_s=5.0)))).boot()
    stage.die("a")

    stage.shut_down()

    assert stage.ended()
    assert stage.state("a") is State.STOPPED


def test_a_supervisor_whose_time_is_over_was_killed() -> None:
    inner = SupervisorSpec("inner", children=(child("a", shutdown_s=None),), shutdown_s=1.0)
    stage = Stage(root(inner), a=Script(on_stop=None)).boot()

    stage.shut_down()
    stage.advance(1.0)

    assert stage.child("inner").last_exit == KILLED


def test_a_promotion_makes_up_for_failures_before_it() -> None:
    stage = Stage(root(child("u", aside=True)), u=Script(starts=[BOOM, "ready"])).boot()
    stage.advance()
    assert (stage.state("u"), stage.child("u").failures) == (State.RUNNING, 1)

    stage.promote("u")

    assert stage.child("u").failures == 0


def test_a_start_that_fails_is_tried_again_by_a_timer_however_short() -> None:
    """So that an order can get in between."""
    stage = Stage(root(child("a")), a=Script(starts=["ready", BOOM, "ready"])).boot()

    stage.die("a")

    assert stage.state("a") is State.RESTARTING
    stage.advance()
    assert stage.state("a") is State.RUNNING
