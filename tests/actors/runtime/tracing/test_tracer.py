"""Spans, as a collector gets them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from actors.runtime.metrics import Metrics
from actors.runtime.tracing import TraceContext, TracingSettings
from actors.runtime.tracing.tracer import CLOSE_S, Tracer
from tests.collector import Collector, collecting

TRACE, ABOVE = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{ABOVE}-01", "tracestate": "vendor=a"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{ABOVE}-00"}
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _alone(_no_variables: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is given up here goes on trying in a thread, with random pauses. Whoever tests by random
    examples in the same process would be disturbed."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    yield
    for thread in threading.enumerate():
        if thread.name == "tracing-close":
            thread.join(30.0)


def make(url: str, metrics: Metrics | None = None, sample: float | None = None) -> Tracer:
    settings = TracingSettings(endpoint=url, sample=sample, headers={"x-team": "blue"})
    return Tracer(settings, node="router/0", namespace="test", metrics=metrics or Metrics())


def outcomes(metrics: Metrics) -> dict[str, float]:
    family = next(f for f in metrics.collect() if f.name == "understudy_spans_total")
    return {point.labels[0]: point.value for point in family.points}


async def spans_of(tracer: Tracer, collector: Collector, number: int) -> list[str]:
    await tracer.close()
    return [span.name for span in collector.until(lambda spans: len(spans) >= number)]


async def test_a_clients_trace_goes_on_here_and_below() -> None:
    with collecting() as collector:
        tracer = make(collector.url)
        request = tracer.begin("POST /x", SAMPLED, {"http.route": "/x"})
        assert request is not None
        first = request.child("attempt", {"understudy.epoch": 0})
        second = request.child("attempt", {"understudy.epoch": 1}, replaces=first)
        tracer.record("prefill", second.context(replaces=first), 0.5, {"understudy.bytes": 7})
        first.end("it fell")
        second.end()
        request.end()
        assert await spans_of(tracer, collector, 4)

        spans = {(s.name, s.attributes.get("understudy.epoch")): s for s in collector.spans}
        top, old, new = spans["POST /x", None], spans["attempt", 0], spans["attempt", 1]
        work = spans["prefill", None]
        assert {span.trace_id for span in collector.spans} == {TRACE}
        assert {span.state for span in collector.spans} == {"vendor=a"}
        assert (top.parent_id, old.parent_id, new.parent_id, work.parent_id) == (
            *(ABOVE, top.span_id, top.span_id),
            new.span_id,
        )
        assert (old.links, new.links, work.links) == ([], [old.span_id], [old.span_id])
        assert (old.failed, old.message, new.failed) == (True, "it fell", False)
        assert work.ended - work.began == 500_000_000
        assert work.attributes == {"understudy.bytes": 7}
        assert top.resource["service.name"] == "understudy"
        assert top.resource["service.instance.id"] == "router/0"
        assert collector.headers[0]["x-team"] == "blue"


async def test_who_asks_is_heard_whether_to_trace_and_the_share_counts_for_the_others() -> None:
    with collecting() as collector:
        none, everything = make(collector.url, sample=0.0), make(collector.url, sample=1.0)
        assert none.begin("a", {}, {}) is None
        assert none.begin("a", SAMPLED, {}) is not None
        assert everything.begin("a", UNSAMPLED, {}) is None
        assert everything.begin("a", {}, {}) is not None
        assert everything.begin("a", {"traceparent": "nonsense"}, {}) is not None
        some = make(collector.url, sample=0.25)
        traced = sum(some.begin("a", {}, {}) is not None for _ in range(400))
        assert 50 < traced < 150
        for tracer in (none, everything, some):
            await tracer.close()


async def test_the_variables_hold_where_the_topology_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=red")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine,deployment=blue")
        tracer = Tracer(None, node="n/0", namespace="test", metrics=Metrics())
        assert tracer.begin("a", SAMPLED, {}) is None
        # What was decided elsewhere is not decided again.
        tracer.record("route", TraceContext(b"t" * 16, b"s" * 8), 0.0, {})
        assert await spans_of(tracer, collector, 1) == ["route"]
        assert collector.headers[0]["x-team"] == "red"
        resource = collector.spans[0].resource
        assert (resource["service.name"], resource["deployment"]) == ("mine", "blue")


async def test_an_understudy_speaks_under_the_name_it_has_taken() -> None:
    with collecting() as collector:
        tracer = make(collector.url)
        tracer.rename("router/7")
        tracer.record("route", TraceContext(b"t" * 16, b"s" * 8), 0.0, {})
        assert await spans_of(tracer, collector, 1) == ["route"]
        assert collector.spans[0].resource["service.instance.id"] == "router/7"


@pytest.mark.parametrize("url", [NOWHERE, None])
async def test_a_collector_that_is_away_or_refuses_costs_spans_and_nothing_else(
    url: str | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "512")
    metrics = Metrics()
    with collecting() as collector:
        collector.answer = 400
        tracer = make(url or collector.url, metrics)
        began = time.perf_counter()
        for _ in range(3000):
            tracer.record("route", TraceContext(b"t" * 16, b"s" * 8), 0.0, {})
        assert time.perf_counter() - began < 5.0  # each waits for nobody
        began = time.perf_counter()
        await tracer.close()
        assert time.perf_counter() - began < CLOSE_S + 5.0
        assert not collector.spans
        found = outcomes(metrics)
        assert found["ended"] == 3000
        assert found["exported"] == 0
    said = capfd.readouterr()
    assert 1 <= said.out.count("tracing_trouble") + said.err.count("tracing_trouble") <= 2
