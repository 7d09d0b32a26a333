"""/ready: whether a token could be produced now, and nothing less."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from actors.ingress.actor import Ingress
from actors.runtime.node import Hosted
from actors.worker.actor import AggregatedWorker
from actors.worker.options import WorkerOptions
from tests.actors.ingress.clients import completion, fetch
from tests.service import MODEL, Service, aggregated, disaggregated, eventually, simulated

READY: dict[str, Any] = {"ready_timeout_s": 0.3}


async def status_of(ingress: Ingress, path: str = "/ready") -> int:
    return (await fetch(ingress, path)).status


def probes(ingress: Ingress) -> dict[tuple[str, ...], float]:
    [family] = [
        one for one in ingress.metrics.collect() if one.name == "understudy_readiness_probes_total"
    ]
    return {point.labels: point.value for point in family.points}


async def test_ready_is_a_token_that_went_the_whole_way() -> None:
    async with disaggregated() as (service, ingress):
        answer = await fetch(ingress, "/ready")

        assert (answer.status, answer.json["models"]) == (200, {MODEL: True})
        assert service.engine("generation/0").progress > 0
        assert probes(ingress) == {(MODEL, "ready"): 1}


async def test_an_answer_holds_for_a_second_and_is_shared() -> None:
    async with disaggregated() as (_, ingress):
        await asyncio.gather(*(status_of(ingress) for _ in range(20)))
        await status_of(ingress)

        assert probes(ingress) == {(MODEL, "ready"): 1}


@pytest.mark.parametrize("part", ["generation/0", "router/0", "preprocessor/0"])
async def test_a_part_that_is_frozen_makes_it_not_ready(part: str) -> None:
    # Silenced: it stands in the registry as before, and nothing comes of it any more. (Without a
    # context worker the generation worker does it all, so that is ready, and truly so.)
    async with disaggregated(ingress=READY) as (service, ingress):
        await service.silence(part)

        answer = await fetch(ingress, "/ready")
        assert answer.status == 503
        assert answer.json["why"][MODEL]
        assert await status_of(ingress, "/health") == 200
        assert await status_of(ingress, "/live") == 200


@pytest.mark.parametrize("part", ["generation/0", "router/0", "preprocessor/0"])
async def test_a_part_that_is_killed_makes_it_not_ready_at_once(part: str) -> None:
    async with disaggregated() as (service, ingress):
        assert await status_of(ingress) == 200
        await service.kill(part)

        assert await status_of(ingress) == 503


async def test_it_is_ready_again_when_a_successor_is_there() -> None:
    async with aggregated() as (service, ingress):
        await service.kill("aggregated/0")
        assert await status_of(ingress) == 503
        await service.start_worker(AggregatedWorker, "aggregated")
        await eventually(lambda: ingress.fleet.can_serve(MODEL))

        assert await status_of(ingress) == 200


async def test_each_model_is_ready_for_itself() -> None:
    async with aggregated(ingress=READY) as (service, ingress):
        await start_other(service)
        await eventually(lambda: ingress.fleet.can_serve("other"))
        await service.silence("other/0")

        assert await status_of(ingress, f"/ready?model={MODEL}") == 200
        assert await status_of(ingress, "/ready?model=other") == 503
        assert await status_of(ingress, "/ready?model=nobody") == 404
        assert await status_of(ingress) == 200


async def start_other(service: Service) -> None:
    """A worker of a second model."""
    options = msgspec.convert({**simulated(), "model": "other"}, WorkerOptions)
    await service.start(Hosted(actor=AggregatedWorker, role="other", options=options))


async def test_a_probe_shows_in_nobodys_latencies() -> None:
    async with aggregated() as (_, ingress):
        await status_of(ingress)
        await fetch(ingress, "/v1/completions", completion())

        [family] = [
            one for one in ingress.metrics.collect() if one.name == "understudy_requests_total"
        ]
        assert [(point.labels, point.value) for point in family.points] == [((MODEL, "ok"), 1.0)]
