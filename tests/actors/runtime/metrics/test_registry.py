"""What the counters, gauges and histograms of a node do."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.link import Measured, decode
from actors.runtime.metrics import Metrics, Point
from actors.runtime.metrics.registry import OTHER, SERIES_LIMIT


def test_a_counter_counts_for_each_combination_of_labels() -> None:
    metrics = Metrics()
    family = metrics.counter("seen_total", "Seen.", ("what",))

    family.labels("cat").add()
    family.labels("dog").add(2)
    family.labels("cat").add(3)

    [collected] = metrics.collect()
    assert collected.points == (Point(("cat",), 4.0), Point(("dog",), 2.0))


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5)), max_size=30))
def test_a_histogram_puts_each_value_at_the_first_bound_not_below_it(
    observed: list[tuple[float, int]],
) -> None:
    bounds = (0.5, 1.0, 5.0)
    metrics = Metrics()
    series = metrics.histogram("took_seconds", "Took.", bounds=bounds).labels()

    for value, times in observed:
        series.observe(value, times)

    [point] = metrics.collect()[0].points
    lows = (-1.0, *bounds)
    highs = (*bounds, float("inf"))
    expected = [
        sum(times for value, times in observed if low < value <= high)
        for low, high in zip(lows, highs, strict=True)
    ]
    assert list(point.counts) == expected
    assert point.value == pytest.approx(sum(value * times for value, times in observed))


def test_a_family_without_labels_is_there_before_anything_was_counted() -> None:
    metrics = Metrics()
    metrics.counter("seen_total", "Seen.")

    assert metrics.collect()[0].points == (Point((), 0.0),)


def test_series_beyond_the_limit_share_one() -> None:
    metrics = Metrics()
    family = metrics.counter("seen_total", "Seen.", ("who", "what"))

    for number in range(SERIES_LIMIT + 20):
        family.labels(str(number), "x").add()

    points = metrics.collect()[0].points
    assert len(points) == SERIES_LIMIT + 1
    assert points[-1] == Point((OTHER, OTHER), 20.0)


def test_the_same_family_may_be_asked_for_twice_and_another_of_its_name_may_not() -> None:
    metrics = Metrics()
    first = metrics.histogram("took_seconds", "Took.", ("stage",))

    assert metrics.histogram("took_seconds", "Took.", ("stage",)) is first
    with pytest.raises(ValueError, match="defined twice"):
        metrics.histogram("took_seconds", "Took.", ("other",))
    with pytest.raises(ValueError, match="defined twice"):
        metrics.gauge("took_seconds", "Took.", ("stage",))


@pytest.mark.parametrize(
    ("kind", "name", "labels"),
    [
        ("counter", "seen", ()),
        ("gauge", "seen_total", ()),
        ("gauge", "Seen", ()),
        ("gauge", "se-en", ()),
        ("gauge", "seen", ("le",)),
        ("gauge", "seen", ("wh at",)),
    ],
)
def test_a_name_against_the_conventions_is_refused(
    kind: str, name: str, labels: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match=name):
        getattr(Metrics(), kind)(name, "Help.", labels)


def test_bounds_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(ValueError, match="ascend"):
        Metrics().histogram("took_seconds", "Took.", bounds=(1.0, 0.5))


def test_collectors_run_before_anything_is_read() -> None:
    metrics = Metrics()
    level = metrics.gauge("level", "Level.").labels()
    metrics.before_collect(lambda: level.set(7))

    assert metrics.collect()[0].points == (Point((), 7.0),)


def test_whatever_python_takes_for_a_number_travels_as_one() -> None:
    metrics = Metrics()
    metrics.gauge("flag", "Flag.").labels().set(True)
    metrics.counter("seen_total", "Seen.").labels().mirror(7)

    families = metrics.collect()

    line = msgspec.json.encode(Measured(1, families, last=True))
    assert decode(line) == Measured(1, families, last=True)
