"""Cases of management: child_adm, counts, which_children, hanging restarts."""

from __future__ import annotations

import pytest

from supervisor.tree import (
    KILLED,
    NORMAL,
    SHUTDOWN,
    Backoff,
    Counts,
    DeleteChild,
    Done,
    Exited,
    Refusal,
    Restart,
    RestartChild,
    StartChild,
    State,
    Strategy,
    SupervisorSpec,
    TerminateChild,
    UnknownIdError,
)
from tests.supervisor.stage import BOOM, Script, Stage, child, refusal

SIMPLE = Strategy.SIMPLE_ONE_FOR_ONE
TEMPORARY = Restart.TEMPORARY
PATIENT = Backoff(initial_s=1, factor=1, jitter=0)
HANGS = Script(starts=["ready", BOOM])
"""Up once, and never again."""


def test_child_adm() -> None:
    """A child's whole life by commands: start, terminate, restart, delete, with every error."""
    stage = Stage(SupervisorSpec("root")).boot()

    assert stage.call(StartChild(1, "root", child("a"))) == Done("a", stage.live["a"])
    assert stage.names("root") == ["a"]
    assert stage.tree.count_children("root") == Counts(1, 1, 0, 1)
    assert refusal(stage.call(StartChild(2, "root", child("a")))) is Refusal.ALREADY_STARTED
    assert refusal(stage.call(RestartChild(3, "a"))) is Refusal.RUNNING
    assert refusal(stage.call(DeleteChild(4, "a"))) is Refusal.RUNNING

    assert stage.call(TerminateChild(5, "a")) == Done("a")
    assert stage.state("a") is State.STOPPED
    assert stage.call(TerminateChild(6, "a")) == Done("a")
    assert stage.tree.count_children("root") == Counts(1, 0, 0, 1)
    assert refusal(stage.call(StartChild(7, "root", child("a")))) is Refusal.ALREADY_PRESENT

    assert stage.call(RestartChild(8, "a")) == Done("a", stage.live["a"])
    assert stage.child("a").restarts == 0
    stage.call(TerminateChild(9, "a"))
    assert stage.call(DeleteChild(10, "a")) == Done("a")
    assert stage.names("root") == []
    for command in (TerminateChild(11, "a"), RestartChild(12, "a"), DeleteChild(13, "a")):
        assert refusal(stage.call(command)) is Refusal.NOT_FOUND

    stage.shut_down()
    assert refusal(stage.call(StartChild(14, "root", child("a")))) is Refusal.SUPERVISOR_DOWN


def test_child_adm_simple() -> None:
    """Under simple_one_for_one an instance is added without a spec and terminated by its id; a
    dead one is terminated already, a stranger is refused and lives on."""
    dynamic = SupervisorSpec("dynamic", SIMPLE, template=child("w"))
    stage = Stage(SupervisorSpec("root", children=(dynamic, child("stranger")))).boot()

    assert stage.call(StartChild(1, "dynamic")) == Done("w/0", stage.live["w/0"])
    with_spec = stage.call(StartChild(2, "dynamic", child("a")))
    assert refusal(with_spec) is Refusal.SIMPLE_ONE_FOR_ONE
    assert refusal(stage.call(DeleteChild(3, "w/0"))) is Refusal.SIMPLE_ONE_FOR_ONE
    assert refusal(stage.call(RestartChild(4, "w/0"))) is Refusal.SIMPLE_ONE_FOR_ONE

    assert stage.call(TerminateChild(5, "w/0")) == Done("w/0")
    assert stage.names("dynamic") == []
    assert stage.call(TerminateChild(6, "w/0")) == Done("w/0")
    assert refusal(stage.call(TerminateChild(7, "nobody"))) is Refusal.NOT_FOUND
    assert stage.live.keys() == {"stranger"}


def test_extra_return() -> None:
    """Information given with the start is passed back by start_child and restart_child; an
    automatic restart works all the same.

    Adapted: the information travels with Ready.
    """
    stage = Stage(SupervisorSpec("root"), a=Script(info="extra")).boot()

    assert stage.call(StartChild(1, "root", child("a"))) == Done("a", stage.live["a"], "extra")
    stage.call(TerminateChild(2, "a"))
    assert stage.call(RestartChild(3, "a")) == Done("a", stage.live["a"], "extra")
    before = stage.live["a"]
    stage.die("a")

    assert stage.live["a"] > before
    assert len(stage.replies) == 3


