"""Cases on live changes, reports, names and what is kept in memory."""

from __future__ import annotations

import gc
import weakref

import msgspec
import pytest

from supervisor.tree import (
    KILLED,
    NORMAL,
    SHUTDOWN,
    ChildSpec,
    Done,
    Exited,
    Kind,
    Ready,
    Reason,
    Reconfigure,
    Refusal,
    Refused,
    Report,
    ReportKind,
    Restart,
    RestartChild,
    Start,
    StartChild,
    State,
    Strategy,
    SupervisorSpec,
)
from tests.supervisor.stage import AT_ONCE, BOOM, Script, Stage, child, refusal, started, stopped

SIMPLE = Strategy.SIMPLE_ONE_FOR_ONE


class Arguments:
    """Large start arguments, whose life can be watched."""


def _code_change(stage: Stage) -> None:
    spec = SupervisorSpec(
        "root",
        Strategy.REST_FOR_ONE,
        intensity=5,
        period_s=9,
        children=(child("b", shutdown_s=1), child("new")),
    )
    runs = stage.runs("a", "b")

    assert stage.call(Reconfigure(1, spec)) == Done("root")

    assert stage.tree.spec == spec
    assert stage.runs("a", "b") == runs
    assert stage.tree.child_spec("b") == child("b", shutdown_s=1)
    assert stage.state("new") is State.STOPPED
    assert stage.state("a") is State.RUNNING
    for index, faulty in enumerate(
        (
            SupervisorSpec("root", intensity=-1),
            SupervisorSpec("root", children=(child("b"), child("b"))),
            SupervisorSpec("root", children=(SupervisorSpec("b"),)),
        ),
        start=2,
    ):
        assert refusal(stage.call(Reconfigure(index, faulty))) is Refusal.INVALID_SPEC
        assert stage.tree.spec == spec
    assert isinstance(stage.call(RestartChild("r", "new")), Done)


def test_code_change() -> None:
    """Flags and specs change while the children run; faulty ones are refused and change nothing;
    removed children stay.

    Adapted: the change is a Reconfigure; new children are added stopped, as in OTP.
    """
    _code_change(Stage(SupervisorSpec("root", children=(child("a"), child("b")))).boot())


def test_code_change_map() -> None:
    """The same below the root; it outlives a restart of the supervisor, which then drops what was
    removed and starts what is new.

    Adapted: there is one form of specs, so that the second form of the case is a second place.
    """
    inner = SupervisorSpec("inner", intensity=0, children=(child("a"), child("b")))
    stage = Stage(SupervisorSpec("root", children=(inner,))).boot()
    change = msgspec.structs.replace(inner, children=(child("b"), child("new")))

    stage.call(Reconfigure(1, change))
    assert stage.names("inner") == ["b", "new", "a"]
    stage.die("b")

    assert stage.names("inner") == ["b", "new"]
    assert stage.live.keys() == {"b", "new"}


def _simple_change(*, below: bool) -> None:
    dynamic = SupervisorSpec("sup", SIMPLE, template=child("w"), count=2)
    stage = Stage(SupervisorSpec("root", children=(dynamic,)) if below else dynamic).boot()
    runs = stage.runs("w/0", "w/1")
    changed = msgspec.structs.replace(dynamic, template=child("w", shutdown_s=1), intensity=3)

    assert stage.call(Reconfigure(1, changed)) == Done("sup")
    assert stage.runs("w/0", "w/1") == runs
    assert stage.tree.child_spec("w/0") == child("w/0", shutdown_s=1)
    for index, faulty in enumerate(
        (
            msgspec.structs.replace(dynamic, template=None),
            msgspec.structs.replace(dynamic, children=(child("a"),)),
            msgspec.structs.replace(dynamic, template=child("other")),
        ),
        start=2,
    ):
        assert refusal(stage.call(Reconfigure(index, faulty))) is Refusal.INVALID_SPEC
    assert stage.tree.child_spec("w/0") == child("w/0", shutdown_s=1)


def test_code_change_simple() -> None:
    """The template is changed for instances that run and for those to come; no template, or
    children beside it, are refused.

    Adapted: a Reconfigure of the root.
    """
    _simple_change(below=False)


def test_code_change_simple_map() -> None:
    """The same for a dynamic supervisor below the root.

    Adapted: a Reconfigure of a supervisor below the root.
    """
    _simple_change(below=True)


def test_order_of_children() -> None:
    """Start order is list order, whatever the ids; rest_for_one and the full stop reverse it."""
    names = ["m", "a", "z", "c", "y"]
    spec = SupervisorSpec(
        "root", Strategy.REST_FOR_ONE, children=tuple(child(name) for name in names)
    )
    stage = Stage(spec).boot()

    assert started(stage.log) == names
    actions = stage.die("a")
    assert stopped(actions) == ["y", "c", "z"]
    assert started(actions) == ["a", "z", "c", "y"]
    assert stopped(stage.shut_down()) == ["y", "c", "z", "a", "m"]


