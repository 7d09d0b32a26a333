"""One half of the seeds that every test run simulates; in a file of its own, for a core of its
own."""

from __future__ import annotations

import pytest

from tests.simulation.seeds import check

pytestmark = pytest.mark.slow

FIRST, COUNT = 0, 250


def test_no_promise_is_broken_whatever_goes_wrong() -> None:
    check(FIRST, COUNT)
