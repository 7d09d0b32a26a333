"""Placement: which workers run a request."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest

from actors.messages.cards import Duty, Fleet, WorkerCard
from actors.router.placement import NoPlacement, Random, RoundRobin, place
from actors.runtime.address import Address
from actors.runtime.registry.base import Entry, State


def entry(
    role: str, instance: int, duty: Duty, *, model: str = "m", state: State = State.READY
) -> Entry:
    card = WorkerCard(
        model=model,
        tokenizer="t",
        duty=duty,
        engine="simulated",
        max_context_tokens=100,
        block_tokens=16,
        blocks_total=10,
        max_running=4,
        started_at=0.0,
    )
    return Entry(
        role=role,
        instance=instance,
        incarnation=5,
        state=state,
        node=role,
        host="h",
        pid=1,
        meta=msgspec.Raw(msgspec.json.encode(card)),
    )


def fleet(*entries: Entry) -> Fleet:
    made = Fleet()
    for one in entries:
        made.joined(one)
    return made


def test_a_context_and_a_generation_worker_work_together() -> None:
    both = fleet(entry("context", 0, "context"), entry("generation", 0, "generation"))

    placement = place(both, "m", RoundRobin())

    assert placement.context == Address("context", 0, 5)
    assert placement.generation == Address("generation", 0, 5)


def test_an_aggregated_worker_works_alone() -> None:
    placement = place(fleet(entry("aggregated", 0, "aggregated")), "m", RoundRobin())

    assert placement.context is None
    assert placement.generation == Address("aggregated", 0, 5)


def test_generation_workers_prefill_when_no_context_worker_is_left() -> None:
    placement = place(fleet(entry("generation", 0, "generation")), "m", RoundRobin())

    assert placement.context is None


def test_context_workers_alone_serve_nothing() -> None:
    with pytest.raises(NoPlacement, match="no generation worker of m is ready"):
        place(fleet(entry("context", 0, "context")), "m", RoundRobin())


def test_another_model_is_not_served() -> None:
    with pytest.raises(NoPlacement, match="no worker of other is ready"):
        place(fleet(entry("aggregated", 0, "aggregated")), "other", RoundRobin())


@pytest.mark.parametrize("state", [State.STARTING, State.DRAINING])
def test_a_worker_that_is_not_ready_gets_nothing(state: State) -> None:
    with pytest.raises(NoPlacement):
        place(fleet(entry("aggregated", 0, "aggregated", state=state)), "m", RoundRobin())


def test_round_robin_gives_every_worker_the_same_share() -> None:
    workers = fleet(*(entry("aggregated", i, "aggregated") for i in range(3)))
    strategy = RoundRobin()

    chosen = Counter(place(workers, "m", strategy).generation.instance for _ in range(30))

    assert chosen == {0: 10, 1: 10, 2: 10}


def test_random_reaches_every_worker() -> None:
    workers = fleet(*(entry("aggregated", i, "aggregated") for i in range(3)))
    strategy = Random(random.Random(0))

    chosen = {place(workers, "m", strategy).generation.instance for _ in range(100)}

    assert chosen == {0, 1, 2}


def test_the_end_of_an_older_life_does_not_remove_the_successor() -> None:
    workers = fleet(entry("aggregated", 0, "aggregated"))

    workers.down(Address("aggregated", 0, 4))

    assert workers.can_serve("m")


def test_a_model_is_remembered_when_its_workers_are_gone() -> None:
    workers = fleet(entry("aggregated", 0, "aggregated"))

    workers.down(Address("aggregated", 0, 5))

    assert "m" in workers.models()
    assert not workers.can_serve("m")


def test_a_worker_to_avoid_counts_as_not_ready() -> None:
    workers = fleet(*(entry("aggregated", i, "aggregated") for i in range(2)))
    strategy = RoundRobin()

    chosen = {
        place(workers, "m", strategy, {Address("aggregated", 0, 5)}).generation.instance
        for _ in range(4)
    }

    assert chosen == {1}
    with pytest.raises(NoPlacement):
        place(workers, "m", strategy, {Address("aggregated", i, 5) for i in range(2)})
