"""Cases of the groups sup_start and sup_start_map."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from supervisor.tree import (
    KILLED,
    ChildSpec,
    Done,
    Gone,
    Kind,
    Refusal,
    Refused,
    ReportKind,
    Restart,
    RestartChild,
    Shutdown,
    Start,
    StartChild,
    State,
    Strategy,
    SupervisorSpec,
    Tree,
    UnknownIdError,
    errors,
)
from tests.supervisor.stage import BOOM, Script, Stage, child, refusal

PERMANENT, TEMPORARY = Restart.PERMANENT, Restart.TEMPORARY
SIMPLE = Strategy.SIMPLE_ONE_FOR_ONE


def test_sup_start_normal() -> None:
    """An empty supervisor starts and stops cleanly with reason shutdown."""
    stage = Stage(SupervisorSpec("root")).boot()
    assert stage.state("root") is State.RUNNING

    stage.shut_down()

    assert stage.gone is not None
    assert (stage.gone.reason.kind, stage.gone.exit_code) == (Kind.SHUTDOWN, 0)


def test_sup_start_ignore_init() -> None:
    """A supervisor that is not to be: nothing is started and no failure reaches the caller.

    Adapted: a tree has no init that could say "ignore"; one that is never booted does the same.
    """
    stage = Stage(SupervisorSpec("root", children=(child("a"),)))

    actions = stage.send(Shutdown())

    assert actions == [Gone(Shutdown().reason, 0)]


def test_sup_start_ignore_child() -> None:
    """A permanent child that ignores its start is kept without a process: specs 2, active 1."""
    children = (child("a"), child("b"))
    stage = Stage(SupervisorSpec("root", children=children), a=Script(starts=["ignore"])).boot()

    counts = stage.tree.count_children("root")

    assert (counts.specs, counts.active) == (2, 1)
    assert stage.state("a") is State.STOPPED


def test_sup_start_ignore_temporary_child() -> None:
    """A temporary child of the first start that ignores it is not kept."""
    children = (child("a", TEMPORARY), child("b"))
    stage = Stage(SupervisorSpec("root", children=children), a=Script(starts=["ignore"])).boot()

    assert stage.names("root") == ["b"]


def test_sup_start_ignore_temporary_child_start_child() -> None:
    """A temporary child that ignores its start by start_child is not kept."""
    stage = Stage(SupervisorSpec("root"), a=Script(starts=["ignore"])).boot()

    result = stage.call(StartChild(1, "root", child("a", TEMPORARY)))

    assert result == Done("a", run=None)
    assert stage.names("root") == []


@pytest.mark.parametrize("restart", [TEMPORARY])
def test_sup_start_ignore_temporary_child_start_child_simple(restart: Restart) -> None:
    """The same under simple_one_for_one."""
    _ignoring_instance(restart)


@pytest.mark.parametrize("restart", [PERMANENT])
def test_sup_start_ignore_permanent_child_start_child_simple(restart: Restart) -> None:
    """A permanent instance that ignores its start is not kept either, and a later shutdown is
    clean."""
    _ignoring_instance(restart)


def _ignoring_instance(restart: Restart) -> None:
    spec = SupervisorSpec("root", SIMPLE, template=child("w", restart))
    stage = Stage(spec, **{"w/0": Script(starts=["ignore"])}).boot()

    assert stage.call(StartChild(1, "root")) == Done("w/0", run=None)
    assert stage.tree.count_children("root").active == 0
    assert stage.names("root") == []

    stage.shut_down()
    assert stage.gone is not None
    assert stage.gone.reason.kind is Kind.SHUTDOWN
    assert stage.reports(ReportKind.SHUTDOWN_ERROR) == []


def test_sup_start_error_return() -> None:
    """What is no spec at all is refused before anything is started."""
    junk: list[Any] = [None, {}, ("ok", []), child("a")]
    for thing in junk:
        with pytest.raises(errors.NotASpec):
            Tree(thing)


def test_sup_start_fail() -> None:
    """A first start that fails ends with the reason, after what was up has been stopped."""
    children = (child("a"), child("b"), child("c"))
    stage = Stage(SupervisorSpec("root", children=children), b=Script(starts=[BOOM])).boot()

    assert stage.gone is not None
    assert stage.gone.exit_code == 1
    assert stage.gone.reason.child == "b"
    assert stage.gone.reason.origin == BOOM
    assert stage.live == {}
    assert not any(isinstance(action, Start) and action.id == "c" for action in stage.log)


@pytest.mark.parametrize("reason", [BOOM, KILLED])
def test_sup_start_child_returns_error(reason: Any) -> None:
    """start_child of a child that cannot start: the error comes back and nothing is kept."""
    stage = Stage(SupervisorSpec("root"), a=Script(starts=[reason])).boot()

    result = stage.call(StartChild(1, "root", child("a")))

    assert isinstance(result, Refused)
    assert result.why is Refusal.START_FAILED
    assert result.reason is not None
    assert result.reason.origin == reason
    assert stage.names("root") == []


def test_sup_start_restart_child_returns_error() -> None:
    """restart_child of a child that cannot start: the error comes back, the child stays down."""
    stage = Stage(
        SupervisorSpec("root", children=(child("a", Restart.TRANSIENT),)),
        a=Script(starts=["ready", BOOM]),
    ).boot()
    stage.die("a", Shutdown().reason)

    result = stage.call(RestartChild(1, "a"))

    assert refusal(result) is Refusal.START_FAILED
    assert stage.state("a") is State.STOPPED


def test_sup_start_child_returns_error_simple() -> None:
    """start_child of an instance that cannot start: the error comes back, nothing is kept."""
    spec = SupervisorSpec("root", SIMPLE, template=child("w"))
    stage = Stage(spec, **{"w/0": Script(starts=[BOOM])}).boot()

    assert refusal(stage.call(StartChild(1, "root"))) is Refusal.START_FAILED
    assert stage.names("root") == []


def test_sup_start_map() -> None:
    """Defaults are filled in and readable; an unknown id is an error of its own."""
    inner = SupervisorSpec("inner")
    stage = Stage(SupervisorSpec("root", children=(ChildSpec("a"), inner))).boot()

    spec = stage.tree.child_spec("a")

    assert (spec.restart, spec.shutdown_s, spec.significant) == (PERMANENT, 5.0, False)
    assert stage.tree.child_spec("inner").shutdown_s is None
    with pytest.raises(UnknownIdError, match="nobody"):
        stage.tree.child_spec("nobody")


def test_sup_start_map_simple() -> None:
    """The spec of an instance is the whole template, under the instance's id."""
    template = child("w", Restart.TRANSIENT, drain_s=3.0)
    stage = Stage(SupervisorSpec("root", SIMPLE, template=template, count=2)).boot()

    for index in range(2):
        name = f"w/{index}"
        assert stage.tree.child_spec(name) == msgspec.structs.replace(template, id=name)


def test_sup_start_map_faulty_specs() -> None:
    """A missing id, a missing template and a stranger among the specs each have their own error.

    Unknown keys are refused, where OTP ignores them: a typing error in a topology must not pass.
    """
    with pytest.raises(errors.InvalidId):
        Tree(SupervisorSpec("root", children=(ChildSpec(""),)))
    with pytest.raises(errors.InvalidTemplate):
        Tree(SupervisorSpec("root", SIMPLE))
    with pytest.raises(errors.NotASpec):
        Tree(SupervisorSpec("root", children=("a",)))  # type: ignore[arg-type]  # the point
    with pytest.raises(msgspec.ValidationError, match="restarts"):
        msgspec.convert({"type": "child", "id": "a", "restarts": "never"}, ChildSpec)
