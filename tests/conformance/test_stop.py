"""Cases of the group sup_stop."""

from __future__ import annotations

import itertools

import pytest

from supervisor.tree import (
    KILLED,
    NORMAL,
    SHUTDOWN,
    Exited,
    Kind,
    Reason,
    ReportKind,
    Restart,
    Shutdown,
    State,
    Strategy,
    SupervisorSpec,
)
from tests.supervisor.stage import BOOM, Script, Stage, child, stopped

SIMPLE = Strategy.SIMPLE_ONE_FOR_ONE


def test_sup_stop_infinity() -> None:
    """With shutdown_s None a slow child and a slow subtree are waited for, however long."""
    inner = SupervisorSpec("inner", children=(child("b", shutdown_s=None),), shutdown_s=None)
    stage = Stage(
        SupervisorSpec("root", children=(child("a", shutdown_s=None), inner)),
        a=Script(stop_takes_s=1e6),
        b=Script(stop_takes_s=1e6),
    ).boot()

    stage.shut_down()
    stage.advance(1.5e6)
    assert not stage.ended()
    stage.advance(1e6)

    assert stage.gone is not None
    assert stage.child("a").last_exit == SHUTDOWN
    assert stage.child("b").last_exit == SHUTDOWN


def test_sup_stop_timeout() -> None:
    """A child that listens ends with shutdown; one that does not is killed after its time."""
    stage = Stage(
        SupervisorSpec("root", children=(child("polite"), child("deaf", shutdown_s=1.0))),
        deaf=Script(on_stop=None),
    ).boot()

    stage.shut_down()
    stage.advance(0.9)
    assert stage.live.keys() == {"polite", "deaf"}
    stage.advance(0.1)

    assert stage.gone is not None
    assert stage.child("polite").last_exit == SHUTDOWN
    assert stage.child("deaf").last_exit == KILLED
    assert [report.id for report in stage.reports(ReportKind.SHUTDOWN_ERROR)] == ["deaf"]


def test_sup_stop_timeout_dynamic() -> None:
    """The same for instances, whose times run side by side."""
    deaf = {f"w/{index}": Script(on_stop=None) for index in range(0, 10, 2)}
    template = child("w", shutdown_s=1.0)
    stage = Stage(SupervisorSpec("root", SIMPLE, template=template, count=10), **deaf).boot()

    stage.shut_down()
    assert stage.live.keys() == deaf.keys()
    stage.advance(1.0)

    assert stage.gone is not None
    assert [report.count for report in stage.reports(ReportKind.SHUTDOWN_ERROR)] == [5]


def test_sup_stop_brutal_kill() -> None:
    """A brutal_kill child dies killed, its sibling by shutdown, and neither is an error."""
    children = (child("polite"), child("brutal", brutal_kill=True, drain_s=5.0))
    stage = Stage(SupervisorSpec("root", children=children)).boot()

    stage.shut_down()

    assert stage.gone is not None
    assert stage.child("brutal").last_exit == KILLED
    assert stage.child("polite").last_exit == SHUTDOWN
    assert stage.reports(ReportKind.SHUTDOWN_ERROR) == []


def test_sup_stop_brutal_kill_dynamic() -> None:
    """Ten brutal_kill instances are all killed at once."""
    template = child("w", brutal_kill=True)
    stage = Stage(SupervisorSpec("root", SIMPLE, template=template, count=10)).boot()

    actions = stage.shut_down()

    assert sorted(stopped(actions)) == sorted(f"w/{index}" for index in range(10))
    assert stage.gone is not None
    assert stage.reports(ReportKind.SHUTDOWN_ERROR) == []


def test_sup_stop_race() -> None:
    """Twelve children, four reasons by three restart types, end by themselves while their
    supervisor shuts down: it still ends in order, and every true reason is seen."""
    reasons = {"n": NORMAL, "s": SHUTDOWN, "t": Reason(Kind.SHUTDOWN, "term"), "x": BOOM}
    kinds = list(itertools.product(Restart, reasons.items()))
    children = [child(f"{restart.value}-{name}", restart) for restart, (name, _) in kinds]
    # The last one holds the shutdown up, so that the others end before their turn.
    stage = Stage(
        SupervisorSpec("root", children=(*children, child("last"))), last=Script(on_stop=None)
    ).boot()

    stage.shut_down()
    for restart, (name, reason) in kinds:
        stage.die(f"{restart.value}-{name}", reason)
    assert not stage.ended()
    actions = stage.send(Exited("last", stage.live["last"], SHUTDOWN))

    assert stage.gone is not None
    assert stopped(actions) == []
    seen = {report.id: report.reason for report in stage.reports(ReportKind.SHUTDOWN_ERROR)}
    assert seen == {
        "permanent-n": NORMAL,
        "permanent-x": BOOM,
        "transient-x": BOOM,
        "temporary-x": BOOM,
    }
    for restart, (name, reason) in kinds:
        if restart != Restart.TEMPORARY:
            assert stage.child(f"{restart.value}-{name}").last_exit == reason


@pytest.mark.parametrize("restart", list(Restart))
@pytest.mark.parametrize("answer", [NORMAL, SHUTDOWN, Reason(Kind.SHUTDOWN, "term"), BOOM])
def test_sup_stop_non_shutdown_exit_dynamic(restart: Restart, answer: Reason) -> None:
    """Instances that answer the stop with another reason do not disturb the supervisor's end."""
    spec = SupervisorSpec("root", SIMPLE, template=child("w", restart), count=3)
    scripts = {f"w/{index}": Script(on_stop=answer) for index in range(3)}
    stage = Stage(spec, **scripts).boot()

    stage.shut_down()

    assert stage.gone is not None
    assert stage.gone.reason == SHUTDOWN
    error = answer == BOOM or (answer == NORMAL and restart == Restart.PERMANENT)
    assert len(stage.reports(ReportKind.SHUTDOWN_ERROR)) == int(error)


def test_sup_stop_manual() -> None:
    """Stopped by a call: the supervisor ends with the caller's reason, the children each by their
    own policy."""
    children = (child("polite"), child("deaf", shutdown_s=1), child("brutal", brutal_kill=True))
    stage = Stage(SupervisorSpec("root", children=children), deaf=Script(on_stop=None)).boot()

    stage.send(Shutdown(NORMAL))
    stage.advance(1)

    assert stage.gone is not None
    assert (stage.gone.reason, stage.gone.exit_code) == (NORMAL, 0)
    exits = [stage.child(name).last_exit for name in ("polite", "deaf", "brutal")]
    assert exits == [SHUTDOWN, KILLED, KILLED]


def test_sup_stop_manual_timeout() -> None:
    """A caller who no longer waits changes nothing: the children are still stopped in order."""
    children = (child("a", shutdown_s=None), child("b", shutdown_s=None))
    stage = Stage(
        SupervisorSpec("root", children=children),
        a=Script(stop_takes_s=60),
        b=Script(stop_takes_s=60),
    ).boot()

    stage.shut_down()
    stage.advance(59)
    stage.shut_down()
    assert (stage.state("a"), stage.state("b")) == (State.RUNNING, State.STOPPING)
    stage.advance(61)

    assert stage.gone is not None
    assert stage.reports(ReportKind.SHUTDOWN_ERROR) == []
