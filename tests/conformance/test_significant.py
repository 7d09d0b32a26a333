"""Cases of the group significant."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from supervisor.tree import (
    KILLED,
    NORMAL,
    SHUTDOWN,
    AutoShutdown,
    Done,
    Reason,
    Reconfigure,
    Refusal,
    Restart,
    StartChild,
    State,
    Strategy,
    SupervisorSpec,
    TerminateChild,
    check,
    errors,
)
from tests.supervisor.stage import BOOM, Stage, child, refusal

TRANSIENT, TEMPORARY = Restart.TRANSIENT, Restart.TEMPORARY
NEVER, ANY, ALL = (
    AutoShutdown.NEVER,
    AutoShutdown.ANY_SIGNIFICANT,
    AutoShutdown.ALL_SIGNIFICANT,
)
STATIC = [Strategy.ONE_FOR_ONE, Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE]


def _spec(
    mode: AutoShutdown,
    restart: Restart,
    *,
    significant: bool = True,
    strategy: Strategy = Strategy.ONE_FOR_ONE,
) -> SupervisorSpec:
    children = tuple(child(name, restart, significant=significant) for name in ("a", "b"))
    return SupervisorSpec("root", strategy, 9, auto_shutdown=mode, children=children)


def _pair(mode: AutoShutdown, restart: Restart, *, significant: bool = True) -> Stage:
    return Stage(_spec(mode, restart, significant=significant)).boot()


@pytest.mark.parametrize("mode", [ANY, ALL])
def test_nonsignificant_temporary(mode: AutoShutdown) -> None:
    """No end of a temporary child that is not significant ends its supervisor."""
    for reason in (KILLED, BOOM, NORMAL, SHUTDOWN):
        stage = _pair(mode, TEMPORARY, significant=False)
        stage.die("a", reason)
        stage.call(TerminateChild(1, "b"))
        assert stage.state("root") is State.RUNNING


@pytest.mark.parametrize("mode", [ANY, ALL])
def test_nonsignificant_transient(mode: AutoShutdown) -> None:
    """The same for transient children; crashed ones are restarted."""
    for reason in (KILLED, BOOM, NORMAL, SHUTDOWN):
        stage = _pair(mode, TRANSIENT, significant=False)
        stage.die("a", reason)
        stage.call(TerminateChild(1, "b"))
        assert stage.state("root") is State.RUNNING
        assert ("a" in stage.live) == (not reason.expected)


@pytest.mark.parametrize("reason", [KILLED, BOOM, NORMAL, SHUTDOWN])
def test_significant_temporary(reason: Reason) -> None:
    """any: each end of its own is the supervisor's, a termination by command is not; all: only
    the last one. The exit code tells a good end from a bad one."""
    stage = _pair(ANY, TEMPORARY)
    stage.call(TerminateChild(1, "a"))
    assert not stage.ended()
    stage.die("b", reason)
    assert stage.gone is not None
    assert stage.gone.exit_code == int(not reason.expected)

    stage = _pair(ALL, TEMPORARY)
    stage.die("a", reason)
    assert not stage.ended()
    stage.die("b", reason)
    assert stage.gone is not None


def test_significant_transient() -> None:
    """A crash is followed by a restart; a normal end by the supervisor's, in all-mode once both
    have ended."""
    stage = _pair(ANY, TRANSIENT)
    stage.die("a", BOOM)
    assert stage.live.keys() == {"a", "b"}
    stage.die("a", NORMAL)
    assert stage.gone is not None
    assert (stage.gone.reason.expected, stage.gone.exit_code) == (True, 0)

    stage = _pair(ALL, TRANSIENT)
    stage.die("a", NORMAL)
    assert stage.state("root") is State.RUNNING
    stage.die("b", SHUTDOWN)
    assert stage.gone is not None


@pytest.mark.parametrize("mode", [ANY, ALL])
def test_significant_simple(mode: AutoShutdown) -> None:
    """simple_one_for_one goes with auto_shutdown never only."""
    spec = SupervisorSpec("root", Strategy.SIMPLE_ONE_FOR_ONE, template=child("w", TEMPORARY))
    check(spec)
    with pytest.raises(errors.BadCombination):
        check(replace(spec, auto_shutdown=mode))


@pytest.mark.parametrize("strategy", STATIC)
@pytest.mark.parametrize("mode", [ANY, ALL])
@pytest.mark.parametrize("restart", [TRANSIENT, TEMPORARY])
def test_significant_bystander(strategy: Strategy, mode: AutoShutdown, restart: Restart) -> None:
    """A significant child that is stopped because of a sibling does not end its supervisor."""
    children = (child("a"), child("b", restart, significant=True))
    spec = SupervisorSpec("root", strategy, auto_shutdown=mode, children=children)
    stage = Stage(spec).boot()

    stage.die("a")

    assert stage.state("root") is State.RUNNING
    stays = restart is TRANSIENT or strategy is Strategy.ONE_FOR_ONE
    assert stage.live.keys() == ({"a", "b"} if stays else {"a"})


@pytest.mark.parametrize("significant", [False, True])
def test_significant_escalation(significant: bool) -> None:
    """A sub-supervisor that ends by auto-shutdown ends its parent only if it is significant."""
    inner = replace(_spec(ANY, TRANSIENT), id="inner", restart=TRANSIENT, significant=significant)
    spec = SupervisorSpec("root", auto_shutdown=ANY, children=(inner, child("other")))
    stage = Stage(spec).boot()

    stage.die("a", NORMAL)

    assert (stage.gone is not None) == significant
    assert stage.state("inner") is State.STOPPED


def _upgrade(old: AutoShutdown, new: AutoShutdown, *, dead_before: int) -> Stage:
    """Change the mode of a live supervisor with three children and check the rules for all modes:
    nothing ends at once, and a new child is checked by the new mode."""
    significant = old is not NEVER
    names = ("a", "b", "c")
    make = [child(name, TRANSIENT, significant=significant) for name in names]
    stage = Stage(SupervisorSpec("root", auto_shutdown=old, children=tuple(make))).boot()
    for name in names[:dead_before]:
        stage.die(name, NORMAL)
    make = [child(name, TRANSIENT, significant=new is not NEVER) for name in names]
    runs = stage.runs(*names)

    spec = SupervisorSpec("root", auto_shutdown=new, children=tuple(make))
    assert stage.call(Reconfigure("up", spec)) == Done("root")

    assert stage.runs(*names) == runs
    added = stage.call(StartChild("add", "root", child("d", TRANSIENT, significant=True)))
    if new is NEVER:
        assert refusal(added) is Refusal.INVALID_SPEC
    else:
        assert isinstance(added, Done)
    return stage


def test_significant_upgrade_never_any() -> None:
    """never to any: a child that ended before changes nothing, the next one to end does.

    Adapted: here and below the upgrade is a Reconfigure.
    """
    stage = _upgrade(NEVER, ANY, dead_before=1)
    stage.die("b", NORMAL)
    assert stage.gone is not None


def test_significant_upgrade_any_never() -> None:
    """any to never: no end of a child ends the supervisor any more.

    Adapted: a Reconfigure.
    """
    stage = _upgrade(ANY, NEVER, dead_before=0)
    for name in ("a", "b", "c"):
        stage.die(name, NORMAL)
    assert stage.state("root") is State.RUNNING


def test_significant_upgrade_never_all() -> None:
    """never to all: the supervisor ends when the last one does.

    Adapted: a Reconfigure.
    """
    stage = _upgrade(NEVER, ALL, dead_before=1)
    for name in ("b", "c"):
        stage.die(name, NORMAL)
        assert not stage.ended()
    stage.die("d", NORMAL)
    assert stage.gone is not None


def test_significant_upgrade_all_never() -> None:
    """all to never: the end of the last one is nothing special any more.

    Adapted: a Reconfigure.
    """
    stage = _upgrade(ALL, NEVER, dead_before=2)
    stage.die("c", NORMAL)
    assert stage.state("root") is State.RUNNING


def test_significant_upgrade_any_all() -> None:
    """any to all: one end is not enough any more.

    Adapted: a Reconfigure.
    """
    stage = _upgrade(ANY, ALL, dead_before=0)
    for name in ("a", "b", "c"):
        stage.die(name, NORMAL)
        assert not stage.ended()
    stage.die("d", NORMAL)
    assert stage.gone is not None


def test_significant_upgrade_all_any() -> None:
    """all to any: one end is enough from now on.

    Adapted: a Reconfigure.
    """
    stage = _upgrade(ALL, ANY, dead_before=1)
    stage.die("d", NORMAL)
    assert stage.gone is not None


def test_significant_upgrade_child() -> None:
    """A child's significance can be changed while it runs, but not under never.

    Adapted: a Reconfigure.
    """
    stage = Stage(_spec(ANY, TRANSIENT, significant=False)).boot()
    stage.call(Reconfigure(1, _spec(ANY, TRANSIENT)))
    refused = stage.call(Reconfigure(2, _spec(NEVER, TRANSIENT)))

    assert refusal(refused) is Refusal.INVALID_SPEC
    stage.die("a", NORMAL)
    assert stage.gone is not None
