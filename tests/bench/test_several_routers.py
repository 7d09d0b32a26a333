"""Routers side by side in virtual time."""

from __future__ import annotations

import pytest

from bench.several_routers import measure
from bench.virtual_time import run


@pytest.mark.parametrize(("routers", "least"), [(1, 1.0), (3, 0.9)])
def test_several_routers_choose_almost_always_as_one_would(routers: int, least: float) -> None:
    cell = run(measure("shared", routers, 60.0, 3.0))

    assert cell.same >= least
    assert cell.decisions > 100
