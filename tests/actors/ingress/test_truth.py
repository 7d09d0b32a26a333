"""What an answer says after its worker fell at an awkward moment: what it would have said."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.runtime.errors import ActorFailed
from actors.worker.actor import AggregatedWorker
from tests.actors.ingress.clients import COMPLETIONS, Answer, completion, connected
from tests.service import empty, encoded, reference, text_of

TOKENS = 24
STEPS: dict[str, Any] = {
    "decode_ms": {"quadratic": 0, "linear": 0, "constant": 1},
    "speedup": 1,
}
HALF_SEEN = text_of(reference(encoded("hello"), 5, 16))[-9:-1]
"""A stop string that several tokens make up, and that ends within one."""

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a stop string half seen": ({"stop": [HALF_SEEN]}, {}),
    "a character half sent": ({}, {"tokens": [3, 259]}),
    "log probabilities": ({"logprobs": 2}, {}),
    "three choices": ({"n": 3}, {}),
    "penalties": ({"presence_penalty": 1.0, "frequency_penalty": 0.5}, {}),
    "a least number of tokens": ({"min_tokens": 12, "ignore_eos": False}, {"eos_every": 6}),
    "an end of the model's own": ({"ignore_eos": False}, {"eos_every": 12}),
}
"""(fields of the request, options of the engine)."""


async def told(fields: dict[str, Any], engine: dict[str, Any], strike: int) -> Answer:
    """The answer of a service whose worker fails as it makes the given token; 0: never."""
    async with empty() as service:
        faults = [{"do": "fail", "request": 1, "token": strike}] if strike else []
        first = await service.start_worker(
            AggregatedWorker, "aggregated", 0, faults=faults, **STEPS, **engine
        )
        ingress = await service.start_roles()
        body = completion(
            stream=True,
            max_tokens=TOKENS,
            **{"stream_options": {"include_usage": True}, **fields},
        )
        async with connected(ingress) as connection:
            await connection.post(COMPLETIONS, body)
            if strike:
                with pytest.raises(ActorFailed):
                    await asyncio.wait_for(first.wait(), 10)
                await service.start_worker(AggregatedWorker, "aggregated", 1, **STEPS, **engine)
                await service.kill("aggregated/0")
            return await connection.answer()


def said(answer: Answer) -> dict[str, Any]:
    """Everything that an answer claims, however it was cut into events."""
    assert answer.status == 200
    assert answer.events[-1] == "[DONE]"
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    probabilities: dict[int, list[Any]] = {}
    usage = None
    for event in answer.events[:-1]:
        assert "error" not in event, event
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            index = choice["index"]
            texts[index] = texts.get(index, "") + choice["text"]
            if choice["finish_reason"]:
                assert index not in reasons, "a choice ends once"
                reasons[index] = choice["finish_reason"]
            if choice.get("logprobs"):
                found = choice["logprobs"]
                rows = zip(
                    found["tokens"], found["token_logprobs"], found["text_offset"], strict=True
                )
                probabilities.setdefault(index, []).extend(rows)
    if usage is not None:
        usage.pop("prompt_tokens_details", None)
    return {"texts": texts, "reasons": reasons, "logprobs": probabilities, "usage": usage}


@pytest.mark.parametrize("case", list(CASES))
async def test_an_answer_is_the_same_as_without_the_fall(case: str) -> None:
    fields, engine = CASES[case]
    undisturbed = said(await told(fields, engine, 0))
    assert undisturbed["texts"][0]

    made = undisturbed["usage"]["completion_tokens"] // len(undisturbed["texts"])
    for strike in sorted({1, 2, made // 2, max(1, made - 1), made}):
        assert said(await told(fields, engine, strike)) == undisturbed, f"at token {strike}"


async def test_the_stop_string_of_this_module_is_met_in_the_middle() -> None:
    answer = said(await told({"stop": [HALF_SEEN]}, {}, 0))

    assert answer["reasons"] == {0: "stop"}
    assert 8 < answer["usage"]["completion_tokens"] < TOKENS
