"""Cases on cost: work grows with what happens, not with how many there are.

Costs are counted in lines of the tree's own code that run, not in seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from supervisor.tree import (
    NORMAL,
    Boot,
    Event,
    Exited,
    Ready,
    Restart,
    Shutdown,
    Start,
    StartChild,
    Stop,
    Strategy,
    SupervisorSpec,
    TerminateChild,
    Tree,
)
from tests.supervisor.stage import BOOM, child


def _lines(work: Callable[[], object]) -> int:
    """How many lines of the tree's code are executed."""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        if "supervisor/tree/" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def _run(tree: Tree, first: Event, live: dict[str, int] | None = None) -> dict[str, int]:
    """Carry out what the tree says; the runs that are alive in the end."""
    live = {} if live is None else live
    inbox = [first]
    while inbox:
        for action in tree.step(inbox.pop(), 0.0):
            if isinstance(action, Start):
                live[action.id] = action.run
                inbox.append(Ready(action.id, action.run))
            elif isinstance(action, Stop):
                del live[action.id]
                inbox.append(Exited(action.id, action.run, NORMAL))
    return live


def _static(count: int, strategy: Strategy = Strategy.ONE_FOR_ONE) -> SupervisorSpec:
    children = tuple(child(f"c{index}", Restart.TRANSIENT) for index in range(count))
    return SupervisorSpec("root", strategy, intensity=100_000, children=children)


def _dynamic(count: int) -> SupervisorSpec:
    template = child("w", Restart.TEMPORARY)
    return SupervisorSpec("root", Strategy.SIMPLE_ONE_FOR_ONE, template=template, count=count)


def test_simple_one_for_one_scale_many_temporary_children() -> None:
    """To terminate ten times as many temporary instances costs no more than about ten times."""

    def cost(count: int) -> int:
        tree = Tree(_dynamic(count))
        live = _run(tree, Boot())

        def work() -> None:
            for ref, (name, run) in enumerate(live.items()):
                tree.step(TerminateChild(ref, name), 0.0)
                tree.step(Exited(name, run, NORMAL), 0.0)

        return _lines(work)

    assert cost(500) < 12 * cost(50)


def test_scale_start_stop_many_children() -> None:
    """Start and stop of ten times as many children cost no more than about ten times.

    Adapted: 500 against 50, in lines executed.
    """

    def cost(spec: SupervisorSpec) -> int:
        tree = Tree(spec)

        def work() -> None:
            _run(tree, Shutdown(), _run(tree, Boot()))

        lines = _lines(work)
        assert tree.gone
        return lines

    for strategy in (Strategy.ONE_FOR_ONE, Strategy.REST_FOR_ONE):
        assert cost(_static(500, strategy)) < 12 * cost(_static(50, strategy))
    assert cost(_dynamic(500)) < 12 * cost(_dynamic(50))


def test_scale_mass_exit_children() -> None:
    """Each of many exits at once costs the same, however many there are.

    Adapted: 500 against 100, in lines executed; with restart as well as without.
    """

    def cost(count: int, *, restart: bool) -> int:
        tree = Tree(_static(count))
        live = _run(tree, Boot())

        def work() -> None:
            for name, run in live.items():
                tree.step(Exited(name, run, BOOM if restart else NORMAL), 0.0)

        return _lines(work)

    for restart in (False, True):
        assert cost(500, restart=restart) < 6 * cost(100, restart=restart)


def test_adding_many_children_is_linear_under_a_static_supervisor() -> None:
    """Ours: start_child costs the same with few siblings and with many."""

    def cost(count: int) -> int:
        tree = Tree(SupervisorSpec("root"))
        _run(tree, Boot())

        def work() -> None:
            for index in range(count):
                _run(tree, StartChild(index, "root", child(f"c{index}")))

        return _lines(work)

    assert cost(500) < 12 * cost(50)