def test_external_start_no_progress_log() -> None:
    """The progress of a start that was asked for from outside is less worth telling.

    Adapted: the log level is the shell's; the report is marked external.
    """
    stage = Stage(SupervisorSpec("root", children=(child("a"),))).boot()
    mark = len(stage.log)

    stage.call(StartChild(1, "root", child("b")))
    stage.die("b")

    marks = [action.external for action in stage.log[mark:] if hasattr(action, "external")]
    # Progress of the start, the report of the crash, progress of the automatic restart.
    assert marks == [True, False, False]


def test_child_unlink() -> None:
    """A child that cut its ties cannot hang terminate_child, and the supervisor serves on.

    Adapted: the child ignores SIGTERM.
    """
    stage = Stage(
        SupervisorSpec("root", children=(child("a", shutdown_s=2), child("b"))),
        a=Script(on_stop=None),
    ).boot()

    assert stage.call(TerminateChild(1, "a")) is None
    assert stage.call(StartChild(2, "root", child("c"))) == Done("c", stage.live["c"])
    stage.advance(2)

    assert stage.replies[1] == Done("a")
    assert stage.child("a").last_exit == KILLED


def test_count_children() -> None:
    """Counts of 1000 and 2000 instances are stable and right, and zero after all were killed."""
    template = child("w", TEMPORARY)
    stage = Stage(SupervisorSpec("root", SIMPLE, template=template)).boot()

    for total in (1000, 2000):
        for index in range(total - len(stage.live)):
            stage.call(StartChild(f"{total}-{index}", "root"))
        assert stage.tree.count_children("root") == Counts(1, total, 0, total)
        stage.tree.step(Exited("stranger", 1, NORMAL), stage.now)
        assert stage.tree.count_children("root") == Counts(1, total, 0, total)
    for name in list(stage.live):
        stage.die(name, KILLED)

    assert stage.tree.count_children("root") == Counts(1, 0, 0, 0)


def test_count_children_supervisor() -> None:
    """The same with supervisors as children."""
    children = tuple(
        SupervisorSpec(f"s{index}", restart=TEMPORARY, children=(child(f"c{index}"),), intensity=0)
        for index in range(500)
    )
    stage = Stage(SupervisorSpec("root", children=children)).boot()

    assert stage.tree.count_children("root") == Counts(500, 500, 500, 0)
    for name in list(stage.live):
        stage.die(name)

    assert stage.tree.count_children("root") == Counts(0, 0, 0, 0)


def test_count_restarting_children() -> None:
    """A child whose restart fails counts as a spec but not as active, until it is up again;
    terminating it takes nothing from the specs."""
    children = tuple(child(name, backoff=PATIENT) for name in ("a", "b", "c"))
    stage = Stage(
        SupervisorSpec("root", intensity=10, children=children),
        a=Script(starts=["ready", BOOM, BOOM, "ready"]),
        b=HANGS,
    ).boot()

    stage.die("a")
    stage.die("b")
    counts = stage.tree.count_children("root")
    assert (counts.specs, counts.active) == (3, 1)
    stage.advance(2)
    assert stage.tree.count_children("root").active == 2
    stage.call(TerminateChild(1, "b"))
    stage.call(TerminateChild(2, "a"))

    counts = stage.tree.count_children("root")
    assert (counts.specs, counts.active) == (3, 1)


def test_do_not_save_child_specs_for_temporary_children() -> None:
    """However a temporary child ended, its id is free again; others are present or started."""
    stage = Stage(SupervisorSpec("root")).boot()
    stage.call(StartChild(0, "root", child("keeper", Restart.TRANSIENT)))

    for ref, reason in enumerate((KILLED, NORMAL, BOOM, None), start=1):
        assert isinstance(stage.call(StartChild(ref, "root", child("a", TEMPORARY))), Done)
        if reason is None:
            stage.call(TerminateChild("end", "a"))
        else:
            stage.die("a", reason)
        assert stage.names("root") == ["keeper"]

    started = stage.call(StartChild("x", "root", child("keeper")))
    assert refusal(started) is Refusal.ALREADY_STARTED
    stage.die("keeper", NORMAL)
    present = stage.call(StartChild("y", "root", child("keeper")))
    assert refusal(present) is Refusal.ALREADY_PRESENT


