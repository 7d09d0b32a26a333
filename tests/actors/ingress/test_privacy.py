"""Words of prompts and answers stay out of logs and metrics, and what is logged can be followed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from actors.ingress.actor import Ingress
from actors.runtime import logs
from actors.runtime.metrics import render
from tests.actors.ingress.clients import CHAT, COMPLETIONS, fetch
from tests.service import MODEL, Service, disaggregated

SECRET = "Zugzwang"
TEMPLATE_BREAKS = [{"role": "assistant", "content": SECRET}, {"role": "tool", "content": SECRET}]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that is logged, down to the level debug."""
    stream = io.StringIO()
    logs.configure(level="debug", stream=stream, node="test")
    yield stream
    structlog.reset_defaults()


def events(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def verbose(service: Service) -> None:
    for node in service.nodes.values():
        node.verbose = True
        node.log = structlog.get_logger("actor").bind(node=node.name)


def metrics_of(service: Service) -> str:
    return render([([], node.metrics.collect()) for node in service.nodes.values()])


async def ask(ingress: Ingress, **more: Any) -> int:
    path = CHAT if "messages" in more else COMPLETIONS
    answer = await fetch(ingress, path, {"model": MODEL, "max_tokens": 4, **more})
    return answer.status


async def test_no_word_of_a_prompt_or_an_answer_gets_into_logs_or_metrics(
    log: io.StringIO,
) -> None:
    async with disaggregated() as (service, ingress):
        verbose(service)
        chat = [{"role": "user", "content": SECRET}]
        assert await ask(ingress, messages=chat) == 200
        assert await ask(ingress, messages=chat, stream=True) == 200
        assert await ask(ingress, prompt=SECRET, stop=[SECRET], user=SECRET) == 200
        assert await ask(ingress, prompt=SECRET * 20_000) == 400
        assert await ask(ingress, messages=chat, chat_template_kwargs={SECRET: 1}) in {200, 400}
        assert await ask(ingress, messages=TEMPLATE_BREAKS) in {200, 400}
        assert await ask(ingress, messages=SECRET) == 400
        assert await ask(ingress, prompt=SECRET, model=SECRET) == 404
        assert await ask(ingress, prompt=SECRET, **{SECRET: SECRET}) == 200
        broken = await fetch(ingress, CHAT, f'{{"{SECRET}'.encode())
        assert broken.status == 400
        assert (await fetch(ingress, f"/{SECRET}", {})).status == 404
        said = metrics_of(service)

    assert "understudy_generated_tokens_total" in said
    assert SECRET not in said
    assert len(events(log)) > 30
    assert SECRET not in log.getvalue()


async def test_who_asks_for_prompts_in_the_log_gets_them(log: io.StringIO) -> None:
    async with disaggregated(ingress={"log_prompts": True}) as (service, ingress):
        verbose(service)
        assert await ask(ingress, messages=[{"role": "user", "content": SECRET}]) == 200
        assert await ask(ingress, prompt=[5, 6, 7]) == 200

    prompts = [event for event in events(log) if event["event"] == "prompt"]
    assert len(prompts) == 2
    assert SECRET in prompts[0]["prompt"]
    assert prompts[1]["prompt"]


async def test_a_request_can_be_followed_through_the_log_by_its_id_and_epoch(
    log: io.StringIO,
) -> None:
    async with disaggregated() as (service, ingress):
        verbose(service)
        answer = await fetch(ingress, COMPLETIONS, {"model": MODEL, "prompt": "x", "max_tokens": 4})
        request = answer.json["id"]

    of_it = [event for event in events(log) if event.get("request") == request]
    assert [event["event"] for event in of_it] == [
        *("prepared", "placed", "sequence_taken", "sequence_over"),
        *("sequence_taken", "sequence_over", "request_over"),
    ]
    assert {event["epoch"] for event in of_it} == {0}
    assert all(event["actor"] and event["node"] and event["timestamp"] for event in of_it)
    assert of_it[-1]["tokens"] == 4
    assert of_it[-1]["outcome"] == "ok"
