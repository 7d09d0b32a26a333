"""Cases of the groups *_termination: what becomes of a child by its restart type and reason."""

from __future__ import annotations

import pytest

from supervisor.tree import (
    KILLED,
    NORMAL,
    SHUTDOWN,
    Done,
    Kind,
    Reason,
    ReportKind,
    Restart,
    RestartChild,
    State,
    Strategy,
    SupervisorSpec,
)
from tests.supervisor.stage import BOOM, Script, Stage, child, stopped

TERM = Reason(Kind.SHUTDOWN, "term")


def _stage(restart: Restart) -> Stage:
    return Stage(SupervisorSpec("root", intensity=9, children=(child("a", restart),))).boot()


def _assert_restarted(reason: Reason, restart: Restart) -> None:
    stage = _stage(restart)
    before = stage.live["a"]
    stage.die("a", reason)
    assert stage.live["a"] > before
    assert [one.reason for one in stage.reports(ReportKind.CHILD_TERMINATED)] == [reason]


def _assert_kept(reason: Reason) -> None:
    stage = _stage(Restart.TRANSIENT)
    stage.die("a", reason)
    assert stage.state("a") is State.STOPPED
    assert stage.reports(ReportKind.CHILD_TERMINATED) == []
    assert stage.call(RestartChild(1, "a")) == Done("a", stage.live["a"])


def _assert_forgotten(reason: Reason) -> None:
    stage = _stage(Restart.TEMPORARY)
    stage.die("a", reason)
    assert stage.names("root") == []
    assert len(stage.reports(ReportKind.CHILD_TERMINATED)) == int(not reason.expected)


def test_permanent_normal() -> None:
    """A permanent child that ends normally is restarted."""
    _assert_restarted(NORMAL, Restart.PERMANENT)


def test_transient_normal() -> None:
    """A transient child that ends normally is not restarted, and its spec is kept."""
    _assert_kept(NORMAL)


def test_temporary_normal() -> None:
    """A temporary child that ends normally is not restarted, and its spec is gone."""
    _assert_forgotten(NORMAL)


@pytest.mark.parametrize("reason", [SHUTDOWN, TERM])
def test_permanent_shutdown(reason: Reason) -> None:
    """A permanent child that ends with shutdown, with or without a term, is restarted."""
    _assert_restarted(reason, Restart.PERMANENT)


@pytest.mark.parametrize("reason", [SHUTDOWN, TERM])
def test_transient_shutdown(reason: Reason) -> None:
    """A transient one is not restarted; a restart by hand works."""
    _assert_kept(reason)


@pytest.mark.parametrize("reason", [SHUTDOWN, TERM])
def test_temporary_shutdown(reason: Reason) -> None:
    """A temporary one is not restarted, and its spec is gone."""
    _assert_forgotten(reason)


def test_faulty_application_shutdown() -> None:
    """A start error deep in the tree surfaces with its original reason through all levels."""
    error = Reason(Kind.ABNORMAL, "exit code 3: no such model")
    low = SupervisorSpec("low", children=(child("x"), child("y")))
    middle = SupervisorSpec("middle", children=(low,))
    stage = Stage(SupervisorSpec("root", children=(middle,)), y=Script(starts=[error])).boot()

    assert stage.gone is not None
    assert stage.gone.reason.origin == error
    assert "middle" in str(stage.gone.reason)
    assert "low" in str(stage.gone.reason)
    assert str(stage.gone.reason).endswith("y: abnormal (exit code 3: no such model)")
    assert [one.id for one in stage.reports(ReportKind.START_ERROR)] == ["y", "low", "middle"]


@pytest.mark.parametrize("reason", [BOOM, KILLED])
def test_permanent_abnormal(reason: Reason) -> None:
    """A permanent child that ends abnormally is restarted."""
    _assert_restarted(reason, Restart.PERMANENT)


@pytest.mark.parametrize("reason", [BOOM, KILLED])
def test_transient_abnormal(reason: Reason) -> None:
    """A transient child that ends abnormally is restarted."""
    _assert_restarted(reason, Restart.TRANSIENT)


@pytest.mark.parametrize("reason", [BOOM, KILLED])
def test_temporary_abnormal(reason: Reason) -> None:
    """A temporary child that ends abnormally is not restarted, and its spec is gone."""
    _assert_forgotten(reason)


@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
def test_temporary_bystander(strategy: Strategy) -> None:
    """A group restart stops the temporary sibling and does not try to start it again."""
    children = (child("a"), child("b", Restart.TEMPORARY), child("c"))
    stage = Stage(SupervisorSpec("root", strategy, children=children)).boot()

    actions = stage.die("a")

    assert stopped(actions) == ["c", "b"]
    assert stage.names("root") == ["a", "c"]
    assert stage.live.keys() == {"a", "c"}
    assert not stage.ended()
