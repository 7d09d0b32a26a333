"""Whether anything is traced, and where to. Importing this loads nothing of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

PATH = "/v1/traces"
"""Of OTLP over HTTP, below a collector's address."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class TracingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a topology says of tracing. What it leaves out is as the OTEL_* variables say, and
    these have the defaults of OpenTelemetry's specification."""

    endpoint: Annotated[str, msgspec.Meta(pattern="^https?://.+")] | None = None
    """The collector, as `http://host:4318`, for OTLP over HTTP with Protocol Buffers."""
    sample: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """The share of requests traced, of those whose client has not decided (`traceparent`)."""
    headers: dict[str, str] | None = None
    """Sent to the collector with every export."""
    service: str | None = None
    """`service.name` of all spans."""

    @property
    def url(self) -> str | None:
        """Where spans are sent to."""
        if self.endpoint is None or self.endpoint.endswith(PATH):
            return self.endpoint
        return self.endpoint.rstrip("/") + PATH


def is_wanted(settings: TracingSettings | None, environ: Mapping[str, str]) -> bool:
    """Whether a process is to trace: its topology says so, or the variables name an exporter or
    its endpoint. OTEL_SDK_DISABLED and OTEL_TRACES_EXPORTER=none turn off what they do."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if settings is not None:
        return True
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return exporter == "otlp"
    return any(environ.get(name, "").strip() for name in _ENDPOINTS)
