"""Cases of the restart groups, and tree."""

from __future__ import annotations

from supervisor.tree import (
    Done,
    Exited,
    Kind,
    ReportKind,
    Restart,
    StartChild,
    State,
    Strategy,
    SupervisorSpec,
)
from supervisor.tree.reason import MAX_INTENSITY
from tests.supervisor.stage import BOOM, Script, Stage, child, started, stopped

SIMPLE = Strategy.SIMPLE_ONE_FOR_ONE
REST = Strategy.REST_FOR_ONE
ALL = Strategy.ONE_FOR_ALL
FAILS_AGAIN = Script(starts=["ready", BOOM])


def _stage(strategy: Strategy, count: int = 2, **scripts: Script) -> Stage:
    """Children c1, c2, ... under intensity 2 in 3600 s."""
    children = tuple(child(f"c{index + 1}") for index in range(count))
    spec = SupervisorSpec("root", strategy, intensity=2, period_s=3600, children=children)
    return Stage(spec, **scripts).boot()


def _dynamic(count: int = 2, **scripts: Script) -> Stage:
    spec = SupervisorSpec(
        "root", SIMPLE, intensity=2, period_s=3600, template=child("w"), count=count
    )
    return Stage(spec, **scripts).boot()


def _assert_gave_up(stage: Stage) -> None:
    assert stage.gone is not None
    assert stage.gone.reason.kind is Kind.SHUTDOWN
    assert stage.gone.reason.detail == MAX_INTENSITY
    assert stage.gone.exit_code == 1


def test_multiple_restarts() -> None:
    """Restarts beyond the intensity, but slower than the period, do not end the supervisor."""
    spec = SupervisorSpec("root", intensity=1, period_s=1, children=(child("a"),))
    stage = Stage(spec).boot()

    for _ in range(20):
        stage.advance(1.001)
        stage.die("a")

    assert not stage.ended()
    assert stage.child("a").restarts == 20


def test_one_for_one() -> None:
    """Only the crashed child has a new run; the third crash within intensity 2 is the end."""
    stage = _stage(Strategy.ONE_FOR_ONE)
    first, second = stage.runs("c1", "c2")

    stage.die("c1")
    assert stage.runs("c1")[0] > first
    assert stage.runs("c2") == (second,)
    stage.die("c1")
    stage.die("c1")

    _assert_gave_up(stage)


def test_one_for_one_escalation() -> None:
    """A child whose restart fails again and again ends its supervisor and its siblings."""
    stage = _stage(Strategy.ONE_FOR_ONE, c1=FAILS_AGAIN)

    stage.die("c1")
    stage.advance()

    _assert_gave_up(stage)


def test_one_for_all() -> None:
    """All have new runs, no old one survives, and a group restart counts once."""
    stage = _stage(ALL)

    for name in ("c1", "c2"):
        before = stage.runs("c1", "c2")
        stage.die(name)
        assert all(new > old for new, old in zip(stage.runs("c1", "c2"), before, strict=True))
    stage.die("c1")

    _assert_gave_up(stage)


def test_one_for_all_escalation() -> None:
    """A sibling that cannot start again ends the supervisor."""
    stage = _stage(ALL, c2=FAILS_AGAIN)

    stage.die("c1")
    stage.advance()

    _assert_gave_up(stage)


def test_one_for_all_other_child_fails_restart() -> None:
    """c1, restarted already, is stopped when c2 fails to start; then all start again."""
    stage = _stage(ALL, c2=Script(starts=["ready", BOOM, "ready"]))

    mark = len(stage.log)
    stage.die("c1")
    stage.advance()

    actions = stage.log[mark:]
    assert started(actions) == ["c1", "c2", "c1", "c2"]
    assert stopped(actions) == ["c2", "c1"]
    assert stage.live.keys() == {"c1", "c2"}


def test_simple_one_for_one() -> None:
    """Only the crashed instance is replaced; the intensity ends the supervisor with shutdown."""
    stage = _dynamic()
    first, second = stage.runs("w/0", "w/1")

    stage.die("w/0")
    assert stage.runs("w/0")[0] > first
    assert stage.runs("w/1") == (second,)
    stage.die("w/0")
    stage.die("w/0")

    _assert_gave_up(stage)