def _errors_of_a_restarting_child(stage: Stage, name: str) -> None:
    assert stage.state(name) is State.RESTARTING
    assert refusal(stage.call(StartChild("s", "root", child(name)))) is Refusal.ALREADY_PRESENT
    assert refusal(stage.call(RestartChild("r", name))) is Refusal.RESTARTING
    assert refusal(stage.call(DeleteChild("d", name))) is Refusal.RESTARTING


def test_hanging_restart_loop() -> None:
    """While a child cannot restart it is shown so, commands are answered and refused rightly, it
    can be terminated, and the supervisor can be shut down."""
    spec = SupervisorSpec(
        "root", Strategy.ONE_FOR_ONE, 1000, 10.0, children=(child("a", backoff=PATIENT),)
    )
    stage = Stage(spec, a=HANGS).boot()
    stage.die("a")
    stage.advance(3)

    _errors_of_a_restarting_child(stage, "a")
    assert stage.call(TerminateChild("t", "a")) == Done("a")
    assert stage.state("a") is State.STOPPED
    assert refusal(stage.call(RestartChild("again", "a"))) is Refusal.START_FAILED
    stage.shut_down()

    assert stage.gone is not None


def test_hanging_restart_loop_rest_for_one() -> None:
    """The same under rest_for_one: later children are shown as not started."""
    children = tuple(child(name, backoff=PATIENT) for name in ("a", "b", "c"))
    spec = SupervisorSpec("root", Strategy.REST_FOR_ONE, 1000, 10.0, children=children)
    stage = Stage(spec, b=HANGS).boot()
    stage.die("b")
    stage.advance(3)

    _errors_of_a_restarting_child(stage, "b")
    assert stage.live.keys() == {"a"}
    assert stage.state("c") is State.WAITING
    assert stage.call(TerminateChild("t", "b")) == Done("b")
    stage.shut_down()

    assert stage.gone is not None


def test_hanging_restart_loop_simple() -> None:
    """The same for an instance: it can be terminated by its id, and then it is forgotten."""
    template = child("w", backoff=PATIENT)
    spec = SupervisorSpec("root", SIMPLE, 1000, 10.0, template=template, count=2)
    stage = Stage(spec, **{"w/0": HANGS}).boot()
    stage.die("w/0")
    stage.advance(3)

    assert stage.state("w/0") is State.RESTARTING
    assert refusal(stage.call(RestartChild("r", "w/0"))) is Refusal.SIMPLE_ONE_FOR_ONE
    assert stage.call(TerminateChild("t", "w/0")) == Done("w/0")
    assert stage.names("root") == ["w/1"]
    stage.shut_down()

    assert stage.gone is not None


def test_which_children() -> None:
    """which_children and which_child follow a child through start, terminate and delete."""
    stage = Stage(SupervisorSpec("root", children=(child("a"),))).boot()
    stage.call(StartChild(1, "root", child("b")))
    assert [(one.id, one.state) for one in stage.tree.which_children("root")] == [
        ("a", State.RUNNING),
        ("b", State.RUNNING),
    ]

    stage.call(TerminateChild(2, "b"))
    assert (stage.child("b").state, stage.child("b").last_exit) == (State.STOPPED, SHUTDOWN)
    stage.call(DeleteChild(3, "b"))

    assert stage.names("root") == ["a"]
    with pytest.raises(UnknownIdError):
        stage.tree.which_child("b")


def test_which_children_simple_one_for_one() -> None:
    """The same for instances; what is no supervisor has no children."""
    stage = Stage(SupervisorSpec("root", SIMPLE, template=child("w"), count=2)).boot()

    assert stage.names("root") == ["w/0", "w/1"]
    stage.call(TerminateChild(1, "w/0"))
    assert stage.names("root") == ["w/1"]
    with pytest.raises(UnknownIdError):
        stage.tree.which_children("w/1")
