"""Whether a process traces, and where to."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from actors.runtime.tracing import TracingSettings, is_wanted

SOME = TracingSettings()


@pytest.mark.parametrize(
    ("settings", "environ", "wanted"),
    [
        (None, {}, False),
        (SOME, {}, True),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        (None, {"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, False),
        (None, {"OTEL_TRACES_EXPORTER": "zipkin"}, False),
        (SOME, {"OTEL_TRACES_EXPORTER": "none"}, True),
        (SOME, {"OTEL_SDK_DISABLED": "true"}, False),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
    ],
)
def test_the_topology_or_the_variables_turn_tracing_on(
    settings: TracingSettings | None, environ: dict[str, str], *, wanted: bool
) -> None:
    assert is_wanted(settings, environ) is wanted


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (None, None),
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("https://host/otlp/v1/traces", "https://host/otlp/v1/traces"),
    ],
)
def test_the_endpoint_is_a_collector_or_the_path_of_its_traces(
    endpoint: str | None, url: str | None
) -> None:
    assert TracingSettings(endpoint=endpoint).url == url


@pytest.mark.parametrize("given", [{"sample": 1.5}, {"sample": -0.1}, {"endpoint": "collector"}])
def test_what_cannot_be_meant_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(given, TracingSettings)


def test_a_process_that_does_not_trace_loads_nothing_of_opentelemetry() -> None:
    roles = "ingress.actor", "preprocessor.actor", "router.actor", "worker.actor", "runtime.process"
    imports = "; ".join(f"import actors.{role}" for role in roles)
    code = f"{imports}; import sys; print([m for m in sys.modules if 'opentelemetry' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
