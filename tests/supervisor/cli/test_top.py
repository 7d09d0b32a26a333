from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.calls import Status
from supervisor.cli import top
from supervisor.cli.top import RATE_SPAN_S, Looker
from tests.supervisor.rows import status


@settings(deadline=None)  # the machine may be busy
@given(gaps_s=st.lists(st.floats(0.1, 3.0), min_size=1, max_size=40))
def test_rates_are_taken_from_the_newest_look_that_is_old_enough(gaps_s: list[float]) -> None:
    clocks = [sum(gaps_s[: number + 1]) for number in range(len(gaps_s))]
    looked = iter(clocks)

    def ask(_path: Path, _timeout_s: float) -> Status:
        return status(clock_s=next(looked))

    looker = Looker(Path("unused"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(top, "ask_status", ask)
        for _ in clocks:
            looker.look()

    *earlier, last = clocks
    old_enough = [clock for clock in earlier if last - clock >= RATE_SPAN_S]
    expected = max(old_enough) if old_enough else min(earlier, default=None)
    assert looker.current.clock_s == last
    previous = looker.previous
    assert (None if previous is None else previous.clock_s) == expected
