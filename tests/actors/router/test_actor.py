"""The router actor: who is told what."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import structlog

from actors.messages.assign import Assigned, Rejected
from actors.messages.hints import Hints
from actors.messages.key import RequestKey
from actors.messages.route import Route
from actors.messages.sampling import Sampling
from actors.router.actor import Router
from actors.router.load import EXPECTED_S
from actors.router.options import AdmissionOptions, RouterOptions
from actors.runtime.node import Hosted
from actors.worker.actor import AggregatedWorker, ContextWorker, GenerationWorker
from tests.service import MODEL, Probe, Service, empty, eventually, packed

SAMPLING = Sampling(max_tokens=4)
PROMPT = bytes([1, 0, 0, 0, 2, 0, 0, 0])


def route(ingress: Probe, number: int = 1, model: str = MODEL) -> Route:
    key = RequestKey(ingress.address, number, 0)
    return Route(key, f"r{number}", model, PROMPT, SAMPLING, resumed=1)


async def start(service: Service, **options: Any) -> tuple[Router, Probe]:
    """A router, and a probe in the place of an ingress."""
    decoded = RouterOptions(**options)
    await service.start(Hosted(actor=Router, role="router", options=decoded))
    return service.actor(Router, "router/0"), await service.start_probe("ingress")


async def synced(router: Router, workers: int) -> None:
    """Wait until the router has so many workers' inventories."""

    def done() -> bool:
        gauges = router.gauges()
        return gauges["workers"] == workers and gauges["unsynced_workers"] == 0

    await eventually(done)


async def test_the_ingress_learns_of_both_workers_and_the_context_worker_of_its_work() -> None:
    async with empty() as service:
        await service.start_worker(ContextWorker, "context")
        await service.start_worker(GenerationWorker, "generation")
        router, ingress = await start(service)
        await synced(router, 2)
        sent: list[str] = []

        def note(subject: str, _frame: bytes) -> list[float]:
            sent.append(subject)
            return [0.0]

        service.bus.fate = note

        ingress.tell(router.address, route(ingress))
        assigned = await ingress.take(Assigned)

        context = service.actor(ContextWorker, "context/0")
        generation = service.actor(GenerationWorker, "generation/0")
        assert assigned.context == context.address
        assert assigned.generation == generation.address
        assert assigned.prompt_tokens == 2
        mailboxes = [subject for subject in sent if ".a." in subject]
        assert mailboxes[1:3] == ["test.a.ingress.0", "test.a.context.0"], "assigned comes first"


async def test_an_aggregated_worker_gets_the_request_whole() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated")
        router, ingress = await start(service)

        ingress.tell(router.address, route(ingress))

        assigned = await ingress.take(Assigned)
        assert assigned.context is None
        assert assigned.generation == service.actor(AggregatedWorker, "aggregated/0").address


async def test_nobody_to_run_it_is_an_answer() -> None:
    async with empty() as service:
        router, ingress = await start(service)

        ingress.tell(router.address, route(ingress))

        rejected = await ingress.take(Rejected)
        assert (rejected.why, rejected.text) == ("unavailable", f"no worker of {MODEL} is ready")
        assert rejected.retry_after_s > 0


async def test_another_model_is_not_given_to_these_workers() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated")
        router, ingress = await start(service)

        ingress.tell(router.address, route(ingress, model="other"))

        assert (await ingress.take(Rejected)).why == "unavailable"


async def test_a_worker_that_went_unnoticed_costs_one_attempt_only() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated", 0)
        await service.start_worker(AggregatedWorker, "aggregated", 1)
        router, ingress = await start(service)
        await service.silence("aggregated/0")

        for number in range(4):
            ingress.tell(router.address, route(ingress, number))
            await eventually(lambda: len(ingress.of(Assigned)) == number + 1)  # noqa: B023
            assigned = ingress.of(Assigned)[number]
            if assigned.generation.instance == 0:
                assert (await ingress.take(Rejected)).why == "lost"

        instances = [assigned.generation.instance for assigned in ingress.of(Assigned)]
        assert instances.count(0) == 1, "it is not chosen again"
        assert not ingress.of(Rejected)


async def test_work_that_a_full_or_stopping_worker_returns_is_lost() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated")
        router, ingress = await start(service)
        worker = service.nodes["aggregated/0"].cells[0]
        worker._open = False

        ingress.tell(router.address, route(ingress))

        rejected = await ingress.take(Rejected)
        assert (rejected.why, rejected.text) == ("lost", f"{worker.entry.address}: is stopping")


async def test_a_worker_known_to_be_gone_is_not_told() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated")
        router, ingress = await start(service)
        gone = service.actor(AggregatedWorker, "aggregated/0").address
        # The node has heard of the end already, the actor's own message of it is still queued.
        router.node.directory.ended(gone, "killed")

        ingress.tell(router.address, route(ingress))

        rejected = await ingress.take(Rejected)
        assert rejected.why == "lost"
        assert str(gone) in rejected.text


