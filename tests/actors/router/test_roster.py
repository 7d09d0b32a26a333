"""Whose reports count."""

from __future__ import annotations

import pytest

from actors.messages.cache import Load, Stored
from actors.messages.events import Inventory, Report
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