def test_simple_one_for_one_shutdown() -> None:
    """Instances stop side by side: as long as the slowest takes, not the sum of all."""
    template = child("w", shutdown_s=5)
    scripts = {f"w/{index}": Script(stop_takes_s=1.0 + index / 10) for index in range(10)}
    stage = Stage(SupervisorSpec("root", SIMPLE, template=template, count=10), **scripts).boot()

    stage.shut_down()
    stage.advance(1.85)
    assert not stage.ended()
    stage.advance(0.1)

    assert stage.gone is not None
    assert stage.reports(ReportKind.SHUTDOWN_ERROR) == []


def test_simple_one_for_one_extra() -> None:
    """An instance that gives information with its start is restarted like any other.

    Adapted: the information travels with Ready.
    """
    stage = _dynamic(0, **{"w/0": Script(info={"port": 1})})

    result = stage.call(StartChild(1, "root"))
    assert result == Done("w/0", stage.live["w/0"], {"port": 1})
    before = stage.live["w/0"]
    stage.die("w/0")

    assert stage.live["w/0"] > before


def test_simple_one_for_one_escalation() -> None:
    """An instance that cannot start again ends the supervisor and the other instances."""
    stage = _dynamic(2, **{"w/0": FAILS_AGAIN})

    stage.die("w/0")
    stage.advance()

    _assert_gave_up(stage)


def test_simple_one_for_one_restart_ignore() -> None:
    """An instance restarted twice that then ignores its start is dropped quietly."""
    stage = _dynamic(2, **{"w/0": Script(starts=["ready", "ready", "ignore"])})

    stage.die("w/0")
    stage.die("w/0")

    assert stage.names("root") == ["w/1"]
    assert stage.reports(ReportKind.START_ERROR) == []
    assert not stage.ended()


def test_rest_for_one() -> None:
    """An earlier child is untouched, the crashed one and later ones are new; three are the end."""
    stage = _stage(REST, 3)
    before = stage.runs("c1", "c2", "c3")

    actions = stage.die("c2")

    after = stage.runs("c1", "c2", "c3")
    assert after[0] == before[0]
    assert after[1] > before[1]
    assert after[2] > before[2]
    assert stopped(actions) == ["c3"]
    assert started(actions) == ["c2", "c3"]
    stage.die("c2")
    stage.die("c2")
    _assert_gave_up(stage)


def test_rest_for_one_escalation() -> None:
    """A later child that cannot start again ends the supervisor."""
    stage = _stage(REST, c2=FAILS_AGAIN)

    stage.die("c1")
    stage.advance()

    _assert_gave_up(stage)


def test_rest_for_one_other_child_fails_restart() -> None:
    """c2 fails when c1 is restarted: c1 is up already and is not restarted again."""
    stage = _stage(REST, 3, c2=Script(starts=["ready", BOOM, "ready"]))

    mark = len(stage.log)
    stage.die("c1")
    stage.advance()

    actions = stage.log[mark:]
    assert started(actions) == ["c1", "c2", "c2", "c3"]
    assert stopped(actions) == ["c3", "c2"]
    assert stage.live.keys() == {"c1", "c2", "c3"}


def test_tree() -> None:
    """Three levels: only the dead worker restarts; when a sub-supervisor gives up, it is started
    again by the one above: its static children come back, those added later do not."""
    low = SupervisorSpec("low", intensity=1, children=(child("x"), child("y")))
    middle = SupervisorSpec("middle", intensity=1, children=(low, child("z")))
    stage = Stage(SupervisorSpec("root", children=(child("w"), middle))).boot()
    stage.call(StartChild(1, "low", child("added", Restart.TRANSIENT)))
    others = stage.runs("w", "z", "y", "added")

    stage.die("x")
    assert stage.runs("w", "z", "y", "added") == others

    stage.send(Exited("x", stage.live["x"], BOOM))

    assert stage.state("low") is State.RUNNING
    assert stage.names("low") == ["x", "y"]
    assert stage.runs("w", "z") == others[:2]
    assert stage.live.keys() == {"w", "x", "y", "z"}
    assert stage.child("low").restarts == 1