async def test_an_ingress_that_has_gone_is_no_error() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated")
        router, ingress = await start(service)
        other = await service.start_probe("ingress", 1)
        request = route(ingress)
        await service.kill("ingress/0")

        other.tell(router.address, request)
        other.tell(router.address, route(other))

        assert (await other.take(Assigned)).key == route(other).key
        await eventually(lambda: service.at_rest("aggregated/0"))
        assert service.engine("aggregated/0").load().waiting == 0


async def test_a_successor_is_chosen_once_it_is_ready() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated")
        router, ingress = await start(service)
        await service.kill("aggregated/0")
        ingress.tell(router.address, route(ingress, 1))
        assert (await ingress.take(Rejected)).why == "unavailable"

        await service.start_worker(AggregatedWorker, "aggregated")
        ingress.tell(router.address, route(ingress, 2))

        successor = service.actor(AggregatedWorker, "aggregated/0").address
        assert (await ingress.take(Assigned)).generation == successor


async def test_each_strategy_spreads_requests_over_the_workers() -> None:
    for strategy in ("kv", "round_robin", "random", "least_loaded", "power_of_two"):
        async with empty() as service:
            for instance in range(2):
                await service.start_worker(AggregatedWorker, "aggregated", instance)
            router, ingress = await start(service, strategy=strategy)

            for number in range(40):
                ingress.tell(router.address, route(ingress, number))
            await eventually(lambda: len(ingress.of(Assigned)) == 40)  # noqa: B023

            chosen = {assigned.generation.instance for assigned in ingress.of(Assigned)}
            assert chosen == {0, 1}


# -- caches, load, gaps --------------------------------------------------------------------------


def prompt_of(number: int, tokens: int = 128) -> bytes:
    return packed([number * 1000 + at for at in range(tokens)])


async def run(router: Router, ingress: Probe, number: int, prompt: bytes, **hints: Any) -> Assigned:
    key = RequestKey(ingress.address, number, 0)
    ingress.tell(
        router.address,
        Route(key, f"r{number}", MODEL, prompt, SAMPLING, hints=Hints(**hints)),
    )
    return await ingress.take(Assigned)


async def two_workers(service: Service, **options: Any) -> tuple[Router, Probe]:
    for instance in range(2):
        await service.start_worker(AggregatedWorker, "aggregated", instance)
    router, ingress = await start(service, **options)
    await synced(router, 2)
    return router, ingress


