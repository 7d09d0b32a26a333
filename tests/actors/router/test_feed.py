"""Whether a worker's cache is known: numbers, gaps, inventories, silence."""

from __future__ import annotations

import pytest

from actors.messages.cache import Load, Stored
from actors.messages.events import Inventory, Report
from actors.router.feed import (
    ASK_AGAIN_S,
    MUTE_AFTER_S,
    SILENT_AFTER_S,
    Feed,
    Part,
    Reading,
)
from actors.runtime.address import Address
from actors.worker.reports import Reports

ME = Address("context", 0, 5)


def report(number: int, *, events: bool = False) -> Report:
    return Report(ME, number, Load(), 0.0, (Stored(None, (1,)),) if events else ())


def inventory(number: int, part: int = 0, *, last: bool = True, blocks: int = 0) -> Inventory:
    return Inventory(ME, number, part, last, tuple(range(blocks)), Load())


def live(number: int = 4) -> Feed:
    feed = Feed(0.0)
    feed.inventory(inventory(number), 0.0)
    return feed


def test_events_before_the_inventory_are_in_it() -> None:
    feed = Feed(0.0)

    assert feed.report(report(3), 0.0) is Reading.PASS
    assert feed.inventory(inventory(3), 0.0) is Part.BEGIN
    assert feed.report(report(4), 0.0) is Reading.APPLY


def test_a_repeat_brings_nothing() -> None:
    feed = live(4)

    assert feed.report(report(4), 0.0) is Reading.PASS
    assert feed.report(report(5), 0.0) is Reading.APPLY
    assert feed.report(report(5), 0.0) is Reading.PASS


def test_a_missing_number_is_a_gap_until_the_next_inventory() -> None:
    feed = live(4)

    assert feed.report(report(6), 1.0) is Reading.GAP
    feed.ask(1.0)
    assert feed.report(report(7), 1.0) is Reading.PASS
    assert feed.inventory(inventory(7), 1.0) is Part.BEGIN
    assert feed.report(report(8), 1.0) is Reading.APPLY
    assert feed.gaps == 1


def test_a_heartbeat_tells_of_a_lost_last_report() -> None:
    reports = Reports()
    feed = live(0)

    lost = reports.changes(ME, Load(running=1), [], 0.0)
    assert lost is not None
    assert feed.report(reports.heartbeat(ME, 2.0), 2.0) is Reading.GAP


def test_the_parts_of_an_inventory_are_stored_one_after_the_other() -> None:
    feed = Feed(0.0)

    assert feed.inventory(inventory(4, 0, last=False), 0.0) is Part.BEGIN
    assert not feed.live
    assert feed.inventory(inventory(4, 1), 0.0) is Part.STORE
    assert feed.live


@pytest.mark.parametrize("next_part", [inventory(4, 2), inventory(5, 1)])
def test_a_missing_part_means_asking_again(next_part: Inventory) -> None:
    feed = Feed(0.0)
    feed.inventory(inventory(4, 0, last=False), 0.0)

    assert feed.inventory(next_part, 0.0) is Part.AGAIN
    assert not feed.live


def test_an_inventory_that_nobody_waits_for_changes_nothing() -> None:
    assert live(4).inventory(inventory(2), 0.0) is Part.PASS


def test_an_inventory_that_does_not_come_is_asked_for_again() -> None:
    feed = Feed(0.0)

    assert not feed.overdue(ASK_AGAIN_S / 2)
    assert feed.overdue(ASK_AGAIN_S)
    feed.ask(ASK_AGAIN_S)
    assert not feed.overdue(ASK_AGAIN_S)


def test_prompts_without_a_single_cached_block_are_suspicious_after_a_while() -> None:
    feed = live()
    feed.computed(0.0)
    feed.report(report(5), SILENT_AFTER_S)

    assert not feed.check(SILENT_AFTER_S)
    assert "no cached block" in feed.check(SILENT_AFTER_S + 0.1)
    feed.report(report(6, events=True), SILENT_AFTER_S)
    assert not feed.check(SILENT_AFTER_S + 0.1)


def test_a_worker_that_is_never_heard_of_is_suspicious() -> None:
    assert not Feed(0.0).check(MUTE_AFTER_S)
    assert "no report" in Feed(0.0).check(MUTE_AFTER_S + 1)
