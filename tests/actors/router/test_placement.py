"""Placement: which workers run a request, and which of them computes the prompt."""

from __future__ import annotations

from collections import Counter

import pytest

from actors.kv.hashing import PrefixHasher, sequence_hashes
from actors.router.options import StrategyName
from actors.router.placement import NoPlacement, make_ask
from actors.runtime.address import Address
from actors.runtime.registry.base import State
from tests.actors.router.fleets import BLOCK, LIFE, Theatre, chosen, entry

PROMPT = tuple(range(100, 140))
PAIR = (entry("context"), entry("generation"))


def test_a_context_and_a_generation_worker_work_together() -> None:
    decision = Theatre(*PAIR).place()

    assert decision.how == "pair"
    assert decision.workers == [
        ("context", Address("context", 0, LIFE)),
        ("generation", Address("generation", 0, LIFE)),
    ]


def test_an_aggregated_worker_works_alone() -> None:
    decision = Theatre(entry("aggregated")).place()

    assert decision.how == "alone"
    assert decision.workers == [("alone", Address("aggregated", 0, LIFE))]


def test_generation_workers_prefill_when_no_context_worker_is_left() -> None:
    theatre = Theatre(*PAIR)
    assert theatre.roster.without_context() == set()

    theatre.roster.down(Address("context", 0, LIFE))

    assert theatre.place().how == "no_context"
    assert theatre.roster.without_context() == {"m"}


def test_suspected_context_workers_are_as_good_as_none() -> None:
    assert Theatre(*PAIR).place(avoid=(Address("context", 0, LIFE),)).how == "no_context"


def test_context_workers_alone_serve_nothing() -> None:
    with pytest.raises(NoPlacement, match="no generation worker of m is ready"):
        Theatre(entry("context")).place()


def test_another_model_is_not_served() -> None:
    with pytest.raises(NoPlacement, match="no worker of other is ready"):
        Theatre(entry("aggregated")).place(model="other")


@pytest.mark.parametrize("state", [State.STARTING, State.DRAINING])
def test_a_worker_that_is_not_ready_gets_nothing(state: State) -> None:
    with pytest.raises(NoPlacement):
        Theatre(entry("aggregated", state=state)).place()


def test_a_worker_to_avoid_is_taken_only_when_there_is_no_other() -> None:
    theatre = Theatre(*(entry("aggregated", i) for i in range(2)), strategy="round_robin")
    avoid = (Address("aggregated", 0, LIFE),)

    assert {chosen(theatre.place(avoid=avoid)) for _ in range(4)} == {"aggregated/1"}
    everybody = (*avoid, Address("aggregated", 1, LIFE))
    assert chosen(theatre.place(avoid=everybody)) in {"aggregated/0", "aggregated/1"}


# -- disaggregation, request by request ----------------------------------------------------------


def test_without_thresholds_every_prompt_is_computed_by_a_context_worker() -> None:
    theatre = Theatre(*PAIR)
    theatre.says("generation/0", stored=PROMPT)

    assert theatre.place(PROMPT).how == "pair"


def test_a_short_prompt_stays_on_the_generation_worker() -> None:
    theatre = Theatre(*PAIR, conditional={"uncached_tokens": 64})

    assert theatre.place(PROMPT[:3]).how == "local"
    assert theatre.place(PROMPT[:4]).how == "pair"


def test_a_mostly_cached_prompt_stays_on_the_generation_worker_that_has_it() -> None:
    theatre = Theatre(*PAIR, entry("generation", 1), conditional={"uncached_tokens": 64})
    theatre.says("generation/1", stored=PROMPT[:38])

    decision = theatre.place(PROMPT)

    assert (decision.how, chosen(decision)) == ("local", "generation/1")
    assert decision.computing.matched == 38


def test_a_small_uncached_share_is_enough_where_the_topology_says_so() -> None:
    theatre = Theatre(*PAIR, conditional={"uncached_share": 0.25})
    theatre.says("generation/0", stored=PROMPT[:32])

    assert theatre.place(PROMPT).how == "local"
    assert theatre.place((*PROMPT[:16], *range(7000, 7016))).how == "pair"


def test_the_generation_worker_of_a_pair_is_the_one_that_need_not_fetch() -> None:
    theatre = Theatre(*PAIR, entry("generation", 1))
    theatre.says("generation/1", stored=PROMPT)

    decision = theatre.place(PROMPT)

    assert decision.generation.member.address.name == "generation/1"


def test_a_busy_generation_worker_is_passed_over_for_little_to_fetch() -> None:
    theatre = Theatre(*PAIR, entry("generation", 1))
    theatre.says("generation/1", stored=PROMPT, blocks=200)

    assert theatre.place(PROMPT).generation.member.address.name == "generation/0"


# -- sessions ------------------------------------------------------------------------------------


def two(**options: object) -> Theatre:
    return Theatre(entry("aggregated", 0), entry("aggregated", 1), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", ["kv", "random", "least_loaded"])
def test_a_session_stays_where_it_was(strategy: StrategyName) -> None:
    theatre = two(strategy=strategy)
    first = chosen(theatre.place(session=7))
    theatre.says(first, blocks=20, running=1)

    assert {chosen(theatre.place(session=7)) for _ in range(10)} == {first}


def test_a_much_better_worker_wins_over_a_session_s_last() -> None:
    theatre = two()
    first = chosen(theatre.place(session=7))
    theatre.says(first, blocks=500, running=1)

    assert chosen(theatre.place(session=7)) != first


def test_a_session_whose_worker_is_gone_goes_elsewhere() -> None:
    theatre = two()
    first = theatre.place(session=7).generation.member.address
    theatre.roster.down(first)

    assert chosen(theatre.place(session=7)) != first.name


# -- what there is to place ----------------------------------------------------------------------


def test_the_block_of_the_last_token_is_never_spared() -> None:
    prompt = bytes(range(256)) * 2  # 128 tokens

    ask = make_ask(prompt, BLOCK, hasher=PrefixHasher())

    assert ask.tokens == 128
    assert ask.blocks == sequence_hashes(prompt, BLOCK)[:7]


def test_a_prompt_shorter_than_a_block_has_nothing_to_match() -> None:
    assert make_ask(bytes(4 * BLOCK), BLOCK, hasher=PrefixHasher()).blocks == ()


def test_every_strategy_reaches_every_worker() -> None:
    names: tuple[StrategyName, ...] = ("round_robin", "random", "least_loaded", "power_of_two")
    for strategy in (*names, "kv", "prefix"):
        theatre = Theatre(*(entry("aggregated", i) for i in range(3)), strategy=strategy)

        counts = Counter(chosen(theatre.place()) for _ in range(90))

        assert len(counts) == 3, strategy
        if strategy == "round_robin":
            assert set(counts.values()) == {30}
