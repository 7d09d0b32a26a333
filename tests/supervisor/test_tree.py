"""What the tree does beyond OTP: readiness, deadlines, back-off, limits, drains, scaling."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.tree import (
    KILLED,
    NORMAL,
    SHUTDOWN,
    AutoShutdown,
    Backoff,
    Boot,
    Done,
    Drain,
    Exited,
    Ignored,
    Kill,
    Kind,
    Ready,
    Reason,
    Refusal,
    ReportKind,
    Restart,
    RestartChild,
    Scale,
    SetTimer,
    Start,
    StartChild,
    State,
    Stop,
    Strategy,
    SupervisorSpec,
    TerminateChild,
    Timer,
    Tree,
    check,
    errors,
)
from supervisor.tree.intensity import RestartWindow
from tests.supervisor.stage import BOOM, Script, Stage, child, refusal, started, stopped

HANG = Script(starts=["hang"])
STEPS = Backoff(initial_s=1, factor=2, max_s=4, jitter=0, reset_after_s=60)


def _root(*children: object, **flags: object) -> SupervisorSpec:
    return SupervisorSpec("root", children=children, **{"intensity": 9, **flags})  # type: ignore[arg-type]  # short for tests


# --- readiness and deadlines ----------------------------------------------------------------------


def test_a_child_waits_for_the_one_before_to_be_ready() -> None:
    """Existing is not enough: the next child starts when the one before says it is ready."""
    stage = Stage(_root(child("a"), child("b")), a=HANG).boot()
    assert started(stage.log) == ["a"]
    assert (stage.state("a"), stage.state("b")) == (State.STARTING, State.WAITING)

    assert started(stage.ready("a")) == ["b"]


def test_a_supervisor_is_ready_when_all_its_children_are() -> None:
    """A child after a sub-supervisor waits for the last one in it."""
    inner = SupervisorSpec("inner", children=(child("x"), child("y")))
    stage = Stage(_root(inner, child("b")), y=HANG).boot()
    assert started(stage.log) == ["x", "y"]

    assert started(stage.ready("y")) == ["b"]


def test_instances_start_side_by_side() -> None:
    """No instance of a template waits for another one."""
    spec = SupervisorSpec("root", Strategy.SIMPLE_ONE_FOR_ONE, template=child("w"), count=3)
    stage = Stage(spec, **{f"w/{k}": HANG for k in range(3)}).boot()

    assert started(stage.log) == ["w/0", "w/1", "w/2"]
    assert stage.state("root") is State.STARTING


def test_a_child_that_is_not_ready_in_time_is_killed_and_has_failed_to_start() -> None:
    """At the first start that is the end of the tree, with the reason told."""
    stage = Stage(_root(child("a", start_deadline_s=30)), a=HANG).boot()

    stage.advance(29)
    assert not stage.ended()
    stage.advance(1)

    assert stage.gone is not None
    assert stage.gone.exit_code == 1
    assert str(stage.gone.reason) == (
        "start_failed (failed_to_start_child) <- a: "
        "start_failed (not ready within 30 s) <- a: killed"
    )


def test_ready_at_the_last_moment_cancels_the_deadline() -> None:
    """No kill follows for a child that was ready in time."""
    stage = Stage(_root(child("a", start_deadline_s=30)), a=HANG).boot()
    stage.advance(29)
    stage.ready("a")
    stage.advance(100)

    assert stage.state("a") is State.RUNNING


def test_a_shutdown_interrupts_a_start_that_hangs() -> None:
    """Nothing has to be waited for but the child's own end."""
    stage = Stage(_root(child("a"), child("b"), child("c")), b=HANG).boot()

    assert stopped(stage.shut_down()) == ["b", "a"]
    assert stage.gone is not None
    assert stage.gone.exit_code == 0


def test_the_crash_of_an_earlier_child_interrupts_the_start_of_a_later_one() -> None:
    """Under rest_for_one the later child would start on ground that is gone."""
    spec = _root(child("a"), child("b"), child("c"), strategy=Strategy.REST_FOR_ONE)
    stage = Stage(spec, b=Script(starts=["hang", "ready"])).boot()

    actions = stage.die("a")

    assert stopped(actions) == ["b"]
    assert started(actions) == ["a", "b", "c"]
    assert stage.state("root") is State.RUNNING