async def test_a_prompt_goes_where_its_prefix_is() -> None:
    async with empty() as service:
        router, ingress = await two_workers(service)
        first = [await run(router, ingress, n, prompt_of(n)) for n in range(8)]
        await eventually(lambda: len(router.index) == 8 * 128 // 16)

        again = [await run(router, ingress, 100 + n, prompt_of(n)) for n in range(8)]

        assert [one.generation for one in again] == [one.generation for one in first]
        # All but the block of the last token.
        assert {one.matched_tokens for one in again} == {112}


async def test_a_router_that_starts_late_learns_what_is_cached() -> None:
    async with empty() as service:
        router, ingress = await two_workers(service)
        first = await run(router, ingress, 1, prompt_of(1))
        await eventually(lambda: len(router.index) == 8)

        await service.kill("router/0")
        await service.start(Hosted(actor=Router, role="router"))
        router = service.actor(Router, "router/0")
        await synced(router, 2)

        again = await run(router, ingress, 2, prompt_of(1))
        assert (again.generation, again.matched_tokens) == (first.generation, 112)


async def test_a_lost_report_is_noticed_and_made_up_for() -> None:
    async with empty() as service:
        router, ingress = await two_workers(service)
        lost: list[int] = []

        def lose_one(_subject: str, frame: bytes) -> list[float]:
            if b"Report" in frame and b"stored" in frame and not lost:
                lost.append(1)
                return []
            return [0.0]

        service.bus.fate = lose_one

        await run(router, ingress, 1, prompt_of(1))
        await eventually(lambda: bool(lost))
        number = 2
        while router.gauges()["event_gaps"] == 0:
            await run(router, ingress, number, prompt_of(number))
            number += 1

        await eventually(lambda: len(router.index) == (number - 1) * 8)
        assert router.gauges()["unsynced_workers"] == 0


async def test_the_blocks_of_a_lost_worker_are_gone_at_once() -> None:
    async with empty() as service:
        router, ingress = await two_workers(service)
        first = await run(router, ingress, 1, prompt_of(1))
        await eventually(lambda: len(router.index) == 8)

        await service.kill(first.generation.name)
        await eventually(lambda: router.gauges()["workers"] == 1)

        again = await run(router, ingress, 2, prompt_of(1))
        assert again.generation != first.generation
        assert again.matched_tokens == 0


async def test_work_between_two_reports_is_spread_by_the_router_s_own_count() -> None:
    async with empty() as service:
        router, ingress = await two_workers(service, strategy="least_loaded")
        service.bus.fate = lambda _, frame: [] if b"Report" in frame else [0.0]

        for number in range(20):
            ingress.tell(router.address, route(ingress, number))
        await eventually(lambda: len(ingress.of(Assigned)) == 20)

        instances = [one.generation.instance for one in ingress.of(Assigned)]
        assert instances.count(0) == 10


async def test_routers_tell_each_other_what_they_placed() -> None:
    async with empty() as service:
        router, ingress = await two_workers(service)
        await service.start(Hosted(actor=Router, role="router", instance=1))
        other = service.actor(Router, "router/1")
        await synced(other, 2)
        await eventually(lambda: len(router.directory.ready("router")) == 2)
        service.bus.fate = lambda _, frame: [] if b"Report" in frame else [0.0]

        for number in range(4):
            await run(router, ingress, number, prompt_of(number))

        def heard() -> bool:
            return sum(member.load.requests for member in other.roster.members()) == 4

        await eventually(heard)
        assert other.index.predicted == 4 * 7, "all blocks but that of the last token"


async def test_a_worker_that_tells_of_no_block_is_reported_loudly() -> None:
    async with empty() as service:
        router, _ = await two_workers(service)
        service.bus.fate = lambda _, frame: [] if b"Report" in frame else [0.0]
        now = router.clock.now()
        member = next(router.roster.members())

        with structlog.testing.capture_logs() as logs:
            router._check(member, now + 100)
            router._check(member, now + 100)

        assert [entry["event"] for entry in logs] == ["worker_silent"]
        assert router.gauges()["silent_workers"] == 1
        [trouble] = router.troubles()
        assert member.address.name in trouble
        assert "no report" in trouble
        router._check(member, now)
        assert router.gauges()["silent_workers"] == 0


async def test_fallback_prefills_are_counted_and_said() -> None:
    async with empty() as service:
        await service.start_worker(ContextWorker, "context")
        await service.start_worker(GenerationWorker, "generation")
        router, ingress = await start(service)
        await synced(router, 2)
        await service.kill("context/0")
        await eventually(lambda: router.gauges()["workers"] == 1)

        await run(router, ingress, 1, prompt_of(1))

        gauges = router.gauges()
        assert (gauges["fallback_no_context"], gauges["models_without_context"]) == (1, 1)
        assert router.troubles() == [f"no context worker of {MODEL}: generation workers prefill"]


async def test_a_model_without_generation_workers_is_a_trouble() -> None:
    async with empty() as service:
        await service.start_worker(ContextWorker, "context")
        router, _ = await start(service)
        await synced(router, 1)

        [trouble] = router.troubles()

        assert f"no generation worker of {MODEL}" in trouble


async def test_a_router_that_leaves_sends_its_queue_back_to_be_submitted_again() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated", max_running=1, speedup=1)
        router, ingress = await start(service, admission=AdmissionOptions(fill=1.0))
        await synced(router, 1)
        for number in range(3):
            ingress.tell(router.address, route(ingress, number))
        await eventually(lambda: router.gauges()["waiting"] == 2)
        numbers = {family.name: family.points for family in router.metrics.collect()}
        assert [p.value for p in numbers["understudy_router_queued_requests"]] == [2]
        assert [p.value for p in numbers["understudy_router_requests_queued_total"]] == [2]
        assert [p.value for p in numbers["understudy_router_requests_refused_total"]] == [0]

        await router.draining()

        assert [(await ingress.take(Rejected)).why for _ in range(2)] == ["lost", "lost"]


async def test_a_queue_whose_workers_are_gone_is_answered() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated", max_running=1, speedup=1)
        router, ingress = await start(service, admission=AdmissionOptions(fill=1.0))
        await synced(router, 1)
        for number in range(2):
            ingress.tell(router.address, route(ingress, number))
        await eventually(lambda: router.gauges()["waiting"] == 1)

        await service.kill("aggregated/0")

        assert (await ingress.take(Rejected)).why == "unavailable"


async def test_a_prompt_that_ends_at_its_first_token_leaves_no_load_behind() -> None:
    async with empty() as service:
        await service.start_worker(ContextWorker, "context")
        await service.start_worker(GenerationWorker, "generation")
        router, ingress = await start(service)
        await synced(router, 2)

        for number in range(1, 21):
            one = msgspec.structs.replace(route(ingress, number), sampling=Sampling(max_tokens=1))
            ingress.tell(router.address, one)

        def settled() -> bool:
            loads = [member.load for member in router.roster.members()]
            return router.statistics.decisions == 20 and all(
                (load.requests, load.blocks, load.expected) == (0, 0, 0) for load in loads
            )

        # Long before the router's own estimate runs out.
        async with asyncio.timeout(EXPECTED_S / 2):
            await eventually(settled)
