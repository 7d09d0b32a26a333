"""The worker actor with a simulated engine: what it sends, and to whom."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.messages.cards import read_card
from actors.messages.frame import Chunk, Frame
from actors.messages.key import RequestKey
from actors.messages.sampling import Sampling
from actors.messages.work import Cancel, Decode, Fetched, Generate, Prefill
from actors.runtime.address import Address
from actors.runtime.errors import ActorFailed
from actors.runtime.registry.base import State
from actors.worker.actor import AggregatedWorker, ContextWorker, GenerationWorker, Worker
from tests.service import CAPITALS, MODEL, Probe, Service, empty, eventually, reference, simulated

PROMPT = bytes([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0])
SEED = 7
ENDLESS = Sampling(max_tokens=1_000_000, seed=SEED)
UNHURRIED: dict[str, Any] = {"speedup": 5}
"""A step takes about a millisecond: what is `ENDLESS` outlives every test."""


def sampling(max_tokens: int) -> Sampling:
    return Sampling(max_tokens=max_tokens, seed=SEED)


async def chunks_of(probe: Probe, count: int = 1) -> list[Chunk]:
    """Chunks as they come, until so many were final."""
    found: list[Chunk] = []
    while sum(1 for chunk in found if chunk.finish) < count:
        found += (await probe.take(Frame)).everything()
    return found


def key(probe: Probe, number: int = 1, epoch: int = 0) -> RequestKey:
    return RequestKey(probe.address, number, epoch)


async def start(service: Service, actor: type[Worker], role: str, **engine: Any) -> Worker:
    await service.start_worker(actor, role, **engine)
    return service.actor(Worker, f"{role}/0")


async def test_a_whole_request_is_answered_with_the_model_s_tokens() -> None:
    async with empty() as service:
        worker = await start(service, AggregatedWorker, "aggregated")
        ingress = await service.start_probe("ingress")

        ingress.tell(worker.address, Generate(key(ingress), "r", PROMPT, sampling(20)))
        chunks = await chunks_of(ingress)

        assert [t for chunk in chunks for t in chunk.tokens] == reference(PROMPT, SEED, 20)
        assert [chunk.offset for chunk in chunks] == list(range(20))
        assert chunks[-1].finish == "length"
        assert service.at_rest("aggregated/0")


async def test_many_requests_of_one_ingress_share_a_frame_a_step() -> None:
    async with empty() as service:
        worker = await start(service, AggregatedWorker, "aggregated", speedup=2)
        ingress = await service.start_probe("ingress")

        for number in range(8):
            ingress.tell(worker.address, Generate(key(ingress, number), "r", PROMPT, sampling(10)))
        await eventually(lambda: worker.progress()[0] >= 10)
        await eventually(lambda: service.at_rest("aggregated/0"))

        assert len(ingress.of(Frame)) <= worker.progress()[0]
        assert max(len(frame.everything()) for frame in ingress.of(Frame)) == 8


async def test_a_prefill_goes_on_at_the_generation_worker_and_lets_the_blocks_go() -> None:
    async with empty() as service:
        context = await start(service, ContextWorker, "context")
        generation = await start(service, GenerationWorker, "generation")
        ingress = await service.start_probe("ingress")

        work = Prefill(key(ingress), "r", PROMPT, sampling(20), generation.address)
        ingress.tell(context.address, work)
        chunks = await chunks_of(ingress)

        by_offset = sorted(chunks, key=lambda chunk: chunk.offset)
        assert [t for chunk in by_offset for t in chunk.tokens] == reference(PROMPT, SEED, 20)
        await eventually(lambda: service.at_rest("context/0"))
        assert service.at_rest("generation/0")


async def test_the_context_worker_sends_the_first_token_and_the_handoff() -> None:
    async with empty() as service:
        context = await start(service, ContextWorker, "context")
        generation = await service.start_probe("generation")
        ingress = await service.start_probe("ingress")

        work = Prefill(key(ingress), "r", PROMPT, sampling(20), generation.address, resumed=1)
        ingress.tell(context.address, work)
        frame, decode = await ingress.take(Frame), await generation.take(Decode)

        [first] = reference(PROMPT[:8], SEED, 2)[1:]
        assert frame == Frame(
            context.address, [Chunk(1, 0, 0, [first], prompt_tokens=len(PROMPT) // 4)]
        )
        assert (decode.first_token, decode.context) == (first, context.address)
        assert (decode.sampling, decode.resumed) == (sampling(20), 1)
        assert not service.at_rest("context/0"), "the blocks wait to be fetched"

        generation.tell(context.address, Fetched(decode.key))
        await eventually(lambda: service.at_rest("context/0"))


async def test_a_generation_worker_that_refuses_ends_the_attempt() -> None:
    async with empty() as service:
        context = await start(service, ContextWorker, "context")
        await service.start_probe("generation")
        ingress = await service.start_probe("ingress")

        past_life = Address("generation", 0, 1)
        ingress.tell(context.address, Prefill(key(ingress), "r", PROMPT, sampling(20), past_life))
        *_, last = await chunks_of(ingress)

        assert (last.offset, last.finish) == (1, "error")
        assert last.error.startswith("generation/0")
        await eventually(lambda: service.at_rest("context/0"))


async def test_a_decode_whose_blocks_do_not_come_ends_in_an_error_and_frees_them() -> None:
    async with empty() as service:
        faults = [{"do": "fail_handoff"}]
        context = await start(service, ContextWorker, "context")
        generation = await start(service, GenerationWorker, "generation", faults=faults)
        ingress = await service.start_probe("ingress")

        work = Prefill(key(ingress), "r", PROMPT, sampling(20), generation.address)
        ingress.tell(context.address, work)
        *_, last = await chunks_of(ingress)

        assert (last.offset, last.finish) == (1, "error")
        assert service.engine("generation/0").faults_fired == {"fail_handoff": 1}
        await eventually(lambda: service.at_rest("context/0"))


async def test_a_request_the_engine_refuses_ends_in_an_error_chunk() -> None:
    async with empty() as service:
        worker = await start(service, AggregatedWorker, "aggregated", max_context_tokens=2)
        ingress = await service.start_probe("ingress")

        ingress.tell(worker.address, Generate(key(ingress), "r", PROMPT, sampling(1)))
        [chunk] = await chunks_of(ingress)

        assert (chunk.offset, chunk.tokens, chunk.finish) == (0, [], "error")
        assert "no token can follow" in chunk.error
        assert service.at_rest("aggregated/0")


async def test_a_refused_decode_lets_the_blocks_go() -> None:
    async with empty() as service:
        generation = await start(service, GenerationWorker, "generation", max_context_tokens=2)
        context, ingress = (
            await service.start_probe("context"),
            await service.start_probe("ingress"),
        )

        decode = Decode(key(ingress), "r", PROMPT, sampling(9), context.address, 5, b"ticket")
        context.tell(generation.address, decode)

        assert (await context.take(Fetched)).key == key(ingress)
        [chunk] = await chunks_of(ingress)
        assert (chunk.offset, chunk.finish) == (1, "error")


async def test_a_cancelled_request_stops_at_the_engine_and_says_no_more() -> None:
    async with empty() as service:
        worker = await start(service, AggregatedWorker, "aggregated", **UNHURRIED)
        ingress = await service.start_probe("ingress")

        ingress.tell(worker.address, Generate(key(ingress), "r", PROMPT, ENDLESS))
        await ingress.take(Frame)
        ingress.tell(worker.address, Cancel(key(ingress)))

        await eventually(lambda: service.at_rest("aggregated/0"))
        assert not any(chunk.finish for frame in ingress.of(Frame) for chunk in frame.everything())


async def test_a_cancelled_decode_lets_the_blocks_go() -> None:
    async with empty() as service:
        generation = await start(service, GenerationWorker, "generation", speedup=1e-6)
        context_worker = await start(service, ContextWorker, "context")
        ingress = await service.start_probe("ingress")

        work = Prefill(key(ingress), "r", PROMPT, ENDLESS, generation.address)
        ingress.tell(context_worker.address, work)
        await eventually(lambda: generation.progress()[1])
        ingress.tell(generation.address, Cancel(key(ingress)))

        await eventually(lambda: service.at_rest("context/0"))
        assert service.at_rest("generation/0")


async def test_a_cancel_of_another_attempt_changes_nothing() -> None:
    async with empty() as service:
        worker = await start(service, AggregatedWorker, "aggregated", **UNHURRIED)
        ingress = await service.start_probe("ingress")

        ingress.tell(worker.address, Generate(key(ingress, epoch=1), "r", PROMPT, sampling(50)))
        ingress.tell(worker.address, Cancel(key(ingress, epoch=0)))

        *_, last = await chunks_of(ingress)
        assert (last.offset, last.finish) == (49, "length")


async def test_a_later_attempt_takes_the_place_of_the_one_running() -> None:
    async with empty() as service:
        worker = await start(service, AggregatedWorker, "aggregated", **UNHURRIED)
        ingress = await service.start_probe("ingress")

        ingress.tell(worker.address, Generate(key(ingress, epoch=0), "r", PROMPT, ENDLESS))
        await ingress.take(Frame)
        ingress.tell(worker.address, Generate(key(ingress, epoch=1), "r", PROMPT, sampling(5)))

        *_, last = await chunks_of(ingress)
        assert (last.epoch, last.finish) == (1, "length")
        assert service.at_rest("aggregated/0")


async def test_a_lost_ingress_takes_its_requests_with_it() -> None:
    async with empty() as service:
        worker = await start(service, AggregatedWorker, "aggregated", **UNHURRIED)
        lost = await service.start_probe("ingress", 0)
        other = await service.start_probe("ingress", 1)
        for number in range(3):
            lost.tell(worker.address, Generate(key(lost, number), "r", PROMPT, ENDLESS))
        other.tell(worker.address, Generate(key(other), "r", PROMPT, sampling(100)))
        await lost.take(Frame)

        await service.kill("ingress/0")

        *_, last = await chunks_of(other)
        assert (last.offset, last.finish) == (99, "length")
        await eventually(lambda: service.at_rest("aggregated/0"))


async def test_a_worker_that_drains_finishes_what_it_has() -> None:
    async with empty() as service:
        worker = await start(service, AggregatedWorker, "aggregated", **UNHURRIED)
        ingress = await service.start_probe("ingress")
        ingress.tell(worker.address, Generate(key(ingress), "r", PROMPT, sampling(50)))
        await ingress.take(Frame)

        await service.nodes["aggregated/0"].drain()

        assert service.store.entries["aggregated/0"].state is State.DRAINING
        assert service.at_rest("aggregated/0")
        await eventually(
            lambda: any(c.finish == "length" for f in ingress.of(Frame) for c in f.everything())
        )


async def test_a_drain_is_not_held_up_by_a_refused_successor_of_a_request() -> None:
    async with empty() as service:
        worker = await start(
            service, AggregatedWorker, "aggregated", **UNHURRIED, max_context_tokens=8
        )
        ingress = await service.start_probe("ingress")
        ingress.tell(worker.address, Generate(key(ingress), "r", PROMPT, ENDLESS))
        ingress.tell(worker.address, Generate(key(ingress, epoch=1), "r", PROMPT * 9, ENDLESS))
        await chunks_of(ingress)

        await service.nodes["aggregated/0"].drain()

        assert service.at_rest("aggregated/0")


async def test_an_engine_that_fails_ends_its_node() -> None:
    async with empty() as service:
        worker = await start(
            service, AggregatedWorker, "aggregated", faults=[{"do": "fail", "step": 3}]
        )
        ingress = await service.start_probe("ingress")

        ingress.tell(worker.address, Generate(key(ingress), "r", PROMPT, ENDLESS))

        with pytest.raises(ActorFailed, match="aggregated/0"):
            await asyncio.wait_for(service.nodes["aggregated/0"].wait(), 10)


async def test_an_engine_that_does_not_start_ends_the_start() -> None:
    async with empty() as service:
        with pytest.raises(Exception, match="refuses to start"):
            await start(service, ContextWorker, "context", faults=[{"do": "refuse_start"}])


async def test_the_card_says_what_the_engine_is() -> None:
    async with empty() as service:
        worker = await start(service, ContextWorker, "context", blocks=64, max_running=3)
        card = read_card(service.store.entries["context/0"])

        assert card == worker.meta()
        assert card is not None
        assert (card.model, card.tokenizer, card.duty) == (MODEL, str(CAPITALS), "context")
        assert (card.engine, card.blocks_total, card.max_running) == ("simulated", 64, 3)
        assert simulated()["model"] == card.model
