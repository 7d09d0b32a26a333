from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.overview import ActorOverview, NodeOverview, overview
from tests.supervisor.rows import actor, row, status

NO_DEADLINE = settings(deadline=None)  # the machine may be busy
TIMES = st.floats(0.01, 1000)
COUNTS = st.integers(0, 1_000_000)


def node(name: str, found: tuple[NodeOverview, ...]) -> NodeOverview:
    return next(each for each in found if each.id == name)


def only_actor(found: tuple[NodeOverview, ...]) -> ActorOverview:
    [each] = [actor for node in found for actor in node.actors]
    return each


@NO_DEADLINE
@given(first=COUNTS, more=COUNTS, elapsed_s=TIMES, ages=st.tuples(TIMES, TIMES))
def test_a_rate_is_taken_between_the_heartbeats_and_not_between_the_looks(
    first: int, more: int, elapsed_s: float, ages: tuple[float, float]
) -> None:
    """The looks are so far apart that the heartbeats they saw are `elapsed_s` apart."""
    before_age_s, age_s = ages
    looked_s = 100.0
    again_s = looked_s - before_age_s + elapsed_s + age_s
    before = row("w", beat_age_s=before_age_s, actors=(actor("w/0", tokens=first),))
    now = row("w", beat_age_s=age_s, actors=(actor("w/0", tokens=first + more),))

    seen = overview(status(before, clock_s=looked_s), status(now, clock_s=again_s))

    assert only_actor(seen.nodes).tokens_per_s == pytest.approx(more / elapsed_s, rel=1e-3)


def test_a_counter_of_another_life_is_no_rate() -> None:
    before = row("w", beat_age_s=0.1, actors=(actor("w/0", incarnation=1, tokens=50),))
    now = row("w", beat_age_s=0.1, actors=(actor("w/0", incarnation=2, tokens=90),))

    seen = overview(status(before, clock_s=1.0), status(now, clock_s=2.0))

    assert only_actor(seen.nodes).tokens_per_s is None


def test_no_heartbeat_in_between_is_no_rate() -> None:
    before = row("w", beat_age_s=0.1, actors=(actor("w/0", tokens=50),))
    now = row("w", beat_age_s=1.1, actors=(actor("w/0", tokens=50),))

    seen = overview(status(before, clock_s=1.0), status(now, clock_s=2.0))

    assert only_actor(seen.nodes).tokens_per_s is None


@NO_DEADLINE
@given(before_s=st.floats(0, 1e6), used_s=st.floats(0, 1e3), elapsed_s=TIMES)
def test_the_share_of_a_core_is_what_was_used_of_the_time(
    before_s: float, used_s: float, elapsed_s: float
) -> None:
    before, now = row("w", pid=7, cpu_s=before_s), row("w", pid=7, cpu_s=before_s + used_s)

    seen = overview(status(before, clock_s=5.0), status(now, clock_s=5.0 + elapsed_s))

    percent = node("w", seen.nodes).cpu_percent
    assert percent == pytest.approx(100 * used_s / elapsed_s, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("facts", [{"run": 2}, {"pid": 8}, {"cpu_s": 0.5}, {"cpu_s": None}])
def test_the_cpu_time_of_another_process_is_not_compared(facts: dict[str, Any]) -> None:
    before = row("w", pid=7, cpu_s=1.0)
    now = msgspec.structs.replace(row("w", pid=7, cpu_s=2.0), **facts)

    seen = overview(status(before, clock_s=1.0), status(now, clock_s=2.0))

    assert node("w", seen.nodes).cpu_percent is None


def test_another_supervisor_is_not_compared_with_the_last() -> None:
    before = status(row("w", pid=7, cpu_s=1.0), clock_s=1.0)
    now = status(row("w", pid=7, cpu_s=2.0), clock_s=2.0, since=2000.0)

    assert node("w", overview(before, now).nodes).cpu_percent is None


def test_totals_add_up_what_is_known() -> None:
    before = status(
        row("a", pid=1, cpu_s=0.0, beat_age_s=0.0, actors=(actor("a/0", tokens=0, open=1),)),
        row("b", pid=2, cpu_s=0.0, beat_age_s=0.0, actors=(actor("b/0", tokens=0),)),
        row("c", state="restarting"),
        clock_s=10.0,
    )
    now = status(
        row(
            "a",
            pid=1,
            cpu_s=0.5,
            memory_bytes=10,
            restarts=2,
            beat_age_s=0.0,
            actors=(actor("a/0", tokens=30, open=4),),
        ),
        row(
            "b",
            pid=2,
            cpu_s=1.0,
            memory_bytes=20,
            beat_age_s=0.0,
            actors=(actor("b/0", tokens=10),),
        ),
        row("c", state="restarting", restarts=1),
        clock_s=12.0,
    )

    totals = overview(before, now).totals

    assert (totals.running, totals.processes, totals.restarts) == (2, 3, 3)
    assert (totals.tokens_per_s, totals.requests_per_s, totals.open) == (20.0, None, 4.0)
    assert (totals.cpu_percent, totals.memory_bytes) == (75.0, 30)


def test_gauges_of_ones_own_are_kept_apart_from_the_known_ones() -> None:
    now = row("w", actors=(actor("w/0", mailbox=3, kv_used=0.5, tokens=9, temperature=21.5),))

    seen = only_actor(overview(None, status(now)).nodes)

    assert (seen.mailbox, seen.kv_used, seen.running) == (3, 0.5, None)
    assert seen.other == {"temperature": 21.5}