def test_format_log_1() -> None:
    """Reports tell the supervisor, the context, the child, its run and the reason.

    Adapted: the text is the shell's; the report holds what OTP's contexts hold.
    """
    children = (child("a"), child("b"))
    stage = Stage(SupervisorSpec("root", children=children), a=Script(starts=["ready", BOOM]))
    stage.boot()
    run = stage.live["a"]

    stage.die("a", KILLED)
    stage.advance()

    failed = Reason(Kind.START_FAILED, "ended before it was ready", "a", BOOM)
    wanted = [
        Report(ReportKind.CHILD_TERMINATED, "a", "root", run, KILLED),
        Report(ReportKind.START_ERROR, "a", "root", run + 2, failed),
        Report(
            ReportKind.SHUTDOWN,
            "root",
            "",
            1,
            Reason(Kind.SHUTDOWN, "reached_max_restart_intensity", "a", failed),
        ),
    ]
    reports = [action for action in stage.log if isinstance(action, Report)]
    assert [one for one in reports if one.kind is not ReportKind.PROGRESS] == wanted


def test_format_log_2() -> None:
    """Errors of many instances at the stop are one report for each reason, with a count.

    Adapted: depth and length of the text are the shell's.
    """
    reasons = [BOOM] * 3 + [KILLED] * 4 + [SHUTDOWN] * 2
    scripts = {f"w/{i}": Script(on_stop=reason) for i, reason in enumerate(reasons)}
    spec = SupervisorSpec("root", SIMPLE, template=child("w"), count=len(reasons))
    stage = Stage(spec, **scripts).boot()

    stage.shut_down()

    errors = stage.reports(ReportKind.SHUTDOWN_ERROR)
    assert {(one.id, one.reason, one.count) for one in errors} == {
        ("w", BOOM, 3),
        ("w", KILLED, 4),
    }


def test_already_started_outside_supervisor() -> None:
    """A name that a stranger holds already: the reason of the failed start is passed on unchanged.

    Adapted: the child finds its name taken in the registry and ends before it is ready.
    """
    taken = Reason(Kind.ABNORMAL, "already started: router/0#7")
    stage = Stage(SupervisorSpec("root"), a=Script(starts=[taken])).boot()

    result = stage.call(StartChild(1, "root", child("a")))

    assert isinstance(result, Refused)
    assert result.reason is not None
    assert result.reason.origin == taken


def test_simple_global_supervisor() -> None:
    """After the end of a worker, a supervisor, or a restart by hand, the name belongs to the new
    life; the old one cannot act under it any more.

    Adapted: names are the registry's; here the run grows, and word of an old run is ignored.
    """
    inner = SupervisorSpec("inner", intensity=0, children=(child("a"),), backoff=AT_ONCE)
    outer = SupervisorSpec("root", intensity=5, children=(inner, child("b", Restart.TRANSIENT)))
    stage = Stage(outer).boot()

    for step in range(3):
        old = stage.runs("a", "b")
        stage.die("a")  # and with it its supervisor
        stage.die("b", KILLED if step % 2 else BOOM)
        new = stage.runs("a", "b")
        assert all(after > before for after, before in zip(new, old, strict=True))
        for stale in (Exited("a", old[0], BOOM), Exited("b", old[1], NORMAL), Ready("a", old[0])):
            assert stage.tree.step(stale, stage.now) == []
        stage.advance(6)
    stage.die("b", NORMAL)
    stage.call(RestartChild(1, "b"))

    assert stage.live["b"] > new[1]


def _arguments_kept(strategy: Strategy, restart: Restart) -> bool:
    """Whether the tree still holds a child's start arguments when the child is down."""
    arguments = Arguments()
    seen = weakref.ref(arguments)
    spec = ChildSpec("a", restart, data=arguments)
    stage = Stage(SupervisorSpec("root", strategy)).boot()
    stage.call(StartChild(1, "root", spec))
    stage.die("a", NORMAL)
    del spec, arguments
    stage.log.clear()
    gc.collect()
    return seen() is not None


@pytest.mark.parametrize(
    "strategy", [Strategy.ONE_FOR_ONE, Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE]
)
def test_do_not_save_start_parameters_for_temporary_children(strategy: Strategy) -> None:
    """What a temporary child was started with is not kept once it is down; of others it is.

    Adapted: OTP drops the arguments as soon as the child is up; here the spec is one object
    shared with whoever made it, so that nothing is saved before the child's end.
    """
    assert _arguments_kept(strategy, Restart.TRANSIENT)
    assert not _arguments_kept(strategy, Restart.TEMPORARY)


def test_simple_one_for_one_corruption() -> None:
    """After the death of an instance the tree holds nothing of it.

    Adapted: nodes are counted instead of heap words.
    """
    template = child("w", Restart.TEMPORARY)
    stage = Stage(SupervisorSpec("root", SIMPLE, template=template)).boot()
    for round_ in range(3):
        for index in range(20):
            stage.call(StartChild(f"{round_}-{index}", "root"))
        for name in list(stage.live):
            stage.die(name)

    assert [one.id for one in stage.tree.status()] == ["root"]
    assert stage.tree.step(Exited("w/0", 2, BOOM), stage.now) == []
    assert not any(isinstance(action, Start) for action in stage.shut_down())
