"""Embeddings end to end, by the official client."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
import openai
import pytest
from openai._models import validate_type
from openai.types import CreateEmbeddingResponse

from actors.engines.simulated.tokens import embedding_of
from actors.worker.actor import ContextWorker
from tests.actors.ingress.clients import fetch, official
from tests.actors.ingress.test_tools import capitals
from tests.service import MODEL, aggregated, disaggregated, encoded, eventually, packed

PATH = "/v1/embeddings"
SLOW_PREFILL: dict[str, Any] = {
    "prefill_ms": {"quadratic": 0, "linear": 0, "constant": 300},
    "speedup": 1,
}


def numbers(vector: bytes) -> list[float]:
    return [float(value) for value in np.frombuffer(vector, "<f4")]


@pytest.mark.parametrize("service", [disaggregated, aggregated])
async def test_every_text_gets_its_vector(service: Any) -> None:
    texts = [f"text {number}" for number in range(70)]
    async with service() as (_, ingress), official(ingress) as client:
        found = await client.embeddings.create(model=MODEL, input=texts)
        ids = await client.embeddings.create(model=MODEL, input=[[10, 20], [30]])
        plain = await fetch(ingress, PATH, {"model": MODEL, "input": "hello"})

    assert [one.index for one in found.data] == list(range(70))
    assert [one.embedding for one in found.data] == [
        numbers(embedding_of(encoded(text))) for text in texts
    ]
    assert found.usage.prompt_tokens == sum(len(encoded(text)) // 4 for text in texts)
    assert found.usage.total_tokens == found.usage.prompt_tokens
    assert ids.data[0].embedding == numbers(embedding_of(packed([10, 20])))
    answer = validate_type(type_=CreateEmbeddingResponse, value=plain.json)
    assert answer.data[0].embedding == numbers(embedding_of(encoded("hello")))


async def test_vectors_come_in_the_form_that_is_asked_for() -> None:
    async with aggregated() as (_, ingress):
        body = {"model": MODEL, "input": "hello", "encoding_format": "base64", "dimensions": 64}
        answer = await fetch(ingress, PATH, body)

    vector = base64.b64decode(answer.json["data"][0]["embedding"])
    assert vector == embedding_of(encoded("hello"))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": [[]]}, "input[0]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": [2**31]}, "input"),
        ({"dimensions": 8}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
)
async def test_what_cannot_be_done_is_a_400_that_names_it(
    fields: dict[str, Any], param: str
) -> None:
    async with aggregated() as (_, ingress):
        answer = await fetch(ingress, PATH, {"model": MODEL, "input": "a", **fields})

    assert (answer.status, answer.json["error"]["param"]) == (400, param)


async def test_a_vector_comes_from_a_successor_when_its_worker_is_killed() -> None:
    async with disaggregated(**SLOW_PREFILL) as (service, ingress):
        body = {"model": MODEL, "input": ["hello", "there"]}
        asking = asyncio.create_task(fetch(ingress, PATH, body))
        await eventually(lambda: bool(ingress._choices))
        await eventually(
            lambda: all(c.session.phase == "assigned" for c in ingress._choices.values())
        )
        await service.kill("context/0")
        await service.start_worker(ContextWorker, "context")
        answer = await asking

    assert ingress._counted["replays"] == 2
    assert [one["embedding"] for one in answer.json["data"]] == [
        numbers(embedding_of(encoded(text))) for text in ("hello", "there")
    ]


async def test_a_lost_vector_is_asked_for_and_not_computed_again() -> None:
    async with aggregated() as (service, ingress):
        lost: list[bytes] = []

        def lose_one(_subject: str, frame: bytes) -> list[float]:
            if embedding_of(encoded("hello")) in frame and not lost:
                lost.append(frame)
                return []
            return [0.0]

        service.bus.fate = lose_one
        answer = await fetch(ingress, PATH, {"model": MODEL, "input": "hello"})

    assert lost
    assert ingress._counted["asked"] > 0
    assert ingress._counted["replays"] == 0
    assert answer.json["data"][0]["embedding"] == numbers(embedding_of(encoded("hello")))


async def test_a_model_s_vectors_are_near_for_what_is_alike() -> None:
    texts = ["The capital of France is Paris", "The capital of Spain is Madrid", "17 4 99 2"]
    async with capitals() as client:
        together = await client.embeddings.create(model=MODEL, input=texts)
        alone = await client.embeddings.create(model=MODEL, input=texts[0])
        with pytest.raises(openai.BadRequestError, match="dimensions"):
            await client.embeddings.create(model=MODEL, input="a", dimensions=3)

    vectors = np.array([one.embedding for one in together.data])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert np.allclose(vectors[0], alone.data[0].embedding, atol=1e-4)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