def test_the_next_child_waits_for_an_earlier_one_that_is_being_restarted() -> None:
    """Also under one_for_one, as long as the supervisor starts."""
    stage = Stage(
        _root(child("a"), child("b"), child("c")),
        a=Script(starts=["ready", "hang"]),
        b=HANG,
    ).boot()
    stage.die("a")

    assert started(stage.ready("b")) == []
    assert started(stage.ready("a")) == ["c"]


def test_crashed_children_come_back_side_by_side_under_one_for_one() -> None:
    """The second one does not wait until the first one has loaded its model."""
    scripts = {name: Script(starts=["ready", "hang"]) for name in ("a", "b")}
    stage = Stage(_root(child("a"), child("b")), **scripts).boot()

    stage.die("a")
    stage.die("b")

    assert (stage.state("a"), stage.state("b")) == (State.STARTING, State.STARTING)


def test_a_child_that_ignores_its_start_is_settled_when_its_process_is_gone() -> None:
    """Until then the next child waits, and the process is asked to leave."""
    stage = Stage(
        _root(child("a", shutdown_s=2), child("b")), a=Script(starts=["hang"], on_stop=None)
    ).boot()

    actions = stage.send(Ignored("a", stage.live["a"]))
    assert [type(action) for action in actions] == [Stop, SetTimer]
    mark = len(stage.log)
    stage.advance(2)

    assert started(stage.log[mark:]) == ["b"]
    assert stage.reports(ReportKind.START_ERROR) == []


# --- back-off and limits ----------------------------------------------------------------------


def test_the_first_restart_is_immediate_and_later_ones_wait_longer() -> None:
    """0, then 1, 2, 4, 4 s with this back-off; the next try is told."""
    stage = Stage(_root(child("a", backoff=STEPS))).boot()
    delays = []
    for _ in range(5):
        stage.die("a")
        retry = stage.child("a").next_retry
        delays.append(0.0 if retry is None else retry - stage.now)
        stage.advance(delays[-1])
        assert stage.state("a") is State.RUNNING

    assert delays == [0, 1, 2, 4, 4]


def test_a_stable_run_resets_the_backoff() -> None:
    """After `reset_after_s` up, the next restart is a first one again."""
    stage = Stage(_root(child("a", backoff=STEPS))).boot()
    stage.die("a")
    stage.advance(59)
    stage.die("a")
    assert stage.state("a") is State.RESTARTING
    stage.advance(1 + 60)
    stage.die("a")

    assert stage.state("a") is State.STARTING or stage.state("a") is State.RUNNING
    assert stage.child("a").failures == 1


def test_a_group_restart_waits_for_the_backoff_of_its_culprit() -> None:
    """The siblings are stopped at once and started with it."""
    spec = _root(child("a"), child("b", backoff=STEPS), strategy=Strategy.ONE_FOR_ALL)
    stage = Stage(spec).boot()
    stage.die("b")
    actions = stage.die("b")
    assert (stopped(actions), started(actions)) == (["a"], [])
    mark = len(stage.log)
    stage.advance(1)

    assert started(stage.log[mark:]) == ["a", "b"]


def test_same_seed_same_delays() -> None:
    """Jitter comes from the seed alone, and spreads children of different seeds."""

    def delay(seed: int) -> float:
        tree = Tree(_root(child("a", backoff=Backoff(first_s=0, jitter=0.5))), seed=seed)
        tree.step(Boot(), 0)
        tree.step(Ready("a", 2), 0)
        tree.step(Exited("a", 2, BOOM), 0)
        tree.step(Exited("a", 3, BOOM), 0)
        retry = tree.which_child("a").next_retry
        assert retry is not None
        return retry

    assert delay(1) == delay(1)
    assert len({delay(seed) for seed in range(10)}) == 10


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(1, 1000))
def test_a_delay_is_never_above_its_maximum(failures: int, draw: float, factor: float) -> None:
    """Jitter only shortens, and no number of failures overflows."""
    backoff = Backoff(initial_s=0.5, factor=factor, max_s=30, jitter=0.5)
    assert 0 <= backoff.delay(failures, draw) <= 30


