"""What completions have that chat has not, and counts in every chunk; by the official client."""

from __future__ import annotations

import math
from typing import Any

import openai
import pytest

from tests.actors.ingress.clients import COMPLETIONS, completion, fetch, official
from tests.actors.ingress.test_tools import capitals
from tests.service import MODEL, aggregated, disaggregated, encoded, reference_text, tokenizer

PROMPT = "The capital of France is"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_is_echoed_with_its_log_probabilities(*, stream: bool) -> None:
    body = completion("hello there", echo=True, logprobs=1, max_tokens=3, stream=stream)
    async with disaggregated() as (_, ingress):
        answer = await fetch(ingress, COMPLETIONS, body)

    choices = (
        [e["choices"][0] for e in answer.events[:-1]] if stream else [answer.json["choices"][0]]
    )
    text = "".join(choice["text"] for choice in choices)
    said = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    tokens = [token for one in said for token in one["tokens"]]
    values = [value for one in said for value in one["token_logprobs"]]
    count = len(encoded("hello there")) // 4
    assert text == "hello there" + reference_text(encoded("hello there"), 5, 3)
    assert len(tokens) == count + 3
    assert values == [None] + [0.0] * (count + 2)
    assert said[0]["top_logprobs"][0] is None


async def test_a_model_s_own_prompt_gets_the_probabilities_that_it_generated_with() -> None:
    """What is likely as a continuation is as likely as a prompt."""
    async with capitals() as client:
        made = await client.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=4, temperature=0, logprobs=2
        )
        generated = made.choices[0]
        whole = await client.completions.create(
            model=MODEL,
            prompt=PROMPT + generated.text,
            max_tokens=1,
            temperature=0,
            logprobs=2,
            echo=True,
            extra_body={"ignore_eos": True},
        )
        again = await client.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=4, temperature=0, logprobs=2, echo=True
        )

    assert generated.logprobs is not None
    assert again.choices[0].logprobs is not None
    assert whole.choices[0].logprobs is not None
    expected = generated.logprobs.token_logprobs or []
    told = whole.choices[0].logprobs.token_logprobs or []
    fresh = again.choices[0].logprobs.token_logprobs or []
    assert [round(value, 3) for value in told[-1 - len(expected) : -1]] == [
        round(value, 3) for value in expected
    ]
    assert [round(value, 3) for value in fresh[-len(expected) :]] == [
        round(value, 3) for value in expected
    ]
    offsets = again.choices[0].logprobs.text_offset or []
    # The token that begins a text is no part of it.
    assert offsets[:4] == [0, 0, 3, 11]
    assert offsets[-1] < len(again.choices[0].text)


async def test_the_best_of_several_are_given() -> None:
    async with capitals() as client:
        fields: dict[str, Any] = {"model": MODEL, "prompt": "The capital of", "max_tokens": 6}
        every = await client.completions.create(**fields, n=6, seed=1, logprobs=0)
        best = await client.completions.create(**fields, n=2, best_of=6, seed=1)
        with pytest.raises(openai.BadRequestError, match="stream"):
            await client.completions.create(**fields, n=2, best_of=6, stream=True)

    def mean(choice: Any) -> float:
        values = choice.logprobs.token_logprobs
        return sum(values) / len(values) if values else -math.inf

    ranked = sorted(every.choices, key=mean, reverse=True)
    assert [choice.text for choice in best.choices] == [choice.text for choice in ranked[:2]]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert all(choice.logprobs is None for choice in best.choices)
    assert best.usage is not None
    assert every.usage is not None
    assert best.usage.completion_tokens == every.usage.completion_tokens


@pytest.mark.parametrize("kind", ["chat", "completion"])
async def test_every_chunk_counts_when_it_is_asked_to(kind: str) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    async with aggregated() as (_, ingress), official(ingress) as client:
        if kind == "chat":
            stream: Any = await client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "hi"}],
                max_tokens=4,
                stream=True,
                stream_options=options,
            )
        else:
            stream = await client.completions.create(
                model=MODEL, prompt="hi", max_tokens=4, stream=True, stream_options=options
            )
        chunks = [chunk async for chunk in stream]

    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == 4
    assert {chunk.usage.prompt_tokens for chunk in chunks} == {chunks[-1].usage.prompt_tokens}


async def test_more_log_probabilities_than_fit_are_refused() -> None:
    body = completion("word " * 3000, echo=True, logprobs=20, max_tokens=1)
    async with aggregated(max_context_tokens=200_000) as (_, ingress):
        assert len(tokenizer().encode("word " * 3000, add_special_tokens=True)) // 4 * 21 > 40_000
        answer = await fetch(ingress, COMPLETIONS, body)

    assert (answer.status, answer.json["error"]["param"]) == (400, "logprobs")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("logprobs", [None, 1])
async def test_a_prompt_is_echoed_alone_when_no_token_is_wanted(
    logprobs: int | None, *, stream: bool
) -> None:
    """As OpenAI's schema permits, and as evaluations ask how likely a text is."""
    body = completion("hello there", echo=True, logprobs=logprobs, max_tokens=0, stream=stream)
    body |= {"stream_options": {"include_usage": True}} if stream else {}
    async with disaggregated() as (_, ingress):
        answer = await fetch(ingress, COMPLETIONS, body)
        without = await fetch(ingress, COMPLETIONS, completion("hello there", max_tokens=0))

    assert answer.status == without.status == 200
    assert (answer.text, without.text) == ("hello there", "")
    objects = [e for e in answer.events if e != "[DONE]"] or [answer.json]
    choices = [choice for one in objects for choice in one["choices"]]
    assert choices[-1]["finish_reason"] == "length"
    values = [v for c in choices for v in (c["logprobs"] or {}).get("token_logprobs", ())]
    count = len(encoded("hello there")) // 4
    assert len(values) == (0 if logprobs is None else count)
    usage = objects[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (count, 0)


async def test_a_bias_for_a_token_that_there_is_not_is_a_400() -> None:
    async with aggregated() as (_, ingress):
        answer = await fetch(ingress, COMPLETIONS, completion(logit_bias={"4000000000": 1}))

    assert (answer.status, answer.json["error"]["param"]) == (400, "logit_bias")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_says_by_which_name_logs_know_it(*, stream: bool) -> None:
    async with aggregated() as (_, ingress), official(ingress) as client:
        answer = await fetch(ingress, COMPLETIONS, completion(stream=stream))
        made = await client.responses.create(model=MODEL, input="a", max_output_tokens=2)
        refused = await fetch(ingress, COMPLETIONS, completion([4_000_000_000]))

    first = answer.events[0] if stream else answer.json
    assert answer.headers["x-request-id"] == first["id"]
    assert made._request_id == made.id
    assert (refused.status, refused.headers["x-request-id"][:5]) == (400, "cmpl-")
