"""Random trees for property tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hypothesis import strategies as st

from supervisor.tree import (
    AutoShutdown,
    Backoff,
    ChildSpec,
    Restart,
    Strategy,
    SupervisorSpec,
)
from tests.supervisor.stage import AT_ONCE

Draw = st.DrawFn
STATIC = [Strategy.ONE_FOR_ONE, Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE]


@st.composite
def otp_trees(draw: Draw) -> SupervisorSpec:
    """Trees with nothing in them that OTP does not have."""
    return _supervisor(draw, itertools.count(), 2, AutoShutdown.NEVER, ours=False)


@st.composite
def trees(draw: Draw) -> SupervisorSpec:
    """Trees with everything: deadlines, drains, back-off, limits."""
    return _supervisor(draw, itertools.count(), 2, AutoShutdown.NEVER, ours=True)


def _supervisor(
    draw: Draw, ids: Iterator[int], depth: int, above: AutoShutdown, *, ours: bool
) -> SupervisorSpec:
    number = next(ids)
    strategy = draw(st.sampled_from([*STATIC, Strategy.SIMPLE_ONE_FOR_ONE] if number else STATIC))
    dynamic = strategy is Strategy.SIMPLE_ONE_FOR_ONE
    mode = AutoShutdown.NEVER if dynamic else draw(st.sampled_from(AutoShutdown))
    restart, significant = _lasting(draw, above)
    children: list[ChildSpec | SupervisorSpec] = []
    if not dynamic:
        for nested in draw(st.lists(st.booleans(), min_size=not number, max_size=4)):
            if nested and depth:
                children.append(_supervisor(draw, ids, depth - 1, mode, ours=ours))
            else:
                children.append(worker(draw, f"c{next(ids)}", mode, ours=ours))
    return SupervisorSpec(
        f"s{number}",
        strategy,
        intensity=draw(st.integers(0, 3)),
        period_s=draw(st.sampled_from([1.0, 5.0])),
        auto_shutdown=mode,
        children=tuple(children),
        template=worker(draw, f"w{number}", mode, ours=ours, ordered=True) if dynamic else None,
        count=draw(st.integers(0, 3)) if dynamic else 0,
        restart=restart,
        significant=significant,
        shutdown_s=draw(st.sampled_from([None, 2.0])) if ours else None,
        backoff=AT_ONCE,
    )


def worker(
    draw: Draw, name: str, above: AutoShutdown, *, ours: bool, ordered: bool = False
) -> ChildSpec:
    """A child for a supervisor with this auto_shutdown; `ordered`: it must not stand aside."""
    restart, significant = _lasting(draw, above)
    if not ours:
        return ChildSpec(name, restart, significant=significant, backoff=AT_ONCE)
    return ChildSpec(
        name,
        restart,
        significant=significant,
        shutdown_s=draw(st.sampled_from([None, 0.0, 1.0])),
        brutal_kill=draw(st.booleans()),
        drain_s=draw(st.sampled_from([None, 1.0])),
        start_deadline_s=draw(st.sampled_from([None, 1.0])),
        backoff=draw(st.sampled_from([AT_ONCE, Backoff(initial_s=1, max_s=4), Backoff(first_s=1)])),
        max_failures=draw(st.sampled_from([None, 1, 3])),
        aside=not ordered and not significant and draw(st.booleans()),
    )


def _lasting(draw: Draw, above: AutoShutdown) -> tuple[Restart, bool]:
    restart = draw(st.sampled_from(Restart))
    may = above is not AutoShutdown.NEVER and restart is not Restart.PERMANENT
    return restart, may and draw(st.booleans())
