"""Engine steps that come at once are sent together, and reports leave with tokens."""

from __future__ import annotations

from typing import Any

import pytest

from actors.messages.events import Report
from actors.messages.frame import Frame
from actors.messages.work import Cancel, Generate, Prefill, Resend
from actors.worker import actor as worker_actor
from actors.worker import publisher
from actors.worker.actor import AggregatedWorker, ContextWorker, Worker
from tests.actors.worker.test_actor import ENDLESS, PROMPT, SEED, chunks_of, key, sampling
from tests.service import Probe, Service, empty, eventually, reference

FOR_EVER_S = 1000.0
STEPS_OF_2_MS: dict[str, Any] = {
    "decode_ms": {"quadratic": 0, "linear": 0, "constant": 2},
    "speedup": 1,
}


@pytest.fixture
def _gathers_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_actor, "GATHER_S", FOR_EVER_S)
    monkeypatch.setattr(worker_actor, "GATHER_AT_MOST_S", FOR_EVER_S)


async def begin(
    service: Service, actor: type[Worker] = AggregatedWorker, role: str = "aggregated"
) -> tuple[Worker, Probe]:
    await service.start_worker(actor, role, **STEPS_OF_2_MS)
    return service.actor(Worker, f"{role}/0"), await service.start_probe("ingress")


@pytest.mark.usefixtures("_gathers_for_ever")
async def test_all_steps_of_a_gathering_and_the_end_of_the_last_sequence_leave_together() -> None:
    async with empty() as service:
        worker, ingress = await begin(service)

        ingress.tell(worker.address, Generate(key(ingress), "r", PROMPT, sampling(20)))
        first = await ingress.take(Frame)
        rest = [await ingress.take(Frame), await ingress.take(Frame)]

        assert [chunk.offset for chunk in first.everything()] == [0]
        chunks = [chunk for frame in (first, *rest) for chunk in frame.everything()]
        assert [token for chunk in chunks for token in chunk.tokens] == reference(PROMPT, SEED, 20)
        assert [chunk.finish for chunk in rest[-1].chunks] == ["length"]
        assert len(rest[0].plain) // 4 == 18


async def test_what_is_gathered_leaves_when_no_other_step_follows_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_actor, "GATHER_S", FOR_EVER_S)
    async with empty() as service:
        worker, ingress = await begin(service)

        ingress.tell(worker.address, Generate(key(ingress), "r", PROMPT, ENDLESS))

        await eventually(lambda: len(ingress.of(Frame)) > 3)


@pytest.mark.usefixtures("_gathers_for_ever")
async def test_what_was_sent_before_is_told_again_behind_what_waits() -> None:
    async with empty() as service:
        worker, ingress = await begin(service)
        ingress.tell(worker.address, Generate(key(ingress), "r", PROMPT, ENDLESS))
        await eventually(lambda: worker.progress()[0] > 10)
        assert len(ingress.of(Frame)) == 1

        ingress.tell(worker.address, Resend(key(ingress), 0))
        await eventually(lambda: len(ingress.of(Frame)) == 3)

        _, waited, again = ingress.of(Frame)
        offsets = [chunk.offset for chunk in waited.everything()]
        assert offsets == list(range(1, len(offsets) + 1))
        assert len(again.chunks[0].tokens) == len(offsets) + 1


@pytest.mark.usefixtures("_gathers_for_ever")
async def test_the_token_of_a_prefill_that_is_handed_over_does_not_wait() -> None:
    async with empty() as service:
        context, ingress = await begin(service, ContextWorker, "context")
        generation = await service.start_probe("generation")

        for number in (1, 2):
            work = Prefill(key(ingress, number), "r", PROMPT, sampling(20), generation.address)
            ingress.tell(context.address, work)
            assert (await ingress.take(Frame)).everything()[0].number == number


@pytest.mark.usefixtures("_gathers_for_ever")
async def test_a_worker_that_stops_sends_what_waits() -> None:
    async with empty() as service:
        worker, ingress = await begin(service)
        ingress.tell(worker.address, Generate(key(ingress), "r", PROMPT, ENDLESS))
        await eventually(lambda: worker.progress()[0] > 10)

        await service.nodes["aggregated/0"].stop()

        await eventually(lambda: len(ingress.of(Frame)) > 1)
        assert len(ingress.of(Frame)[1].everything()) >= 9


async def test_a_report_that_is_due_leaves_with_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "LINGER_S", FOR_EVER_S)
    async with empty() as service:
        router = await service.start_probe("router")
        worker, ingress = await begin(service)

        ingress.tell(worker.address, Generate(key(ingress), "r", PROMPT, sampling(20)))
        await chunks_of(ingress)

        await eventually(lambda: any(report.taken for report in router.of(Report)))


async def test_a_report_that_is_due_leaves_by_itself_where_there_are_no_tokens() -> None:
    async with empty() as service:
        router = await service.start_probe("router")
        worker, ingress = await begin(service)
        ingress.tell(worker.address, Generate(key(ingress), "r", PROMPT, ENDLESS))
        await eventually(lambda: any(report.load.running for report in router.of(Report)))

        ingress.tell(worker.address, Cancel(key(ingress)))

        # Long before the next heartbeat.
        await eventually(lambda: router.of(Report)[-1].load.running == 0)
