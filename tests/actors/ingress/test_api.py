"""The OpenAI API end to end, over real HTTP, mostly by the official client.

What the model says is recomputed here from prompt and seed, so that a test knows every token.
"""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from actors.worker.actor import AggregatedWorker
from tests.actors.ingress.clients import CHAT, COMPLETIONS, completion, connected, fetch, official
from tests.actors.ingress.clients import request as http
from tests.service import (
    MODEL,
    aggregated,
    disaggregated,
    empty,
    encoded,
    encoded_chat,
    eventually,
    packed,
    reference_text,
    tokenizer,
)

HELLO: Any = [{"role": "user", "content": "hello"}]
SEED = 5


@pytest.mark.parametrize("service", [disaggregated, aggregated])
async def test_a_chat_is_answered_with_the_model_s_tokens(service: Any) -> None:
    async with service() as (_, ingress), official(ingress) as client:
        answer = await client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=20, seed=SEED
        )

        prompt = encoded_chat(*HELLO)
        [choice] = answer.choices
        assert choice.message.content == reference_text(prompt, SEED, 20)
        assert choice.message.role == "assistant"
        assert (choice.finish_reason, choice.logprobs) == ("length", None)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == len(prompt) // 4
        assert answer.usage.completion_tokens == 20


async def test_a_streamed_chat_says_the_same() -> None:
    async with disaggregated() as (_, ingress), official(ingress) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=20, seed=SEED, stream=True
        )
        chunks = [chunk async for chunk in stream]

        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == reference_text(encoded_chat(*HELLO), SEED, 20)
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "length"
        assert len({chunk.id for chunk in chunks}) == 1
        assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("stop", [False, True])
async def test_a_stream_whose_text_waits_for_more_says_the_same(*, stop: bool) -> None:
    steps = {"decode_ms": {"quadratic": 0, "linear": 0, "constant": 2}, "speedup": 1}
    async with aggregated(ingress={"stream_interval_s": 0.02}, **steps) as (_, ingress):
        text = reference_text(encoded("hello"), SEED, 40)
        stops = [text[30:35]] if stop else None

        answers = await asyncio.gather(
            *(
                fetch(ingress, COMPLETIONS, completion(max_tokens=40, stop=stops, stream=True))
                for _ in range(3)
            )
        )

        expected = text[: text.index(stops[0])] if stops else text
        assert [answer.text for answer in answers] == [expected] * 3


async def test_a_stream_counts_its_tokens_when_asked() -> None:
    async with disaggregated() as (_, ingress), official(ingress) as client:
        stream = await client.completions.create(
            model=MODEL,
            prompt=["hello", "one two three"],
            n=2,
            max_tokens=6,
            seed=SEED,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]

        usage = chunks[-1].usage
        assert usage is not None
        assert usage.prompt_tokens == len(encoded("hello") + encoded("one two three")) // 4
        assert usage.completion_tokens == 24
        assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize("stream", [False, True])
