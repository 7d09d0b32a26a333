"""Two versions in turn: what is made of their slices."""

from __future__ import annotations

import pytest

from bench.in_turn import Row, compare, table


def test_each_slice_is_compared_with_the_one_beside_it() -> None:
    """A machine that slows down by half a slice later changes nothing."""
    before = [{"front/0": 20.0 * drift, "etcd": 1.0 * drift} for drift in (1.0, 1.5, 2.0)]
    after = [{"front/0": 10.0 * drift, "etcd": 1.0 * drift} for drift in (1.0, 1.5, 2.0)]

    whole, front, etcd = compare(before, after)

    assert (whole.name, whole.before, whole.after) == ("all", 31.5, 16.5)
    assert [whole.ratio, *whole.quartiles] == pytest.approx([11 / 21] * 3)
    assert (front.name, front.before, front.after, front.ratio) == ("front/0", 30.0, 15.0, 0.5)
    assert (etcd.name, etcd.ratio) == ("etcd", 1.0)


def test_a_process_that_only_one_side_has_counts_in_the_whole() -> None:
    whole, front, new = compare([{"a": 10.0}] * 2, [{"a": 9.0, "new": 20.0}] * 2)

    assert (whole.before, whole.after, whole.ratio) == (10.0, 29.0, 2.9)
    assert (front.name, front.ratio) == ("a", 0.9)
    assert (new.name, new.before, new.after) == ("new", 0.0, 20.0)


def test_what_hardly_costs_anything_is_not_shown() -> None:
    rows = compare([{"front/0": 20.0, "guard": 0.1}] * 2, [{"front/0": 20.0, "guard": 0.0}] * 2)

    assert [row.name for row in rows] == ["all", "front/0"]


def test_the_table_names_the_unit_and_every_row() -> None:
    text = table([Row("all", 40.0, 38.0, 0.95, (0.9, 1.01))], "a token")

    assert "µs of CPU a token" in text
    assert text.splitlines()[1].split()[:4] == ["all", "40.00", "38.00", "0.950"]
