"""Models by other names: aliases that come and go while requests run."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from actors.messages.names import Kind, encode_alias, key_of
from tests.actors.ingress.clients import fetch, official
from tests.service import MODEL, Service, disaggregated, encoded, reference_text

HELLO: Any = [{"role": "user", "content": "hello"}]
SEED = 5


def add(service: Service, kind: Kind, name: str, target: str = MODEL) -> None:
    service.store.record(key_of(kind, name), encode_alias(target))


def remove(service: Service, kind: Kind, name: str) -> None:
    service.store.record(key_of(kind, name), None)


async def test_an_alias_answers_as_its_model_and_under_its_own_name() -> None:
    async with disaggregated() as (service, ingress), official(ingress) as client:
        add(service, "completion", "alias")

        answer = await client.completions.create(
            model="alias", prompt="hello", max_tokens=8, seed=SEED
        )

        assert answer.choices[0].text == reference_text(encoded("hello"), SEED, 8)
        assert answer.model == "alias"


async def test_an_alias_is_listed_with_the_model_it_stands_for() -> None:
    async with disaggregated() as (service, ingress), official(ingress) as client:
        add(service, "chat", "org/alias")
        add(service, "completion", "org/alias")
        add(service, "chat", "dangling", "nobody/has-this")

        listed = [model.id async for model in await client.models.list()]

        assert listed == ["org/alias", MODEL]
        found = await client.models.retrieve("org/alias")
        assert found.model_dump()["root"] == MODEL
        assert "root" not in (await client.models.retrieve(MODEL)).model_dump()


async def test_a_request_of_the_other_kind_is_told_where_the_model_is() -> None:
    async with disaggregated() as (service, ingress), official(ingress) as client:
        add(service, "chat", "chatty")

        with pytest.raises(openai.NotFoundError, match="at /v1/chat/completions") as raised:
            await client.completions.create(model="chatty", prompt="hello")

        assert raised.value.code == "model_not_found"


async def test_a_removed_alias_is_unknown_and_what_runs_goes_on() -> None:
    async with disaggregated() as (service, ingress), official(ingress) as client:
        add(service, "chat", "alias")
        stream = await client.chat.completions.create(
            model="alias", messages=HELLO, max_tokens=200, seed=SEED, stream=True
        )
        chunks = [await anext(stream)]
        remove(service, "chat", "alias")

        with pytest.raises(openai.NotFoundError, match="'alias' does not exist"):
            await client.chat.completions.create(model="alias", messages=HELLO)
        chunks += [chunk async for chunk in stream]

        assert chunks[-1].choices[0].finish_reason == "length"
        assert {chunk.model for chunk in chunks} == {"alias"}


async def test_an_alias_of_a_model_that_no_worker_has_is_unavailable() -> None:
    async with disaggregated() as (service, ingress), official(ingress) as client:
        add(service, "chat", "alias", "nobody/has-this")

        with pytest.raises(openai.InternalServerError, match="No worker of 'alias' is ready"):
            await client.chat.completions.create(model="alias", messages=HELLO)


async def test_an_alias_is_tokenized_and_asked_after_as_its_model() -> None:
    async with disaggregated() as (service, ingress):
        add(service, "chat", "alias")

        answer = await fetch(ingress, "/tokenize", {"model": "alias", "prompt": "hello"})
        ready = await fetch(ingress, "/ready?model=alias")

        assert answer.json["count"] == len(encoded("hello")) // 4
        assert ready.status == 200
        assert ready.json["models"] == {MODEL: True}
