"""Spans, made by OpenTelemetry's SDK and sent to a collector by a thread of its own.

Nothing here waits for the collector: spans queue up to OTEL_BSP_MAX_QUEUE_SIZE (2048), and more
are dropped. Imported only where tracing is on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_SCHEDULE_DELAY
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from actors.runtime.metrics import Metrics
from actors.runtime.tracing.context import Attributes, TraceContext
from actors.runtime.tracing.settings import TracingSettings

_Add: TypeAlias = Callable[[float], None]

SCOPE = "understudy"
DELAY_MS = 1000
"""Between two exports, unless OTEL_BSP_SCHEDULE_DELAY says otherwise: what a killed process takes
with it. OpenTelemetry's own default is five times this."""
CLOSE_S = 0.5
"""For the last export, when a node ends."""
TROUBLE_EVERY_S = 30.0
"""How often at most the log says that spans cannot be sent."""

log = structlog.get_logger("tracing")


class Span:
    """A span that has begun here, and will end here."""

    __slots__ = ("_span", "_tracer", "here")

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        self.here = span.get_span_context()

    def context(self, *, replaces: Span | None = None) -> TraceContext:
        """For a message to whoever goes on from here. `replaces`: see `TraceContext`."""
        here = self.here
        return TraceContext(
            here.trace_id.to_bytes(16, "big"),
            here.span_id.to_bytes(8, "big"),
            here.trace_state.to_header(),
            b"" if replaces is None else replaces.here.span_id.to_bytes(8, "big"),
        )

    def child(self, name: str, attributes: Attributes, *, replaces: Span | None = None) -> Span:
        """A span below this one, linked to the one that it replaces."""
        links = () if replaces is None else (_replaced(replaces.here),)
        parent = trace.set_span_in_context(self._span)
        span = self._tracer.start_span(name, parent, attributes=attributes, links=links)
        return Span(self._tracer, span)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def event(self, name: str, attributes: Attributes, *, ago_s: float = 0.0) -> None:
        """Something that happened `ago_s` seconds ago."""
        self._span.add_event(name, attributes, time.time_ns() - int(ago_s * 1e9))

    def end(self, error: str = "") -> None:
        """`error`: what went wrong, in one sentence."""
        if error:
            self._span.set_status(StatusCode.ERROR, error)
        self._span.end()


