"""Cases on what is accepted: child_specs, child_specs_map, sup_flags."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from supervisor.tree import (
    AutoShutdown,
    Backoff,
    ChildSpec,
    Restart,
    SpecError,
    Strategy,
    SupervisorSpec,
    Tree,
    check,
    errors,
)

GOOD = ChildSpec("a")
WRONG_CHILD: list[tuple[str, list[Any], type[SpecError]]] = [
    ("id", ["", None, 7], errors.InvalidId),
    ("restart", ["prmanent", None, 1], errors.InvalidRestart),
    ("significant", ["yes", None, 1], errors.InvalidSignificant),
    ("shutdown_s", [-1, math.inf, math.nan, "5", True], errors.InvalidShutdown),
    ("brutal_kill", [None, 1], errors.InvalidShutdown),
    ("drain_s", [-1, math.inf, "5"], errors.InvalidDrain),
    ("start_deadline_s", [0, -1, math.nan], errors.InvalidDeadline),
    ("backoff", [None, Backoff(factor=0.5), Backoff(jitter=2)], errors.InvalidBackoff),
    ("max_failures", [0, -1, 1.5, True], errors.InvalidMaxFailures),
]
WRONG_FLAG: list[tuple[str, list[Any], type[SpecError]]] = [
    ("strategy", ["none_for_one", None], errors.InvalidStrategy),
    ("intensity", [-1, math.inf, 1.5, "1", None], errors.InvalidIntensity),
    ("period_s", [0, -1, math.inf, "5", None], errors.InvalidPeriod),
    ("auto_shutdown", ["sometimes", None], errors.InvalidAutoShutdown),
    ("children", [None, [GOOD], "a"], errors.NotASpec),
]


@pytest.mark.parametrize(("field", "values", "error"), WRONG_CHILD)
def test_child_specs(field: str, values: list[Any], error: type[SpecError]) -> None:
    """Every wrong field has its own error; duplicates are refused; a dynamic supervisor needs
    exactly one template and no children."""
    for value in values:
        with pytest.raises(error):
            check(SupervisorSpec("root", children=(replace(GOOD, **{field: value}),)))
    with pytest.raises(errors.DuplicateId):
        check(SupervisorSpec("root", children=(GOOD, GOOD)))
    with pytest.raises(errors.BadCombination):
        check(SupervisorSpec("root", Strategy.SIMPLE_ONE_FOR_ONE, children=(GOOD,), template=GOOD))


@given(
    st.sampled_from(Restart),
    st.booleans(),
    st.none() | st.floats(0, 1e6),
    st.booleans(),
    st.sampled_from(AutoShutdown),
    st.sampled_from(Strategy),
    st.booleans(),
)
def test_child_specs_map(
    restart: Restart,
    significant: bool,
    shutdown_s: float | None,
    brutal_kill: bool,
    auto_shutdown: AutoShutdown,
    strategy: Strategy,
    worker: bool,
) -> None:
    """Of all combinations exactly three are refused: significant with permanent, significant
    without auto_shutdown, and auto_shutdown with simple_one_for_one."""
    dynamic = strategy is Strategy.SIMPLE_ONE_FOR_ONE
    make = ChildSpec if worker or dynamic else SupervisorSpec
    child = make(
        "a",
        restart=restart,
        significant=significant,
        shutdown_s=shutdown_s,
        brutal_kill=brutal_kill,
    )
    spec = SupervisorSpec("root", strategy, auto_shutdown=auto_shutdown)
    if isinstance(child, ChildSpec) and dynamic:
        spec = replace(spec, template=child, count=2)
    else:
        spec = replace(spec, children=(child,))
    never = auto_shutdown is AutoShutdown.NEVER

    bad = (significant and (restart is Restart.PERMANENT or never)) or (dynamic and not never)

    if bad:
        with pytest.raises(errors.BadCombination):
            check(spec)
    else:
        Tree(spec)


@pytest.mark.parametrize(("field", "values", "error"), WRONG_FLAG)
def test_sup_flags(field: str, values: list[Any], error: type[SpecError]) -> None:
    """Every wrong flag has its own error, on the root and below."""
    for value, below in itertools.product(values, (False, True)):
        spec = replace(SupervisorSpec("inner"), **{field: value})
        with pytest.raises(error):
            check(SupervisorSpec("root", children=(spec,)) if below else spec)
