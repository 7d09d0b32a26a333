"""Responses and embeddings in real processes, while NATS and workers are killed under them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.conftest import MODEL, Service

pytestmark = pytest.mark.process

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."


def test_a_conversation_outlives_nats_and_the_ingress(disagg: Service) -> None:
    first = disagg.client.responses.create(model=MODEL, input=FRANCE, temperature=0)
    assert first.output_text == PARIS
    for target in ("nats", "ingress/0"):
        disagg.live.kill(target)
        disagg.live.until("child_ready", child=target)
    client = disagg.client.with_options(max_retries=5)
    second = client.responses.create(
        model=MODEL, input="And of Germany?", previous_response_id=first.id, temperature=0
    )
    kept = client.responses.retrieve(first.id)

    assert "Berlin" in second.output_text
    assert kept.output_text == PARIS
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens


@pytest.mark.parametrize("target", ["generation/0", "context/0"])
def test_a_response_s_stream_goes_on_when_a_worker_is_killed_under_it(
    disagg: Service, target: str
) -> None:
    question: Any = "List ten capitals."
    whole = disagg.client.responses.create(model=MODEL, input=question, temperature=0)
    with disagg.client.responses.stream(model=MODEL, input=question, temperature=0) as events:
        seen = 0
        for event in events:
            if event.type == "response.output_text.delta":
                seen += 1
                if seen == 3:
                    disagg.live.kill(target)
        final = events.get_final_response()

    disagg.live.until("child_ready", child=target)
    assert final.output_text == whole.output_text


def test_vectors_are_the_same_after_their_worker_was_killed(disagg: Service) -> None:
    texts = [f"The capital of {country} is" for country in ("France", "Spain", "Italy")]
    before = disagg.client.embeddings.create(model=MODEL, input=texts)
    disagg.live.kill("context/0")
    after = disagg.client.embeddings.create(model=MODEL, input=texts)

    disagg.live.until("child_ready", child="context/0")
    for old, new in zip(before.data, after.data, strict=True):
        assert new.embedding == pytest.approx(old.embedding, abs=1e-4)
