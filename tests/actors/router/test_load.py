"""A worker's load between reports."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from actors.messages.cache import Load
from actors.messages.events import Placement
from actors.messages.key import RequestKey
from actors.router.load import EXPECTED_S, MAX_EXPECTED, SETTLED_S, WorkerLoad
from actors.runtime.address import Address

WORKER = Address("context", 0, 5)


def key(number: int) -> RequestKey:
    return RequestKey(Address("ingress", 0, 1), number, 0)


def placement(number: int, tokens: int = 100, blocks: int = 7) -> Placement:
    return Placement(key(number), WORKER, tokens, blocks)


def totals(load: WorkerLoad) -> tuple[int, int, int]:
    return load.prefill_tokens, load.blocks, load.requests


def test_what_is_placed_counts_at_once() -> None:
    load = WorkerLoad()

    load.place(placement(1), 0.0)

    assert totals(load) == (100, 7, 1)


def test_work_that_has_arrived_is_counted_by_the_report_and_not_twice() -> None:
    load = WorkerLoad()
    load.place(placement(1), 0.0)
    load.place(placement(2), 0.0)

    load.report(Load(running=1, waiting_tokens=90, blocks_used=7), [key(1)])

    assert totals(load) == (190, 14, 2)


def test_work_that_has_not_arrived_outlives_a_report() -> None:
    load = WorkerLoad()
    load.place(placement(1), 0.0)

    load.report(Load())

    assert totals(load) == (100, 7, 1)


def test_work_that_never_arrives_runs_out() -> None:
    load = WorkerLoad()
    load.place(placement(1), 0.0)
    load.place(placement(2), 5.0)

    assert not load.expire(EXPECTED_S - 1)
    assert load.expire(EXPECTED_S)
    assert load.expected == 1


def test_the_same_request_counts_once() -> None:
    load = WorkerLoad()
    load.place(placement(1), 0.0)
    load.place(placement(1, tokens=50), 1.0)

    assert totals(load) == (50, 7, 1)


def test_work_that_another_router_tells_of_after_it_has_arrived_counts_nothing() -> None:
    load = WorkerLoad()
    load.report(Load(running=1, waiting_tokens=90, blocks_used=7), [key(1)])

    load.place(placement(1), 0.0)

    assert totals(load) == (90, 7, 1)


def test_work_that_is_told_of_after_it_was_given_up_counts_nothing() -> None:
    load = WorkerLoad()
    assert not load.forget(key(1))

    load.place(placement(1), 0.0)

    assert load.expected == 0


def test_what_has_arrived_is_remembered_for_a_while_only() -> None:
    load = WorkerLoad()
    load.report(Load(), [key(1)])
    for now in (SETTLED_S, 1.5 * SETTLED_S, 2 * SETTLED_S):
        load.expire(now)

    load.place(placement(1), 2 * SETTLED_S)

    assert load.expected == 1, "nothing is kept for ever"


def test_expected_work_is_bounded() -> None:
    load = WorkerLoad()
    for number in range(MAX_EXPECTED + 10):
        load.place(placement(number), 0.0)

    assert load.expected == MAX_EXPECTED


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("place"), st.integers(0, 5)),
            st.tuples(st.just("forget"), st.integers(0, 5)),
            st.tuples(st.just("report"), st.integers(0, 5)),
            st.tuples(st.just("expire"), st.integers(0, 5)),
        )
    )
)
def test_totals_are_always_the_report_and_what_is_expected(steps: list[tuple[str, int]]) -> None:
    load, now = WorkerLoad(), 0.0
    expected: dict[int, float] = {}
    settled: set[int] = set()
    settled_before: set[int] = set()
    for step, number in steps:
        now += EXPECTED_S / 4
        match step:
            case "place":
                load.place(placement(number), now)
                if number not in settled | settled_before:
                    expected.pop(number, None)
                    expected[number] = now + EXPECTED_S
            case "forget":
                assert load.forget(key(number)) == (number in expected)
                if expected.pop(number, None) is None:
                    settled.add(number)
            case "report":
                load.report(Load(number, 1, 10 * number, number), [key(number)])
                if expected.pop(number, None) is None:
                    settled.add(number)
            case _:
                load.expire(now)  # a step of this test is longer than SETTLED_S
                settled_before, settled = settled, set()
                expected = {one: until for one, until in expected.items() if until > now}
        told, count = load.reported, len(expected)
        assert totals(load) == (
            told.waiting_tokens + 100 * count,
            told.blocks_used + 7 * count,
            told.running + told.waiting + count,
        )


def test_what_is_expected_can_be_given_up_all_at_once() -> None:
    load = WorkerLoad()
    load.report(Load(running=2, blocks_used=5))
    load.place(placement(1), 0.0)
    load.place(placement(2), 0.0)

    assert load.lose_track()

    assert totals(load) == (0, 5, 2)
    assert not load.lose_track()