class Tracer:
    """Makes the spans of one node."""

    def __init__(
        self, settings: TracingSettings | None, *, node: str, namespace: str, metrics: Metrics
    ) -> None:
        """`settings` go before the variables of the environment."""
        self._settings = settings or TracingSettings()
        self._namespace = namespace
        spans = metrics.counter(
            "understudy_spans_total",
            "Spans of traces, by what became of them: ended, exported, or failed to be exported. "
            "What is missing waits, or was dropped because too many waited.",
            ("outcome",),
        )
        # The last two are added to by the exporter's thread, and by nobody else.
        exporter = _Counting(
            OTLPSpanExporter(
                endpoint=self._settings.url,
                headers=None if self._settings.headers is None else dict(self._settings.headers),
            ),
            spans.labels("exported").add,
            spans.labels("failed").add,
        )
        delay = None if OTEL_BSP_SCHEDULE_DELAY in os.environ else DELAY_MS
        self._processor = _Processor(exporter, delay, spans.labels("ended").add)
        self._propagator = TraceContextTextMapPropagator()
        self._log = _passed_on()
        self.rename(node)

    def rename(self, node: str) -> None:
        """From now on spans are those of this node."""
        resource = self._resource(node)
        # Whether a trace is recorded is decided at the edge; what comes with a context, is.
        self._edge = self._provider(self._sampler(), resource)
        self._inner = self._provider(ALWAYS_ON, resource)

    def begin(self, name: str, headers: Mapping[str, str], attributes: Attributes) -> Span | None:
        """The span of a request that has come in, below the one that its `traceparent` names.
        None when the request is not to be traced. Names in `headers` are in lower case."""
        parent = self._propagator.extract(headers)
        span = self._edge.start_span(name, parent, SpanKind.SERVER, attributes)
        if not span.is_recording():
            return None
        return Span(self._inner, span)

    def record(
        self,
        name: str,
        context: TraceContext,
        seconds: float,
        attributes: Attributes,
        *,
        error: str = "",
    ) -> None:
        """A span that ends now and took this long."""
        now = time.time_ns()
        parent = _remote(context, context.span_id)
        links = (_replaced(_remote(context, context.replaces)),) if context.replaces else ()
        span = self._inner.start_span(
            name,
            trace.set_span_in_context(trace.NonRecordingSpan(parent)),
            attributes=attributes,
            links=links,
            start_time=now - int(seconds * 1e9),
        )
        if error:
            span.set_status(StatusCode.ERROR, error)
        span.end(now)

    async def close(self) -> None:
        """Send what waits, if that can be done within `CLOSE_S`."""
        loop = asyncio.get_running_loop()
        closed = asyncio.Event()
        shutdown: Callable[[], None] = self._processor.shutdown

        def close() -> None:
            shutdown()
            with contextlib.suppress(RuntimeError):  # the loop is over, and nobody waits any more
                loop.call_soon_threadsafe(closed.set)

        # Not in the loop's own pool, whose end would wait for a collector that does not answer.
        threading.Thread(target=close, name="tracing-close", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_S):
                await closed.wait()
        except TimeoutError:
            log.warning("spans_lost", why=f"the collector did not take them in {CLOSE_S:g} s")
        logging.getLogger("opentelemetry").removeHandler(self._log)

    def _provider(self, sampler: Sampler | None, resource: Resource) -> trace.Tracer:
        provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        return provider.get_tracer(SCOPE)

    def _sampler(self) -> Sampler | None:
        """None: as OTEL_TRACES_SAMPLER says, else whatever the parent says, else all."""
        share = self._settings.sample
        return None if share is None else ParentBased(TraceIdRatioBased(share))

    def _resource(self, node: str) -> Resource:
        found = Resource.create(
            {
                "service.namespace": self._namespace,
                "service.instance.id": node,
                "process.pid": os.getpid(),
            }
        )
        # Until here as OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say.
        name = self._settings.service
        if name is None and str(found.attributes["service.name"]).startswith("unknown_service"):
            name = SCOPE
        return found if name is None else found.merge(Resource({"service.name": name}))


class _Processor(BatchSpanProcessor):
    """Counts what ends."""

    def __init__(self, exporter: SpanExporter, delay_ms: float | None, ended: _Add) -> None:
        super().__init__(exporter, schedule_delay_millis=delay_ms)
        self._count = ended

    def on_end(self, span: ReadableSpan) -> None:
        self._count(1)
        super().on_end(span)


class _Counting(SpanExporter):
    """Says how an export went."""

    def __init__(self, inner: SpanExporter, exported: _Add, failed: _Add) -> None:
        self._inner = inner
        self._exported = exported
        self._failed = failed

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        add = self._exported if result is SpanExportResult.SUCCESS else self._failed
        add(len(spans))
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


class _Troubles(logging.Handler):
    """What OpenTelemetry complains of, as an event of our log, now and then."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said_at = -TROUBLE_EVERY_S
        self._unsaid = 0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now - self._said_at < TROUBLE_EVERY_S:
            self._unsaid += 1
            return
        self._said_at, unsaid, self._unsaid = now, self._unsaid, 0
        log.warning("tracing_trouble", why=record.getMessage(), unsaid=unsaid)


def _passed_on() -> logging.Handler:
    handler = _Troubles()
    logger = logging.getLogger("opentelemetry")
    logger.addHandler(handler)
    logger.propagate = False
    return handler


def _remote(context: TraceContext, span_id: bytes) -> SpanContext:
    return SpanContext(
        int.from_bytes(context.trace_id, "big"),
        int.from_bytes(span_id, "big"),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([context.state]) if context.state else None,
    )


def _replaced(context: SpanContext) -> Link:
    return Link(context, {"understudy.link": "replaces"})
