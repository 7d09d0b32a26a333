"""Choosing one worker: the cost, the window, and the shortcut against the plain computation."""

from __future__ import annotations

import random
from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given

from actors.router.options import CostOptions
from actors.router.strategies import KvAware, Wanted, costs_of, lightest
from tests.actors.router.fleets import Theatre, chosen, entry

PROMPT = tuple(range(100, 200))


def fleet(count: int, **options: object) -> Theatre:
    return Theatre(*(entry("aggregated", i) for i in range(count)), **options)  # type: ignore[arg-type]


def test_the_longest_prefix_wins_among_equally_busy_workers() -> None:
    theatre = fleet(3)
    theatre.says("aggregated/1", stored=PROMPT[:50])
    theatre.says("aggregated/2", stored=PROMPT[:20])

    decision = theatre.place(PROMPT)

    assert chosen(decision) == "aggregated/1"
    assert decision.computing.matched == 50
    assert decision.computing.cost == 50


def test_within_the_window_load_counts_nothing_against_a_prefix() -> None:
    theatre = fleet(2, cost={"window_blocks": 64})
    theatre.says("aggregated/1", stored=PROMPT[:3], blocks=64, running=1)

    assert chosen(theatre.place(PROMPT)) == "aggregated/1"


def test_beyond_the_window_load_weighs_as_much_as_computing() -> None:
    theatre = fleet(2, cost={"window_blocks": 64})
    theatre.says("aggregated/1", stored=PROMPT[:50], blocks=64 + 49, running=1)
    assert chosen(theatre.place(PROMPT)) == "aggregated/1"

    theatre.says("aggregated/1", stored=PROMPT[:50], blocks=64 + 51, running=1)
    assert chosen(theatre.place(PROMPT)) == "aggregated/0"


def test_queued_prefill_is_load() -> None:
    theatre = fleet(2)
    theatre.says("aggregated/0", tokens=10_000, running=1)

    assert chosen(theatre.place()) == "aggregated/1"


def test_no_prefix_anywhere_means_the_least_loaded() -> None:
    theatre = fleet(3)
    theatre.says("aggregated/0", blocks=9)
    theatre.says("aggregated/1", blocks=5)
    theatre.says("aggregated/2", blocks=7)

    assert {chosen(theatre.place(PROMPT)) for _ in range(20)} == {"aggregated/1"}


def test_a_popular_prefix_does_not_bury_one_worker() -> None:
    """The death spiral: everybody asks for what only one worker has."""
    theatre = fleet(4)
    theatre.says("aggregated/0", stored=PROMPT[:10])
    held = dict.fromkeys(range(4), 0)
    for _ in range(400):
        decision = theatre.place(PROMPT[:12])
        instance = decision.generation.member.address.instance
        held[instance] += 12
        theatre.says(f"aggregated/{instance}", blocks=held[instance])

    loads = sorted(held.values())
    assert loads[-1] <= 1.1 * loads[0] + 64 + 24


def test_temperature_spreads_over_the_dearer_workers_too() -> None:
    theatre = fleet(3, cost={"temperature": 1.0})
    theatre.says("aggregated/1", stored=PROMPT)

    counts = Counter(chosen(theatre.place(PROMPT)) for _ in range(300))

    assert counts.most_common(1)[0][0] == "aggregated/1"
    assert len(counts) == 3


def test_power_of_two_never_takes_the_busiest() -> None:
    theatre = fleet(4, strategy="power_of_two")
    theatre.says("aggregated/3", blocks=900)

    assert {chosen(theatre.place()) for _ in range(100)} == {f"aggregated/{i}" for i in range(3)}


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=20), st.integers())
def test_the_lightest_is_one_of_the_smallest(weights: list[float], seed: int) -> None:
    assert weights[lightest(weights, random.Random(seed))] == min(weights)


def test_each_of_several_equals_is_as_likely() -> None:
    generator = random.Random(1)
    weights = [5.0] * 90 + [0.0] * 3 + [5.0] * 7

    counts = Counter(lightest(weights, generator) for _ in range(3000))

    assert set(counts) == {90, 91, 92}
    assert min(counts.values()) > 850


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 150)),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([0.0, 8.0, 64.0]),
    st.sampled_from([0.1, 1.0]),
)
def test_the_shortcut_finds_the_smallest_cost_and_among_equals_the_smallest_load(
    workers: list[tuple[int, int]], window_blocks: float, block_weight: float
) -> None:
    options = CostOptions(window_blocks=window_blocks)
    theatre = fleet(len(workers), cost={"window_blocks": window_blocks})
    for instance, (depth, blocks) in enumerate(workers):
        theatre.says(f"aggregated/{instance}", stored=PROMPT[:depth], blocks=blocks)
    pool = theatre.roster.site("m").alone
    wanted = Wanted(PROMPT[:20], block_weight)

    pick = KvAware(theatre.index, options, random.Random(0)).choose(pool, wanted)

    runs = theatre.index.match(wanted.blocks, pool.mask)
    costs = costs_of(pool, wanted, runs, options)
    best = min(zip(costs, pool.weights, strict=True))
    position = pool.members.index(pick.member)
    assert (costs[position], pool.weights[position]) == pytest.approx(best)
    assert pick.cost == pytest.approx(costs[position])
    assert pick.matched == workers[pick.member.address.instance][0]