@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.5])),
    st.integers(0, 4),
    st.sampled_from([1.0, 2.5]),
)
def test_the_window_counts_what_is_not_older_than_the_period(
    gaps: list[float], intensity: int, period_s: float
) -> None:
    """Against the rule written plainly: count all admitted entries that are young enough."""
    window, now, admitted = RestartWindow(), 0.0, list[float]()
    for gap in gaps:
        now += gap
        allowed = sum(time >= now - period_s for time in admitted) < intensity
        assert window.admit(now, intensity=intensity, period_s=period_s) == allowed
        if allowed:
            admitted.append(now)


def test_a_child_with_a_limit_of_its_own_fails_alone() -> None:
    """After `max_failures` in a row it is given up; its siblings and supervisor live on, and a
    restart by hand gives it all its tries again."""
    spec = _root(child("a", max_failures=3), child("b"), intensity=0)
    stage = Stage(spec, a=Script(starts=["ready", BOOM, BOOM, "ready"])).boot()
    before = stage.live["b"]

    stage.die("a")
    stage.advance()

    assert stage.state("a") is State.FAILED
    assert [one.id for one in stage.reports(ReportKind.GAVE_UP)] == ["a"]
    assert (stage.state("root"), stage.live["b"]) == (State.RUNNING, before)
    assert isinstance(stage.call(RestartChild(1, "a")), Done)
    assert stage.child("a").failures == 0


def test_the_group_goes_on_without_a_child_that_is_given_up() -> None:
    """Siblings that were stopped for its restart are started without it."""
    spec = _root(child("a", max_failures=2), child("b"), strategy=Strategy.ONE_FOR_ALL)
    stage = Stage(spec, a=Script(starts=["ready", BOOM])).boot()

    stage.die("a")
    stage.advance()

    assert (stage.state("a"), stage.state("b")) == (State.FAILED, State.RUNNING)


def test_a_significant_child_that_is_given_up_ends_its_supervisor_badly() -> None:
    """The exit code says that it did not finish its work."""
    lead = child("a", Restart.TRANSIENT, significant=True, max_failures=1)
    stage = Stage(_root(lead, auto_shutdown=AutoShutdown.ANY_SIGNIFICANT)).boot()

    stage.die("a")

    assert stage.gone is not None
    assert stage.gone.exit_code == 1


# --- stopping -----------------------------------------------------------------------------------


def test_a_child_drains_before_it_is_stopped() -> None:
    """Drain, then Stop when its work is done or its time is over, then Kill."""
    stage = Stage(
        _root(child("a", drain_s=10, shutdown_s=5)), a=Script(drains=False, on_stop=None)
    ).boot()

    stage.shut_down()
    assert stage.state("a") is State.DRAINING
    stage.advance(10)
    assert stage.state("a") is State.STOPPING
    stage.advance(5)

    assert stage.ended()
    orders = [type(action) for action in stage.log if isinstance(action, (Drain, Stop, Kill))]
    assert orders == [Drain, Stop, Kill]


def test_a_child_that_has_drained_is_stopped_at_once() -> None:
    """Its remaining time is not waited for; neither is that of one that ends while it drains."""
    stage = Stage(_root(child("a", drain_s=10), child("b", drain_s=10)), b=Script(drains=False))
    stage.boot().shut_down()
    assert (stage.state("a"), stage.state("b")) == (State.RUNNING, State.DRAINING)

    stage.die("b", NORMAL)

    assert stage.ended()


def test_a_forced_shutdown_kills_everything_at_once() -> None:
    """Also after a patient one, however deep, and it starts nothing on the way."""
    inner = SupervisorSpec("inner", children=(child("x", shutdown_s=None), child("y")))
    stage = Stage(_root(inner, child("b", shutdown_s=None)), b=Script(on_stop=None)).boot()
    stage.shut_down()
    assert stage.live.keys() == {"x", "y", "b"}

    actions = stage.shut_down(force=True)

    assert sorted(stopped(actions)) == ["b", "x", "y"]
    assert started(actions) == []
    assert stage.gone is not None
    assert (stage.gone.reason, stage.gone.exit_code) == (SHUTDOWN, 0)


