"""The fleet: which workers a role knows of, from what the registry says."""

from __future__ import annotations

import msgspec

from actors.messages.cards import Duty, Fleet, IngressCard, WorkerCard, read_card
from actors.runtime.address import Address
from actors.runtime.registry.base import EMPTY_META, Entry, State


def card(model: str = "m", duty: Duty = "aggregated", max_context_tokens: int = 100) -> WorkerCard:
    return WorkerCard(
        model=model,
        tokenizer="t",
        duty=duty,
        engine="simulated",
        max_context_tokens=max_context_tokens,
        block_tokens=16,
        blocks_total=10,
        max_running=4,
        started_at=0.0,
    )


def entry(
    instance: int = 0,
    meta: object = None,
    *,
    role: str = "worker",
    incarnation: int = 5,
    state: State = State.READY,
) -> Entry:
    raw = EMPTY_META if meta is None else msgspec.Raw(msgspec.json.encode(meta))
    return Entry(
        role=role,
        instance=instance,
        incarnation=incarnation,
        state=state,
        node=role,
        host="h",
        pid=1,
        meta=raw,
    )


def test_only_a_worker_s_entry_has_a_worker_s_card() -> None:
    assert read_card(entry(meta=card())) == card()
    assert read_card(entry()) is None
    assert read_card(entry(meta=IngressCard(url="http://127.0.0.1:1"))) is None


def test_entries_of_other_roles_are_passed_over() -> None:
    fleet = Fleet()

    fleet.joined(entry(role="router"))
    fleet.joined(entry(role="ingress", meta=IngressCard(url="http://127.0.0.1:1")))

    assert fleet.workers() == []
    assert not fleet.knows(Address("router"))


def test_workers_serve_their_model_in_their_duty_by_name() -> None:
    fleet = Fleet()
    for instance in (2, 0, 1):
        fleet.joined(entry(instance, card(duty="generation")))
    fleet.joined(entry(3, card("other", "generation")))
    fleet.joined(entry(4, card(duty="context")))

    serving = fleet.serving("m", "generation")

    assert [worker.entry.instance for worker in serving] == [0, 1, 2]
    assert fleet.serving("m", "aggregated") == []


def test_context_workers_alone_cannot_serve() -> None:
    fleet = Fleet()
    fleet.joined(entry(0, card(duty="context")))
    assert not fleet.can_serve("m")

    fleet.joined(entry(1, card(duty="generation")))
    assert fleet.can_serve("m")


def test_a_worker_that_drains_serves_no_more_and_is_still_known() -> None:
    fleet = Fleet()
    fleet.joined(entry(meta=card()))

    fleet.joined(entry(meta=card(), state=State.DRAINING))

    assert not fleet.can_serve("m")
    assert fleet.knows(Address("worker", 0, 5))


def test_the_end_of_a_life_removes_that_life_only() -> None:
    fleet = Fleet()
    fleet.joined(entry(meta=card(), incarnation=5))

    fleet.down(Address("worker", 0, 4))
    assert fleet.can_serve("m")

    fleet.down(Address("worker", 0, 5))
    assert not fleet.can_serve("m")
    assert not fleet.knows(Address("worker", 0, 5))


def test_a_model_is_remembered_with_the_limits_of_a_started_worker() -> None:
    fleet = Fleet()
    fleet.joined(entry(0, card(max_context_tokens=0), state=State.STARTING))
    assert fleet.models()["m"].max_context_tokens == 0

    fleet.joined(entry(0, card(max_context_tokens=100)))
    fleet.joined(entry(1, card(max_context_tokens=0), state=State.STARTING))
    fleet.down(Address("worker", 0, 5))
    fleet.down(Address("worker", 1, 5))

    assert fleet.models() == {"m": card(max_context_tokens=100)}
    assert not fleet.can_serve("m")