async def test_several_choices_of_several_prompts_come_in_their_order(*, stream: bool) -> None:
    async with disaggregated() as (_, ingress):
        prompts = ["hello", "what is"]
        body = completion(prompts, n=2, max_tokens=12, stream=stream)

        answer = await fetch(ingress, COMPLETIONS, body)

        texts = [""] * 4
        objects = [e for e in answer.events if e != "[DONE]"] if stream else [answer.json]
        for choice in (choice for each in objects for choice in each["choices"]):
            texts[choice["index"]] += choice["text"]
        assert texts == [
            reference_text(encoded(prompts[index // 2]), SEED + index, 12) for index in range(4)
        ]


async def test_token_ids_are_a_prompt_too() -> None:
    async with disaggregated() as (_, ingress), official(ingress) as client:
        tokens, more = [10, 20, 30], [40, 50]

        one = await client.completions.create(model=MODEL, prompt=tokens, max_tokens=8, seed=SEED)
        two = await client.completions.create(
            model=MODEL, prompt=[tokens, more], max_tokens=8, seed=SEED
        )

        assert one.choices[0].text == reference_text(packed(tokens), SEED, 8)
        assert [choice.text for choice in two.choices] == [
            reference_text(packed(tokens), SEED, 8),
            reference_text(packed(more), SEED + 1, 8),
        ]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(*, stream: bool) -> None:
    async with disaggregated(max_running=2) as (service, ingress):
        text = reference_text(encoded("hello"), SEED, 40)
        stop = text[30:35]
        body = completion(max_tokens=1_000_000, stop=["never", stop], stream=stream)

        answer = await fetch(ingress, COMPLETIONS, body)

        assert answer.text == text[: text.index(stop)]
        last = answer.events[-2] if stream else answer.json
        assert last["choices"][0]["finish_reason"] == "stop"
        await eventually(lambda: service.at_rest("generation/0"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", ["hello", [10, 20, 30]], ids=["text", "tokens"])
async def test_echo_puts_the_prompt_before_its_continuation(prompt: Any, *, stream: bool) -> None:
    async with disaggregated() as (_, ingress):
        answer = await fetch(ingress, COMPLETIONS, completion(prompt, echo=True, stream=stream))

        tokens = encoded(prompt) if isinstance(prompt, str) else packed(prompt)
        shown = prompt if isinstance(prompt, str) else tokenizer().decode(tokens)
        assert answer.text == shown + reference_text(tokens, SEED, 8)


async def test_logprobs_come_with_every_token_that_asked_for_them() -> None:
    async with disaggregated() as (_, ingress), official(ingress) as client:
        answer = await client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=5, seed=SEED, logprobs=True, top_logprobs=2
        )

        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content is not None
        assert len(logprobs.content) == 5
        spelled = b"".join(bytes(entry.bytes or []) for entry in logprobs.content)
        assert spelled.decode("utf-8", "replace") == answer.choices[0].message.content


async def test_the_same_seed_says_the_same_and_none_says_something_else() -> None:
    async with disaggregated() as (_, ingress):
        seeded = [await fetch(ingress, COMPLETIONS, completion()) for _ in range(2)]
        unseeded = [await fetch(ingress, COMPLETIONS, completion(seed=None)) for _ in range(3)]

        assert len({answer.text for answer in seeded}) == 1
        assert len({answer.text for answer in unseeded}) > 1


async def test_an_end_token_ends_the_answer() -> None:
    async with disaggregated(eos_every=4) as (_, ingress):
        answer = await fetch(ingress, COMPLETIONS, completion(max_tokens=10_000))

        assert answer.json["choices"][0]["finish_reason"] == "stop"
        assert answer.json["usage"]["completion_tokens"] < 10_000


async def test_without_a_limit_an_answer_fills_the_context_or_the_default() -> None:
    async with disaggregated(max_context_tokens=64) as (service, ingress):
        unlimited = completion(max_tokens=None)
        answer = await fetch(ingress, COMPLETIONS, unlimited)
        assert answer.json["usage"]["total_tokens"] == 64

        other = await service.start_ingress(1, default_max_tokens=3)
        answer = await fetch(other, COMPLETIONS, unlimited)
        assert answer.json["usage"]["completion_tokens"] == 3


async def test_a_repeated_prompt_is_found_in_the_cache() -> None:
    async with aggregated() as (_, ingress):
        prompt = "hello " * 40
        counts = [
            (await fetch(ingress, COMPLETIONS, completion(prompt))).json["usage"] for _ in range(2)
        ]

        cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in counts]
        assert cached[0] == 0
        assert 0 < cached[1] <= counts[1]["prompt_tokens"]


async def test_models_are_listed_and_found_by_name() -> None:
    async with disaggregated() as (_, ingress), official(ingress) as client:
        assert [model.id async for model in client.models.list()] == [MODEL]
        assert (await client.models.retrieve(MODEL)).id == MODEL
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("other")


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_an_unknown_model_is_not_found(path: str) -> None:
    async with disaggregated() as (_, ingress):
        body = {"model": "other", "prompt": "a", "messages": HELLO}

        answer = await fetch(ingress, path, body)

        assert answer.status == 404
        assert answer.json["error"]["code"] == "model_not_found"


async def test_readiness_follows_the_workers() -> None:
    async with empty() as service:
        ingress = await service.start_roles()

        assert (await fetch(ingress, "/live")).status == 200
        for path in ("/health", "/ready"):
            answer = await fetch(ingress, path)
            assert (answer.status, answer.json["status"]) == (503, "not ready")

        await service.start_worker(AggregatedWorker, "aggregated")
        for path in ("/health", "/ready"):
            answer = await fetch(ingress, path)
            assert (answer.status, answer.json["models"]) == (200, {MODEL: True})

        await service.kill("preprocessor/0")
        answer = await fetch(ingress, "/ready")
        assert (answer.status, answer.json["missing"]) == (503, ["preprocessor"])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_of_http_1_0_is_served_and_the_connection_closed(*, stream: bool) -> None:
    async with disaggregated() as (_, ingress), connected(ingress) as connection:
        await connection.post(COMPLETIONS, completion(stream=stream), version="1.0")
        answer = await connection.answer()

        assert answer.text == reference_text(encoded("hello"), SEED, 8)
        assert "transfer-encoding" not in answer.headers
        assert await connection.rest() == b""


async def test_requests_follow_each_other_on_one_connection() -> None:
    async with disaggregated() as (_, ingress), connected(ingress) as connection:
        for count, stream in enumerate((False, True, False), start=1):
            await connection.post(COMPLETIONS, completion(max_tokens=count, stream=stream))
            answer = await connection.answer()
            assert answer.text == reference_text(encoded("hello"), SEED, count)


async def test_requests_sent_ahead_are_answered_in_order() -> None:
    async with disaggregated() as (_, ingress), connected(ingress) as connection:
        bodies = [completion(max_tokens=count, stream=count == 2) for count in (1, 2, 3)]
        await connection.send(b"".join(http(COMPLETIONS, body) for body in bodies))

        for count in (1, 2, 3):
            answer = await connection.answer()
            assert answer.text == reference_text(encoded("hello"), SEED, count)


async def test_a_hundred_requests_at_once_keep_their_own_tokens() -> None:
    async with disaggregated() as (_, ingress), official(ingress) as client:
        seeds = range(100)

        async def ask(seed: int) -> str:
            answer = await client.completions.create(
                model=MODEL, prompt="hello", max_tokens=10, seed=seed
            )
            return answer.choices[0].text

        texts = await asyncio.gather(*(ask(seed) for seed in seeds))

        assert texts == [reference_text(encoded("hello"), seed, 10) for seed in seeds]


async def test_a_tokenizer_that_cannot_be_loaded_is_an_internal_error(tmp_path: Any) -> None:
    async with disaggregated(tokenizer=str(tmp_path)) as (_, ingress):
        answer = await fetch(ingress, COMPLETIONS, completion())

        assert answer.status == 500
        assert str(tmp_path) not in answer.body.decode()
