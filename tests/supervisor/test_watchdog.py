from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.watchdog import FRESH_S, TICK_S, Deadlines, Verdict, Watchdog

DEADLINES = Deadlines()
assert DEADLINES.progress_s is not None
BEAT_S = 0.25
WITHIN_S = 2.0
"""What is promised with the defaults."""


def watching(deadlines: Deadlines = DEADLINES, *, grace_s: float = 0.0) -> Watchdog:
    watchdog = Watchdog()
    watchdog.watch("a/0", deadlines, 0.0, grace_s=grace_s)
    return watchdog


def look_until(watchdog: Watchdog, end: float) -> list[tuple[float, Verdict]]:
    """Look whenever the watchdog wants to, up to `end`; the verdicts and when they came."""
    found = []
    while watchdog.wake_at is not None and watchdog.wake_at <= end:
        now = watchdog.wake_at
        found += [(now, verdict) for verdict in watchdog.look(now)]
    return found


def live(
    watchdog: Watchdog,
    until: float,
    *,
    start: float = 0.0,
    every_s: float = BEAT_S,
    busy: bool = False,
    moving: bool = True,
    patience_s: float = 0.0,
) -> list[tuple[float, Verdict]]:
    """Beats at a steady pace, and a look whenever it is due."""
    found = []
    count = int((until - start) / every_s)
    for number in range(1, count + 1):
        now = start + number * every_s
        found += look_until(watchdog, now)
        progress = number if moving else 7
        watchdog.hear("a/0", now, progress=progress, busy=busy, patience_s=patience_s)
    return found + look_until(watchdog, until)


@pytest.mark.parametrize(("busy", "moving"), [(False, False), (True, True), (False, True)])
def test_a_child_that_beats_and_gets_on_or_has_no_work_is_left_alone(
    busy: bool, moving: bool
) -> None:
    assert live(watching(), 60.0, busy=busy, moving=moving) == []


@given(st.floats(0.0, 10.0))
def test_silence_is_seen_in_time_and_named_once(lived_s: float) -> None:
    watchdog = watching()
    last = int(lived_s / BEAT_S) * BEAT_S
    assert live(watchdog, last) == []

    [(at, verdict)] = look_until(watchdog, 100.0)

    assert verdict == ("a/0", "hung: no heartbeat for 1.5 s")
    assert at == pytest.approx(last + DEADLINES.heartbeat_s)
    assert watchdog.wake_at is None


@given(st.floats(0.0, 10.0))
def test_standing_still_at_work_is_seen_in_time(stops_at: float) -> None:
    """The engine stands still from a moment on that lies anywhere between two beats."""
    watchdog = watching()
    found: list[tuple[float, Verdict]] = []
    for number in range(1, 60):
        now = number * BEAT_S
        found += look_until(watchdog, now)
        watchdog.hear("a/0", now, progress=int(100 * min(now, stops_at)), busy=True)

    [(at, verdict)] = found
    assert verdict.reason.startswith("stuck: no progress for 1.")
    assert at <= stops_at + WITHIN_S + 0.01
    assert at >= stops_at + 1.25 - 0.01 - BEAT_S


def test_a_step_that_takes_long_by_its_own_account_is_waited_for() -> None:
    assert live(watching(), 30.0, busy=True, moving=False, patience_s=40.0) == []


def test_more_patience_than_asked_for_is_not_given() -> None:
    [(at, verdict)] = live(watching(), 30.0, busy=True, moving=False, patience_s=4.0)

    assert at == pytest.approx(BEAT_S + 4.0)
    assert verdict.reason == "stuck: no progress for 4.0 s while busy"


def test_a_patience_below_the_limit_changes_nothing() -> None:
    [(at, _)] = live(watching(), 30.0, busy=True, moving=False, patience_s=0.01)

    assert at == pytest.approx(BEAT_S + 1.25)


def test_work_that_begins_after_a_long_rest_has_its_full_time() -> None:
    watchdog = watching()
    assert live(watchdog, 20.0, moving=False) == []

    [(at, _)] = live(watchdog, 30.0, start=20.0, busy=True, moving=False)

    assert at == pytest.approx(20.0 + BEAT_S + 1.25)


