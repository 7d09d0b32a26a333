"""Traces of real processes, as a collector gets them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.collector import Collector, Received, collecting
from tests.serving.conftest import Service, serving

pytestmark = pytest.mark.process

STAGES = ("preprocess", "route", "prefill", "handoff", "decode")
PROMPT = "Nobody may read this in a trace."
ABOVE = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Service]:
    base = tmp_path_factory.mktemp("traced")
    settings = ("--set", f"tracing.endpoint={collector.url}", "--set", "tracing.sample=0")
    with serving(base, "simulated.yaml", *settings) as service:
        yield service


def stream(service: Service, trace_id: str, tokens: int) -> Iterator[str]:
    chunks = service.client.completions.create(
        model="simulated",
        prompt=PROMPT,
        max_tokens=tokens,
        stream=True,
        extra_body={"ignore_eos": True},
        extra_headers={"traceparent": f"00-{trace_id}-{ABOVE}-01", "tracestate": "client=7"},
    )
    for chunk in chunks:
        if chunk.choices:
            yield chunk.choices[0].text


def one(spans: list[Received], name: str, epoch: int | None = None) -> Received:
    found = [
        span
        for span in spans
        if span.name == name and epoch in {None, span.attributes.get("understudy.epoch")}
    ]
    assert len(found) == 1, [(span.name, span.attributes) for span in spans]
    return found[0]


def test_one_trace_has_every_stage_from_the_client_to_the_engine(
    traced: Service, collector: Collector
) -> None:
    trace_id = "a" * 32
    list(stream(traced, trace_id, 8))

    spans = collector.trace(trace_id, "POST /v1/completions", "attempt", *STAGES)
    request, attempt = one(spans, "POST /v1/completions"), one(spans, "attempt")
    assert (request.parent_id, attempt.parent_id) == (ABOVE, request.span_id)
    for stage, role in zip(
        STAGES, ("preprocessor", "router", "context", "generation", "generation"), strict=True
    ):
        span = one(spans, stage)
        assert span.parent_id == attempt.span_id, stage
        assert span.resource["service.instance.id"] == f"{role}/0", stage
        assert span.attributes["understudy.request"] == request.attributes["gen_ai.response.id"]
        assert not span.failed
        assert span.state == "client=7"
    assert len(spans) == 2 + len(STAGES)
    begins = [one(spans, stage).began for stage in STAGES]
    assert begins == sorted(begins)
    told = request.attributes
    assert told["gen_ai.operation.name"] == "text_completion"
    assert told["gen_ai.request.model"] == "simulated"
    assert told["gen_ai.usage.output_tokens"] == 8
    assert (
        told["gen_ai.usage.input_tokens"]
        == one(spans, "prefill").attributes["understudy.prompt_tokens"]
    )
    assert told["gen_ai.response.finish_reasons"] == ["length"]
    assert told["http.response.status_code"] == 200
    assert request.events == ["first_token"]
    assert one(spans, "handoff").attributes["understudy.bytes"] >= 0
    assert not any("Nobody" in str(value) for span in spans for value in span)


def test_what_is_counted_is_what_the_client_is_told(traced: Service, collector: Collector) -> None:
    client = traced.client

    def asked(trace_id: str) -> dict[str, Any]:
        headers = {"traceparent": f"00-{trace_id}-{ABOVE}-01", "user-agent": "x" * 10_000}
        return {"model": "simulated", "extra_headers": headers}

    def told(trace_id: str, path: str) -> dict[str, Any]:
        return one(collector.trace(trace_id, f"POST {path}"), f"POST {path}").attributes

    several = client.completions.create(prompt="a", n=3, max_tokens=2, **asked("c" * 32))
    attributes = told("c" * 32, "/v1/completions")
    assert several.usage is not None
    assert attributes["gen_ai.usage.input_tokens"] == several.usage.prompt_tokens
    assert attributes["gen_ai.usage.output_tokens"] == several.usage.completion_tokens == 6
    assert len(attributes["user_agent.original"]) == 256

    # More than are on their way at the same time.
    many = client.embeddings.create(input=["a b c"] * 65, **asked("d" * 32))
    attributes = told("d" * 32, "/v1/embeddings")
    assert attributes["gen_ai.operation.name"] == "embeddings"
    assert attributes["gen_ai.usage.input_tokens"] == many.usage.prompt_tokens
    assert attributes["gen_ai.usage.output_tokens"] == 0


def test_a_worker_that_is_killed_leaves_two_attempts_that_are_linked(
    traced: Service, collector: Collector
) -> None:
    trace_id = "b" * 32
    chunks = stream(traced, trace_id, 200)
    next(chunks)
    next(chunks)
    os.kill(traced.live.told_pid("generation/0"), signal.SIGKILL)
    rest = list(chunks)

    assert len(rest) > 100
    spans = collector.trace(trace_id, "POST /v1/completions", "attempt", "attempt", "decode")
    request = one(spans, "POST /v1/completions")
    assert request.attributes["gen_ai.usage.output_tokens"] == 200
    assert not request.failed
    attempts = [span for span in spans if span.name == "attempt"]
    assert request.attributes["understudy.replays"] == len(attempts) - 1 >= 1
    assert "generation/0" in attempts[0].message
    for epoch, attempt in enumerate(attempts):
        before = attempts[epoch - 1 : epoch]
        assert attempt.failed == (attempt is not attempts[-1])
        assert attempt.attributes["understudy.epoch"] == epoch
        assert attempt.links == [span.span_id for span in before]
        for span in spans:
            if span.parent_id == attempt.span_id:
                assert span.attributes["understudy.epoch"] == epoch
                assert span.links == attempt.links, span.name
    assert attempts[-1].attributes["understudy.resumed_tokens"] >= 2
    # Who came in its place is traced like the one who fell.
    last = one(spans, "decode", len(attempts) - 1)
    assert last.parent_id == attempts[-1].span_id
    assert last.resource["service.instance.id"] == "generation/0"


def test_a_request_that_nobody_wants_traced_is_not(traced: Service, collector: Collector) -> None:
    before = {span.trace_id for span in collector.spans}
    traced.client.completions.create(model="simulated", prompt=PROMPT, max_tokens=2)
    list(stream(traced, "c" * 32, 2))

    collector.trace("c" * 32, "POST /v1/completions", "decode")
    assert {span.trace_id for span in collector.spans} == before | {"c" * 32}


def test_a_collector_that_fails_is_nothing_to_the_clients(
    traced: Service, collector: Collector
) -> None:
    collector.answer = 500
    try:
        assert "".join(stream(traced, "d" * 32, 16))
    finally:
        collector.answer = 200