def test_a_supervisor_with_a_time_limit_kills_what_is_left_below() -> None:
    """Nothing below is orphaned, which is the known hazard of such limits in OTP."""
    inner = SupervisorSpec("inner", shutdown_s=3, children=(child("x", shutdown_s=None),))
    stage = Stage(_root(child("a"), inner), x=Script(on_stop=None)).boot()

    stage.shut_down()
    stage.advance(3)

    assert stage.ended()
    assert stage.child("x").last_exit == KILLED


def test_the_first_reason_to_end_stays() -> None:
    """A shutdown that comes while the tree gives up does not turn its failure into success."""
    stage = Stage(_root(child("a"), child("b"), intensity=0), b=Script(stop_takes_s=1)).boot()
    stage.die("a")
    stage.shut_down()
    stage.advance(1)

    assert stage.gone is not None
    assert stage.gone.exit_code == 1


def test_an_auto_shutdown_waits_until_the_supervisor_has_started() -> None:
    """A significant child may finish before the last one is up; that is no failed start."""
    lead = child("a", Restart.TRANSIENT, significant=True)
    spec = _root(lead, child("b"), auto_shutdown=AutoShutdown.ANY_SIGNIFICANT)
    stage = Stage(spec, b=HANG).boot()
    stage.die("a", NORMAL)
    assert stage.state("b") is State.STARTING
    stage.ready("b")

    assert stage.gone is not None
    assert stage.gone.exit_code == 0


def test_a_temporary_child_keeps_its_turn_when_a_group_restart_comes_before_it() -> None:
    """It was never started, so there is nothing to sweep away."""
    spec = _root(
        child("a"), child("b"), child("t", Restart.TEMPORARY), strategy=Strategy.ONE_FOR_ALL
    )
    stage = Stage(spec, b=Script(starts=["hang", "ready"])).boot()

    assert started(stage.die("a")) == ["a", "b", "t"]


# --- commands -----------------------------------------------------------------------------------


def test_a_forced_restart_of_a_running_child_is_not_counted() -> None:
    """It is stopped politely and started; its siblings stay, whatever the strategy."""
    spec = _root(child("a"), child("b"), strategy=Strategy.ONE_FOR_ALL, intensity=0)
    stage = Stage(spec).boot()
    before = stage.runs("a", "b")

    result = stage.call(RestartChild(1, "a", force=True))

    assert result == Done("a", stage.live["a"])
    assert stage.live["a"] > before[0]
    assert stage.live["b"] == before[1]


def test_a_forced_restart_tries_a_waiting_child_now() -> None:
    """Its back-off is cut short."""
    patient = Backoff(first_s=100)
    stage = Stage(_root(child("a", backoff=patient))).boot()
    stage.die("a")

    assert isinstance(stage.call(RestartChild(1, "a", force=True)), Done)
    stage.advance(1000)
    assert stage.child("a").restarts == 1


def test_a_temporary_child_whose_forced_restart_fails_is_forgotten() -> None:
    """It is never restarted by itself, so nobody will try again."""
    stage = Stage(_root(child("t", Restart.TEMPORARY)), t=Script(starts=["ready", BOOM])).boot()

    result = stage.call(RestartChild(1, "t", force=True))

    assert refusal(result) is Refusal.START_FAILED
    assert stage.names("root") == []


def test_a_group_restart_does_not_bring_back_a_child_that_is_being_terminated() -> None:
    """The order came first."""
    spec = _root(child("a"), child("b"), strategy=Strategy.ONE_FOR_ALL)
    stage = Stage(spec, b=Script(stop_takes_s=1)).boot()
    stage.call(TerminateChild(1, "b"))
    stage.die("a")
    stage.advance(1)

    assert (stage.state("a"), stage.state("b")) == (State.RUNNING, State.STOPPED)