def test_nobody_is_called_stuck_on_old_evidence() -> None:
    """Silent since it was last seen standing still, it may have got on: so it hangs, later."""
    watchdog = watching()
    live(watchdog, 0.75, busy=True, moving=False)

    [(at, verdict)] = look_until(watchdog, 10.0)

    assert verdict.reason == "hung: no heartbeat for 1.5 s"
    assert at == pytest.approx(0.75 + DEADLINES.heartbeat_s)


def test_nothing_is_expected_before_the_watch_and_after_it() -> None:
    watchdog = Watchdog()
    watchdog.hear("a/0", 0.0, busy=True)
    assert watchdog.wake_at is None

    watchdog.watch("a/0", DEADLINES, 0.0)
    watchdog.forget("a/0")

    assert look_until(watchdog, 100.0) == []
    assert watchdog.wake_at is None


def test_grace_is_for_the_first_sign_of_life_only() -> None:
    watchdog = watching(grace_s=1.0)
    assert look_until(watchdog, 2.4) == []
    watchdog.hear("a/0", 2.4)

    [(at, _)] = look_until(watchdog, 10.0)

    assert at == pytest.approx(2.4 + DEADLINES.heartbeat_s)


def test_progress_is_not_watched_where_there_is_no_limit() -> None:
    deadlines = Deadlines(heartbeat_s=5.0, progress_s=None, sign="answer")
    watchdog = watching(deadlines)
    assert live(watchdog, 10.0, busy=True, moving=False) == []

    [(_, verdict)] = look_until(watchdog, 100.0)

    assert verdict.reason == "hung: no answer for 5.0 s"


@given(st.floats(0.0, 1.4), st.floats(0.0, 1000.0))
def test_a_supervisor_that_was_held_up_blames_nobody_for_it(silent_s: float, held_s: float) -> None:
    """The look comes before the beats that have been waiting in the sockets are read."""
    watchdog = watching()
    look_until(watchdog, silent_s)
    assert watchdog.wake_at is not None

    resumed = watchdog.wake_at + held_s
    if silent_s + TICK_S < DEADLINES.heartbeat_s:
        assert watchdog.look(resumed) == []

        watchdog.hear("a/0", resumed)
        assert live(watchdog, resumed + 10.0, start=resumed) == []


@given(st.floats(0.3, 1000.0))
def test_after_a_hold_up_a_dead_silence_is_still_seen(held_s: float) -> None:
    watchdog = watching()
    assert watchdog.wake_at is not None
    resumed = watchdog.wake_at + held_s
    assert watchdog.look(resumed) == []

    [(at, verdict)] = look_until(watchdog, resumed + 10.0)

    assert verdict.reason.startswith("hung")
    assert at <= resumed + DEADLINES.heartbeat_s


@given(
    st.lists(
        st.tuples(
            st.floats(0.001, DEADLINES.heartbeat_s - FRESH_S),
            st.integers(0, 3),
            st.booleans(),
            st.floats(0, 0.3),
        ),
        max_size=40,
    )
)
def test_whoever_beats_often_enough_is_never_called_hung(
    beats: list[tuple[float, int, bool, float]],
) -> None:
    watchdog = watching()
    now = 0.0
    verdicts: list[Verdict] = []
    for gap_s, progress, busy, late_s in beats:
        now += gap_s
        while watchdog.wake_at is not None and watchdog.wake_at + late_s <= now:
            verdicts += watchdog.look(watchdog.wake_at + late_s)
        watchdog.hear("a/0", now, progress=progress, busy=busy)

    assert not [verdict for verdict in verdicts if verdict.reason.startswith("hung")]


@given(st.lists(st.floats(0.0, 0.5), min_size=1, max_size=30))
def test_looks_are_never_further_apart_than_a_tick(lateness: list[float]) -> None:
    watchdog = watching(Deadlines(heartbeat_s=1e6))
    for late_s in lateness:
        assert watchdog.wake_at is not None
        now = watchdog.wake_at + late_s
        watchdog.look(now)
        assert now < watchdog.wake_at <= now + TICK_S


def test_children_are_judged_apart() -> None:
    watchdog = watching()
    watchdog.watch("b/0", DEADLINES, 1.0)

    found = look_until(watchdog, 10.0)

    assert [(at, verdict.name) for at, verdict in found] == [(1.5, "a/0"), (2.5, "b/0")]
