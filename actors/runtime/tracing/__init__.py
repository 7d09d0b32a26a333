"""Traces: what became of one request, across processes, as OpenTelemetry tells it.

    context    what messages carry: which trace, and below which span
    settings   whether anything is traced, and where to
    tracer     makes spans and sends them; the only module that imports OpenTelemetry

Where tracing is off `Node.tracer` is None, no context travels, and nothing of OpenTelemetry is
loaded. See `docs/decisions/0040-traces-are-made-by-opentelemetry-at-the-edges.md`.
"""

from actors.runtime.tracing.context import Attributes, TraceContext
from actors.runtime.tracing.settings import TracingSettings, is_wanted

__all__ = ["Attributes", "TraceContext", "TracingSettings", "is_wanted"]