def test_a_failed_start_by_hand_does_not_colour_a_later_group_restart() -> None:
    """Then the failure counts and is retried, like any other."""
    spec = _root(child("a"), child("b"), strategy=Strategy.ONE_FOR_ALL)
    stage = Stage(spec, b=Script(starts=["ready", BOOM, BOOM, "ready"])).boot()
    stage.call(TerminateChild(1, "b"))
    assert refusal(stage.call(RestartChild(2, "b"))) is Refusal.START_FAILED
    stage.die("a")
    stage.advance()

    assert stage.live.keys() == {"a", "b"}


def test_a_terminated_child_refuses_whoever_waits_for_its_start() -> None:
    """Each of the two commands gets its own answer."""
    stage = Stage(_root(), a=HANG).boot()

    assert stage.call(StartChild(1, "root", child("a"))) is None
    assert stage.call(TerminateChild(2, "a")) == Done("a")
    assert refusal(stage.replies[1]) is Refusal.INTERRUPTED


def test_scaling_adds_the_lowest_and_removes_the_highest_numbers() -> None:
    """Answered when all is done; kept when the supervisor restarts."""
    dynamic = SupervisorSpec(
        "pool", Strategy.SIMPLE_ONE_FOR_ONE, intensity=0, template=child("w"), count=2
    )
    stage = Stage(_root(dynamic), **{"w/3": HANG}).boot()

    assert stage.call(Scale(1, "pool", 4)) is None
    stage.ready("w/3")
    assert stage.replies[1] == Done("pool")
    stage.call(TerminateChild(2, "w/1"))
    stage.call(Scale(3, "pool", 4))
    assert sorted(stage.live) == ["w/0", "w/1", "w/2", "w/3"]
    assert stage.call(Scale(4, "pool", 1)) == Done("pool")
    assert stage.names("pool") == ["w/0"]
    stage.call(Scale(5, "pool", 2))
    stage.die("w/0")
    stage.advance(1)

    assert stage.names("pool") == ["w/0", "w/1"]


def test_an_id_is_unique_in_the_whole_tree() -> None:
    """Also against deleted children that could come back, and against instances to be."""
    pool = SupervisorSpec("pool", Strategy.SIMPLE_ONE_FOR_ONE, template=child("w"))
    stage = Stage(_root(SupervisorSpec("inner", children=(child("x"),)), pool)).boot()

    for ref, name in enumerate(("x", "inner", "root", "w/7")):
        wanted = Refusal.ALREADY_STARTED if name == "inner" else Refusal.INVALID_SPEC
        assert refusal(stage.call(StartChild(ref, "root", child(name)))) is wanted
    with pytest.raises(errors.DuplicateId):
        check(_root(pool, child("w/0")))


def test_events_of_other_runs_are_ignored() -> None:
    """Whatever an old, a coming or an unknown run says, nothing follows."""
    stage = Stage(_root(child("a"))).boot()
    old = stage.live["a"]
    stage.die("a")

    for name, run in (("a", old), ("a", old + 9), ("nobody", 1), ("root", 1)):
        for event in (Ready(name, run), Ignored(name, run), Exited(name, run, BOOM)):
            assert stage.tree.step(event, stage.now) == []
    assert stage.tree.step(Timer("nothing"), stage.now) == []
    assert stage.tree.step(Boot(), stage.now) == []


def test_status_tells_where_everything_is() -> None:
    """State, run, restarts, last end and since when, in start order below each supervisor."""
    inner = SupervisorSpec("inner", children=(child("x"),))
    stage = Stage(_root(inner, child("a"))).boot()
    stage.advance(7)
    stage.die("a", Reason(Kind.ABNORMAL, "exit code 3"))

    status = {one.id: one for one in stage.tree.status()}

    assert list(status) == ["root", "inner", "x", "a"]
    assert (status["x"].supervisor, status["x"].since) == ("inner", 100.0)
    assert (status["a"].restarts, status["a"].failures, status["a"].since) == (1, 1, 107.0)
    assert str(status["a"].last_exit) == "abnormal (exit code 3)"
    assert [action.run for action in stage.log if isinstance(action, Start)][-1] == status["a"].run


def test_the_tree_imports_nothing_but_the_standard_library_and_msgspec() -> None:
    """It stays small and starts fast: no asyncio, no actors."""
    code = (
        "import sys; import supervisor.tree; "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())

    assert not loaded & {"asyncio", "actors", "socket", "yaml"}
