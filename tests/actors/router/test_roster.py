"""Whose reports count."""

from __future__ import annotations

import pytest

from actors.messages.cache import Load, Stored
from actors.messages.events import Inventory, Placement, Report
from actors.messages.key import RequestKey
from actors.runtime.address import Address
from tests.actors.router.fleets import LIFE, Theatre, entry

BLOCKS = (1, 2, 3)


@pytest.mark.parametrize("life", [LIFE - 1, LIFE + 1])
def test_what_another_life_of_a_worker_tells_of_its_cache_and_load_does_not_count(
    life: int,
) -> None:
    theatre = Theatre(entry("context"), entry("generation"))
    roster, member = theatre.roster, theatre.member("context")
    other = Address("context", 0, life)
    load = Load(running=4, waiting=9, waiting_tokens=900, blocks_used=500)

    told = [
        roster.report(Report(other, 1, load, 0.0, (Stored(None, BLOCKS),)), 0.0),
        roster.inventory(Inventory(other, 7, 0, True, BLOCKS, load), 0.0),
    ]

    assert told == [False, False], "and nobody asks it for more"
    assert theatre.index.count(member.slot) == 0
    assert member.load.reported == Load()
    # The life that is known goes on being heard.
    theatre.says("context", stored=BLOCKS)
    assert theatre.index.count(member.slot) == len(BLOCKS)


def expected(theatre: Theatre, name: str) -> int:
    return theatre.member(name).load.expected


def place(theatre: Theatre, name: str, number: int, epoch: int = 0) -> None:
    key = RequestKey(Address("ingress", 0, 1), number, epoch)
    theatre.roster.place(Placement(key, theatre.member(name).address, 100, 7), 0.0)


def test_after_a_lost_report_nothing_is_expected_of_any_worker() -> None:
    theatre = Theatre(entry("context"), entry("generation"), entry("generation", 1))
    theatre.says("context", tokens=10)
    for number, name in enumerate(("context", "generation", "generation/1")):
        place(theatre, name, number)
    context = theatre.member("context").address

    assert theatre.roster.report(Report(context, 3, Load(), 0.0), 0.0), "report 2 is missing"
    assert expected(theatre, "context") == 1, "until the inventory says how busy it is"
    theatre.roster.inventory(Inventory(context, 3, 0, True, (), Load()), 0.1)

    names = ("context", "generation", "generation/1")
    assert [expected(theatre, name) for name in names] == [0, 0, 0]


def test_the_inventory_of_a_worker_that_joins_changes_nothing_at_others() -> None:
    theatre = Theatre(entry("generation"))
    place(theatre, "generation", 1)

    theatre.join(entry("generation", 1))

    assert expected(theatre, "generation") == 1


def test_a_request_that_is_run_again_is_no_longer_expected_where_it_was_lost() -> None:
    theatre = Theatre(entry("generation"), entry("generation", 1))
    place(theatre, "generation", 1)
    place(theatre, "generation", 2)

    # Nobody heard of the attempt between.
    place(theatre, "generation/1", 1, epoch=2)

    assert expected(theatre, "generation") == 1
    assert expected(theatre, "generation/1") == 1


def test_what_a_context_worker_was_to_hand_over_is_not_expected_after_its_end() -> None:
    theatre = Theatre(entry("context"), entry("generation"))
    place(theatre, "context", 1)
    place(theatre, "generation", 1)

    theatre.roster.down(theatre.member("context").address)

    assert expected(theatre, "generation") == 0
