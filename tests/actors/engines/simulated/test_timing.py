from __future__ import annotations

import math

import pytest

from actors.engines.simulated.timing import Polynomial, Timing


def test_prefill_costs_what_the_formula_says() -> None:
    step_s = Timing().step_s(prefill_tokens=1000, decoding=0, utilisation=0.5)
    assert step_s == pytest.approx((4.21e-7 * 1000**2 + 0.0152 * 1000 + 16.5) / 1000)


def test_decode_costs_what_the_formula_says_of_utilisation() -> None:
    step_s = Timing().step_s(prefill_tokens=0, decoding=3, utilisation=0.5)
    assert step_s == pytest.approx((-25.7 * 0.25 + 54 * 0.5 + 5.74) / 1000)


def test_mixed_step_costs_both() -> None:
    timing = Timing()
    both = timing.step_s(prefill_tokens=10, decoding=1, utilisation=0.1)
    prefill = timing.step_s(prefill_tokens=10, decoding=0, utilisation=0.1)
    decode = timing.step_s(prefill_tokens=0, decoding=1, utilisation=0.1)
    assert both == pytest.approx(prefill + decode)


def test_decode_step_is_never_shorter_than_a_millisecond() -> None:
    timing = Timing(decode_ms=Polynomial(0.0, 0.0, -5.0))
    assert timing.step_s(prefill_tokens=0, decoding=1, utilisation=0.0) == pytest.approx(0.001)


@pytest.mark.parametrize("speedup", [0.0, math.inf])
def test_infinite_speed_takes_no_time(speedup: float) -> None:
    timing = Timing(speedup=speedup)
    assert timing.step_s(prefill_tokens=10, decoding=5, utilisation=1.0) == 0.0
    assert timing.handoff_s(100) == 0.0


def test_speedup_divides() -> None:
    assert Timing(speedup=4.0).handoff_s(10) == pytest.approx(Timing().handoff_s(10) / 4)
