"""The queue: who waits, in which order, and who is sent away."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from actors.router.admission import (
    MAX_RETRY_S,
    MAX_TENANTS,
    RATE_MIN_SAMPLES,
    RESUMED_PRIORITY,
    AdmissionQueue,
    Refused,
)
from actors.router.options import AdmissionOptions


def queue(**options: Any) -> AdmissionQueue[str]:
    return AdmissionQueue(msgspec.convert(options, AdmissionOptions))


def offer(
    line: AdmissionQueue[str],
    item: str,
    *,
    tenant: int = 0,
    priority: int = 0,
    tokens: int = 10,
    wait_s: float = 0.0,
    now: float = 0.0,
) -> Refused[str] | None:
    return line.offer(item, tenant=tenant, priority=priority, tokens=tokens, wait_s=wait_s, now=now)


def taken(line: AdmissionQueue[str], count: int = 1000) -> list[str]:
    found: list[str] = []
    while len(found) < count and (waiting := line.take()) is not None:
        found.append(waiting.item)
    return found


def draining(line: AdmissionQueue[str], per_second: float, now: float) -> None:
    """Have the queue know a rate."""
    for number in range(RATE_MIN_SAMPLES + 1):
        line.placed(now - (RATE_MIN_SAMPLES - number) / per_second)


def test_one_tenant_s_requests_leave_in_the_order_they_came() -> None:
    line = queue()
    for item in "abc":
        offer(line, item)

    assert taken(line) == ["a", "b", "c"]


def test_a_light_tenant_does_not_wait_behind_a_heavy_one() -> None:
    line = queue()
    for number in range(10):
        offer(line, f"heavy{number}", tenant=1)
    offer(line, "light0", tenant=2)
    offer(line, "light1", tenant=2)

    assert taken(line, 4) == ["heavy0", "light0", "heavy1", "light1"]


def test_fairness_is_in_tokens_not_in_requests() -> None:
    line = queue()
    for number in range(4):
        offer(line, f"long{number}", tenant=1, tokens=100)
        offer(line, f"short{number}", tenant=2, tokens=10)

    assert taken(line, 5) == ["long0", "short0", "short1", "short2", "short3"]


def test_a_tenant_that_was_away_has_saved_nothing_up() -> None:
    line = queue()
    for number in range(6):
        offer(line, f"busy{number}", tenant=1)
    taken(line, 4)
    for number in range(3):
        offer(line, f"new{number}", tenant=2)

    assert taken(line, 4) == ["new0", "busy4", "new1", "busy5"]


def test_a_higher_priority_goes_first() -> None:
    line = queue()
    offer(line, "ordinary")
    offer(line, "low", priority=-1)
    offer(line, "high", priority=2)

    assert taken(line) == ["high", "ordinary", "low"]


def test_the_last_in_line_is_refused_when_the_queue_is_full() -> None:
    line = queue(queue=2)
    offer(line, "a", tenant=1)
    offer(line, "b", tenant=1)

    assert offer(line, "c", tenant=1) == Refused("c", "2 requests are waiting already", 1.0)
    # Somebody else's first request displaces the one who queued most.
    refused = offer(line, "d", tenant=2)
    assert refused is not None
    assert refused.item == "b"
    assert taken(line) == ["a", "d"]


def test_who_would_wait_too_long_is_refused_at_once_with_an_honest_hint() -> None:
    line = queue(max_wait_s=5)
    draining(line, per_second=2.0, now=100.0)
    for number in range(11):
        assert offer(line, str(number), now=100.0) is None

    refused = offer(line, "late", now=100.0)

    assert refused is not None
    assert refused.item == "late"
    assert 4.0 <= refused.retry_after_s <= 6.0


def test_the_ingress_s_own_patience_counts_too() -> None:
    line = queue(max_wait_s=5)
    draining(line, per_second=2.0, now=100.0)
    for number in range(3):
        offer(line, str(number), now=100.0)

    assert offer(line, "hurried", now=100.0, wait_s=1.0) is not None
    assert offer(line, "patient", now=100.0) is None


def test_one_that_had_begun_is_neither_refused_nor_made_to_wait() -> None:
    line = queue(max_wait_s=5)
    draining(line, per_second=1.0, now=100.0)
    for number in range(5):
        offer(line, str(number), now=100.0)

    assert offer(line, "resumed", priority=RESUMED_PRIORITY, now=100.0) is None
    assert taken(line, 1) == ["resumed"]


def test_waiting_ends_at_the_deadline() -> None:
    line = queue(max_wait_s=5)
    offer(line, "a", now=0.0)
    offer(line, "b", now=1.0, wait_s=2.0)
    offer(line, "c", now=1.0)

    assert line.expire(2.9) == []
    assert [one.item for one in line.expire(3.0)] == ["b"]
    assert [one.item for one in line.expire(5.0)] == ["a"]
    assert taken(line) == ["c"]


def test_the_hint_is_bounded_however_slow_the_workers_are() -> None:
    line = queue(max_wait_s=1000)
    draining(line, per_second=1.0, now=100.0)
    for number in range(500):
        offer(line, str(number), now=100.0)

    assert line.retry_after_s(100.0) == MAX_RETRY_S


def test_memory_for_tenants_is_bounded() -> None:
    line = queue(queue=10)
    for tenant in range(3 * MAX_TENANTS):
        offer(line, "x", tenant=tenant)

    assert len(line._finish) <= MAX_TENANTS + 1


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(-1, 1), st.integers(1, 100)),
        max_size=60,
    ),
    st.integers(1, 20),
)
def test_everybody_is_served_once_or_refused_once(
    arrivals: list[tuple[int, int, int]], limit: int
) -> None:
    line = queue(queue=limit)
    refused = []
    for number, (tenant, priority, tokens) in enumerate(arrivals):
        answer = offer(line, str(number), tenant=tenant, priority=priority, tokens=tokens)
        if answer is not None:
            refused.append(answer.item)
        assert len(line) <= limit

    served = taken(line)

    assert sorted(served + refused, key=int) == [str(n) for n in range(len(arrivals))]
    priorities = [arrivals[int(item)][1] for item in served]
    assert priorities == sorted(priorities, reverse=True)


@pytest.mark.parametrize("tenants", [2, 5])
def test_backlogged_tenants_get_equal_shares(tenants: int) -> None:
    line = queue(queue=10_000)
    for tenant in range(tenants):
        for number in range(100 * (tenant + 1)):
            offer(line, f"{tenant}:{number}", tenant=tenant)

    served = taken(line, 50 * tenants)

    counts = {
        tenant: sum(item.startswith(f"{tenant}:") for item in served) for tenant in range(tenants)
    }
    assert set(counts.values()) == {50}
