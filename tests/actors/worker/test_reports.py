"""A worker's reports: what they say, and that nothing is missing between them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from actors.messages.cache import Load, Removed, Stored
from actors.messages.events import INVENTORY_PART_BLOCKS, Inventory, Report, TellInventory
from actors.messages.key import RequestKey
from actors.messages.sampling import Sampling
from actors.messages.work import Generate
from actors.runtime.address import Address
from actors.worker.actor import AggregatedWorker, Worker
from actors.worker.reports import MAX_TAKEN, Reports
from tests.service import Probe, Service, empty, eventually, packed

ME = Address("context", 0, 5)
KEY = RequestKey(Address("ingress", 0, 1), 7, 0)
BLOCK = 16


def test_an_engine_at_rest_has_nothing_to_report() -> None:
    assert Reports().changes(ME, Load(), [], 1.0) is None


def test_each_report_has_the_next_number_and_says_what_is_new_once() -> None:
    reports = Reports()
    stored = Stored(None, (1, 2))
    reports.take(KEY)

    first = reports.changes(ME, Load(running=1), [stored], 1.0)
    second = reports.changes(ME, Load(running=2), [], 2.0)

    assert first == Report(ME, 1, Load(running=1), 1.0, (stored,), (KEY,))
    assert second == Report(ME, 2, Load(running=2), 2.0)
    assert reports.changes(ME, Load(running=2), [], 3.0) is None


def test_a_heartbeat_has_the_next_number_and_no_events() -> None:
    reports = Reports()
    reports.changes(ME, Load(running=1), [Removed((1,))], 1.0)

    assert reports.heartbeat(ME, 9.0) == Report(ME, 2, Load(running=1), 9.0)
    assert reports.inventory(ME, [])[0].number == 2


def test_an_inventory_is_complete_up_to_the_last_report_and_comes_in_parts() -> None:
    reports = Reports()
    reports.changes(ME, Load(running=1), [], 1.0)
    blocks = tuple(range(2 * INVENTORY_PART_BLOCKS + 1))

    parts = reports.inventory(ME, [Stored(None, blocks[:10]), Stored(9, blocks[10:])])

    assert [part.number for part in parts] == [1, 1, 1]
    assert [(part.part, part.last) for part in parts] == [(0, False), (1, False), (2, True)]
    assert tuple(one for part in parts for one in part.blocks) == blocks


def test_an_empty_cache_is_an_inventory_too() -> None:
    assert Reports().inventory(ME, []) == [Inventory(ME, 0, 0, last=True, blocks=(), load=Load())]


def test_the_keys_of_work_taken_are_bounded() -> None:
    reports = Reports()
    for number in range(MAX_TAKEN + 5):
        reports.take(RequestKey(KEY.ingress, number, 0))

    report = reports.changes(ME, Load(), [], 1.0)

    assert report is not None
    assert len(report.taken) == MAX_TAKEN
    assert report.taken[-1].number == MAX_TAKEN + 4


async def start(service: Service, **engine: Any) -> tuple[Worker, Probe, Probe]:
    await service.start_worker(AggregatedWorker, "aggregated", **engine)
    ingress = await service.start_probe("ingress")
    return service.actor(Worker, "aggregated/0"), ingress, await service.start_probe("router")


def ask(ingress: Probe, worker: Worker, number: int, *, tokens: int = 64) -> RequestKey:
    key = RequestKey(ingress.address, number, 0)
    prompt = packed([number * 1000 + at for at in range(tokens)])
    ingress.tell(worker.address, Generate(key, "r", prompt, Sampling(max_tokens=2)))
    return key


async def test_a_worker_reports_its_work_and_its_cache_to_a_router() -> None:
    async with empty() as service:
        worker, ingress, router = await start(service)

        key = ask(ingress, worker, 1)
        await eventually(lambda: any(r.events for r in router.of(Report)))
        await eventually(lambda: router.of(Report)[-1].load.running == 0)

        reports = router.of(Report)
        assert [key] == [one for report in reports for one in report.taken]
        assert [r.number for r in reports] == list(range(1, len(reports) + 1))
        stored = [e for r in reports for e in r.events if isinstance(e, Stored)]
        assert sum(len(event.blocks) for event in stored) == 64 // BLOCK


async def test_reports_keep_their_distance_however_fast_the_engine_steps() -> None:
    async with empty() as service:
        worker, ingress, router = await start(service, speedup=100)
        began = worker.clock.now()

        for number in range(20):
            ask(ingress, worker, number)
        await eventually(lambda: service.at_rest("aggregated/0"))
        await eventually(lambda: bool(router.of(Report)) and not router.of(Report)[-1].load.running)

        elapsed_s = worker.clock.now() - began
        assert len(router.of(Report)) <= 2 + elapsed_s / worker.options.report_every_s


async def test_reports_after_an_inventory_go_on_where_it_ends() -> None:
    async with empty() as service:
        worker, ingress, first = await start(service)
        ask(ingress, worker, 1)
        await eventually(lambda: any(r.events for r in first.of(Report)))
        late = await service.start_probe("router", 1)

        late.tell(worker.address, TellInventory(late.address))
        inventory = await late.take(Inventory)
        ask(ingress, worker, 2)
        await eventually(lambda: any(r.events for r in late.of(Report)))

        after = [r for r in late.of(Report) if r.number > inventory.number]
        assert after[0].number == inventory.number + 1
        assert all(b.number == a.number + 1 for a, b in pairwise(after))
        assert len(inventory.blocks) == 64 // BLOCK
        # The first router has missed nothing for it.
        numbers = [r.number for r in first.of(Report)]
        assert numbers == list(range(1, len(numbers) + 1))
