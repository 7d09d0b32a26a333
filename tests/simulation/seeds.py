"""Many seeds as one test, and what must have happened in them."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.report import explain, shrink
from tests.simulation.run import run

SOMETIMES = (
    "a repeated token was dropped",
    "a token came before its predecessor",
    "a token of an older attempt was dropped",
    "a replay in the middle",
    "a second replay",
    "a replay after Fell",
    "a replay after the fall of its worker",
    "a replay after Rejected",
    "a replay after Tick",
    "a request ended: ok",
    "a request ended: left",
    "a request ended: cut",
    "a supervisor adopted a node",
    "the watchdog killed a node",
    "kill while computing a prompt",
    "kill while keeping blocks",
    "kill while fetching blocks",
    "kill while decoding",
    "freeze while decoding",
)
"""Within this many seeds each of these must have occurred, or they have tested less than they seem
to."""
ENOUGH = 250


def check(first: int, count: int) -> Counter[str]:
    """Run the seeds; fail with the smallest form of the first that breaks a promise."""
    sometimes: Counter[str] = Counter()
    for seed in range(first, first + count):
        result = run(seed)
        if result.failure:
            pytest.fail(explain(shrink(result)), pytrace=False)
        sometimes += result.sometimes
    never = [what for what in SOMETIMES if not sometimes[what]]
    assert never == [], "these seeds are worth nothing: it never happened"
    return sometimes
