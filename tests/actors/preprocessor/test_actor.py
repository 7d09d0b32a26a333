"""The preprocessor actor: what reaches the router, and what its ingress is told instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.messages.assign import Rejected
from actors.messages.key import RequestKey
from actors.messages.route import Route
from actors.messages.sampling import Sampling
from actors.messages.submit import Prompt, Submit, TextPrompt, TokenPrompt
from actors.preprocessor.actor import MAX_BESIDE, Preprocessor, PreprocessorOptions
from actors.runtime.node import Hosted
from actors.worker.actor import AggregatedWorker
from tests.service import MODEL, Probe, Service, empty, encoded, eventually, packed


def submit(ingress: Probe, prompt: Prompt, number: int = 1, model: str = MODEL) -> Submit:
    key = RequestKey(ingress.address, number, 0)
    return Submit(key, f"r{number}", model, prompt, Sampling(max_tokens=4))


async def start(service: Service, **options: Any) -> tuple[Preprocessor, Probe]:
    """A preprocessor, and a probe in the place of an ingress."""
    decoded = PreprocessorOptions(**options)
    await service.start(Hosted(actor=Preprocessor, role="preprocessor", options=decoded))
    ingress = await service.start_probe("ingress")
    return service.actor(Preprocessor, "preprocessor/0"), ingress


async def test_a_prompt_reaches_the_router_as_token_ids() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated")
        router = await service.start_probe("router")
        preprocessor, ingress = await start(service)

        for number in range(3):
            ingress.tell(preprocessor.address, submit(ingress, TextPrompt("hello"), number))

        for _ in range(3):  # the first ones wait for the tokenizer, in no particular order
            assert (await router.take(Route)).prompt == encoded("hello")
        await eventually(lambda: preprocessor.progress() == (3, False))


async def test_long_prompts_do_not_hold_up_short_ones() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated", max_context_tokens=1_000_000)
        router = await service.start_probe("router")
        preprocessor, ingress = await start(service, inline_bytes=100)
        ingress.tell(preprocessor.address, submit(ingress, TextPrompt("hello")))
        await router.take(Route)

        long = "hello " * 50_000
        ingress.tell(preprocessor.address, submit(ingress, TextPrompt(long), 1))
        ingress.tell(preprocessor.address, submit(ingress, TextPrompt("hello"), 2))

        assert (await router.take(Route)).key.number == 2
        assert (await router.take(Route)).prompt == encoded(long)


async def test_an_unknown_model_is_unavailable() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated")
        preprocessor, ingress = await start(service)

        ingress.tell(preprocessor.address, submit(ingress, TextPrompt("hello"), model="other"))

        rejected = await ingress.take(Rejected)
        assert (rejected.why, rejected.text) == ("unavailable", "no worker of other is ready")
        assert rejected.retry_after_s > 0


async def test_without_a_router_a_request_is_unavailable() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated")
        preprocessor, ingress = await start(service)

        ingress.tell(preprocessor.address, submit(ingress, TextPrompt("hello")))

        rejected = await ingress.take(Rejected)
        assert (rejected.why, rejected.text) == ("unavailable", "no router is ready")


async def test_a_request_the_router_did_not_take_is_lost() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated")
        await service.start_probe("router")
        preprocessor, ingress = await start(service)
        await service.silence("router/0")

        ingress.tell(preprocessor.address, submit(ingress, TextPrompt("hello")))

        rejected = await ingress.take(Rejected)
        assert rejected.why == "lost"
        assert rejected.text.startswith("router/0")


async def test_a_prompt_that_cannot_be_run_is_refused_with_the_field_to_blame() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated", max_context_tokens=8)
        await service.start_probe("router")
        preprocessor, ingress = await start(service)

        ingress.tell(preprocessor.address, submit(ingress, TokenPrompt(packed([1] * 8))))

        rejected = await ingress.take(Rejected)
        assert (rejected.why, rejected.param) == ("too_long", "prompt")


async def test_a_tokenizer_that_cannot_be_loaded_is_an_internal_error(tmp_path: Path) -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated", tokenizer=str(tmp_path))
        await service.start_probe("router")
        preprocessor, ingress = await start(service)

        for number in range(2):
            ingress.tell(preprocessor.address, submit(ingress, TextPrompt("hello"), number))
            rejected = await ingress.take(Rejected)

            assert rejected.why == "internal"
            assert MODEL in rejected.text
            assert str(tmp_path) not in rejected.text, "paths are for the log"


async def test_more_long_prompts_than_the_limit_are_refused() -> None:
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated", max_context_tokens=1_000_000)
        router = await service.start_probe("router")
        preprocessor, ingress = await start(service, inline_bytes=0)

        over = 10
        for number in range(MAX_BESIDE + over):
            ingress.tell(preprocessor.address, submit(ingress, TextPrompt("hello"), number))
        answered = MAX_BESIDE + over
        await eventually(lambda: len(router.of(Route)) + len(ingress.of(Rejected)) == answered)

        refused = ingress.of(Rejected)
        assert {rejected.why for rejected in refused} == {"overloaded"}
        assert sorted(r.key.number for r in refused) == list(range(MAX_BESIDE, MAX_BESIDE + over))


async def test_an_ingress_that_has_gone_is_no_error() -> None:
    async with empty() as service:
        preprocessor, ingress = await start(service)
        other = await service.start_probe("ingress", 1)
        request = submit(ingress, TextPrompt("hello"))
        await service.kill("ingress/0")

        other.tell(preprocessor.address, request)
        other.tell(preprocessor.address, submit(other, TextPrompt("hello")))

        assert (await other.take(Rejected)).key.ingress == other.address
