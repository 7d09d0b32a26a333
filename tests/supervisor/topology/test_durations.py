"""Durations as people write them."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.topology.durations import (
    DURATION_PATTERN,
    MAX_DURATION_S,
    parse_duration,
    parse_shutdown,
)

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("300ms", 0.3),
        ("5s", 5.0),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("1.5s", 1.5),
        (7, 7.0),
        (0.25, 0.25),
    ],
)
def test_a_duration_is_a_number_with_a_unit_or_a_number_of_seconds(
    written: object, seconds: float
) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "",
        "5",
        "5 s",
        "5S",
        "-1s",
        "1e3s",
        "s",
        "1d",
        "٣s",
        "5s\n",
        True,
        None,
        [],
        -1,
        math.nan,
        math.inf,
        "9h" * 9,
        f"{10**400}h",
        MAX_DURATION_S + 1,
    ],
)
def test_anything_else_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="a duration such as"):
        parse_duration(written)


@given(st.integers(0, 10**6), st.sampled_from(sorted(_SECONDS)))
def test_every_unit_scales_its_number(number: int, unit: str) -> None:
    expected = number * _SECONDS[unit]
    if expected <= MAX_DURATION_S:
        assert math.isclose(parse_duration(f"{number}{unit}"), expected)


@given(st.text(alphabet="0123456789.msh e-", max_size=8))
def test_the_reader_and_the_schema_accept_the_same_texts(text: str) -> None:
    try:
        parse_duration(text)
        accepted = True
    except ValueError:
        accepted = False
    assert accepted == (re.search(DURATION_PATTERN, text) is not None and _hours(text) <= 366 * 24)


def _hours(text: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)([a-z]+)", text.strip()).groups()  # type: ignore[union-attr]  # matched before
    return float(number) / {"ms": 3.6e6, "s": 3600, "m": 60, "h": 1}[unit]


def test_a_shutdown_may_wait_for_ever_or_not_at_all() -> None:
    assert parse_shutdown("infinity") == math.inf
    assert parse_shutdown("brutal_kill") == 0
    assert parse_shutdown("5s") == 5
    with pytest.raises(ValueError, match="infinity, brutal_kill or a duration"):
        parse_shutdown("forever")
