"""Tools, structured output and reasoning end to end: a real model, held to a form where it would
not write it by itself, read by the official client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec
import openai
import pydantic
import pytest
from openai import AsyncOpenAI

from actors.engines.transformers.preload import preload
from actors.runtime.node import Hosted
from actors.worker.actor import AggregatedWorker
from actors.worker.options import WorkerOptions
from tests.actors.ingress.clients import fetch, official
from tests.actors.ingress.openai.test_tools import NAMED, TIME, WEATHER
from tests.service import CAPITALS, MODEL, aggregated, empty

MESSAGES: Any = [{"role": "user", "content": "What is the capital of France?"}]
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """What takes seconds is no part of any test's patience."""
    preload(str(CAPITALS))


class Capital(pydantic.BaseModel):
    country: Literal["France", "Spain"]
    capital: Literal["Paris", "Madrid"]


@asynccontextmanager
async def capitals(**options: Any) -> AsyncIterator[AsyncOpenAI]:
    """The demonstration model behind all roles, and a client."""
    engine = {"kind": "transformers", "model": str(CAPITALS), "kv_memory": "8MiB"}
    decoded = msgspec.convert({"model": MODEL, "engine": engine, **options}, WorkerOptions)
    async with empty() as service:
        await service.start(Hosted(actor=AggregatedWorker, role="aggregated", options=decoded))
        ingress = await service.start_roles()
        async with official(ingress) as client:
            yield client


async def said(client: AsyncOpenAI, *, stream: bool, **fields: Any) -> Any:
    """One answer's choice, put together by the client's own helper when it is streamed."""
    asked = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 200, **fields}
    if not stream:
        return (await client.chat.completions.create(**asked)).choices[0]
    async with client.chat.completions.stream(**asked) as events:
        async for _ in events:
            pass
        return (await events.get_final_completion()).choices[0]


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_are_called_in_every_way_a_client_may_ask(*, stream: bool) -> None:
    async with capitals(tool_parser="hermes") as client:
        named = await said(client, stream=stream, tools=[WEATHER, TIME], tool_choice=NAMED)
        one = {"tool_choice": "required", "parallel_tool_calls": False}
        required = await said(client, stream=stream, tools=[WEATHER, TIME], **one)
        body = {"guided_regex": CALL.replace("{", r"\{").replace("}", r"\}")}
        auto = await said(client, stream=stream, tools=[WEATHER], extra_body=body)
        silent = await said(client, stream=stream, tools=[WEATHER])

    [call] = named.message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in {"Oslo", "Rome"}
    assert call.id.startswith("call_")
    [call] = required.message.tool_calls
    assert call.function.name in {"weather", "time"}
    assert isinstance(json.loads(call.function.arguments), dict)
    assert required.finish_reason == "tool_calls"
    [call] = auto.message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    assert (auto.message.content or None, auto.finish_reason) == (None, "tool_calls")
    assert silent.message.content == "The capital of France is Paris."
    assert (silent.message.tool_calls or None, silent.finish_reason) == (None, "stop")


async def test_a_conversation_goes_on_behind_the_answer_of_a_tool() -> None:
    async with capitals(tool_parser="hermes") as client:
        call = {"id": "c", "type": "function", "function": {"name": "time", "arguments": "{}"}}
        messages = [
            *MESSAGES,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "noon"},
        ]
        choice = await said(client, stream=False, messages=messages, tools=[TIME], max_tokens=5)
        assert choice.message.role == "assistant"


async def test_the_client_s_parse_reads_an_answer_into_its_own_type() -> None:
    async with capitals() as client:
        answer = await client.chat.completions.parse(
            model=MODEL, messages=MESSAGES, response_format=Capital, max_tokens=200
        )
    assert isinstance(answer.choices[0].message.parsed, Capital)


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_is_told_from_the_answer(*, stream: bool) -> None:
    # This family thinks from the first token on, and this model never says that it has done.
    async with capitals(reasoning_parser="deepseek_r1") as client:
        choice = await said(client, stream=stream)
    message = choice.message
    assert message.reasoning_content == "The capital of France is Paris."
    assert not message.content


async def test_what_an_engine_cannot_follow_is_refused_with_the_field_s_name() -> None:
    async with aggregated() as (_, ingress), official(ingress) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await said(client, stream=False, response_format={"type": "json_object"})
        assert caught.value.param == "response_format"
        body = {"model": MODEL, "messages": MESSAGES, "tools": [TIME]}
        answer = await fetch(ingress, "/v1/chat/completions", body)
        assert (answer.status, answer.json["error"]["param"]) == (400, "tool_choice")


async def test_logprobs_of_an_answer_that_is_read_are_complete() -> None:
    async with capitals(reasoning_parser="qwen3") as client:
        stream: Any = await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, temperature=0, logprobs=True, stream=True
        )
        tokens = [
            entry.token
            async for chunk in stream
            if chunk.choices[0].logprobs
            for entry in chunk.choices[0].logprobs.content
        ]
    assert "".join(tokens) == "The capital of France is Paris."
