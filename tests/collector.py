"""A collector of traces: takes OTLP over HTTP, as real ones do, and keeps the spans it is sent."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PATIENCE_S = 30.0
ERROR = 2
"""`Status.code` of a span that failed."""


class Received(NamedTuple):
    """One span."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    kind: int
    began: int
    ended: int
    failed: bool
    message: str
    attributes: dict[str, Any]
    events: list[str]
    links: list[str]
    """Span ids."""
    resource: dict[str, Any]


class Collector:
    """Listens on a free port. `answer` is the status that it gives from now on."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.headers: list[dict[str, str]] = []
        self.answer = 200
        self._news = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector._take(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def until(self, condition: Callable[[list[Received]], bool]) -> list[Received]:
        """All spans, once they are as wanted."""
        deadline = time.monotonic() + PATIENCE_S
        with self._news:
            while not condition(self.spans):
                left_s = deadline - time.monotonic()
                seen = [(span.name, span.attributes) for span in self.spans]
                assert left_s > 0, f"not in time: {seen}"
                self._news.wait(left_s)
            return list(self.spans)

    def trace(self, trace_id: str, *names: str) -> list[Received]:
        """The spans of one trace, by their beginning, once there is one for each of the names."""

        def whole(spans: list[Received]) -> bool:
            found = [span.name for span in spans if span.trace_id == trace_id]
            return all(found.count(name) >= names.count(name) for name in names)

        found = [span for span in self.until(whole) if span.trace_id == trace_id]
        return sorted(found, key=lambda span: span.began)

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if request.path == "/v1/traces" and self.answer == 200:
            with self._news:
                self.headers.append({k.lower(): v for k, v in request.headers.items()})
                self.spans += _spans(ExportTraceServiceRequest.FromString(body))
                self._news.notify_all()
        answer = ExportTraceServiceResponse().SerializeToString()
        request.send_response(self.answer if request.path == "/v1/traces" else 404)
        request.send_header("content-type", "application/x-protobuf")
        request.send_header("content-length", str(len(answer)))
        request.end_headers()
        request.wfile.write(answer)


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for of_resource in request.resource_spans:
        resource = _plain(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield Received(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.trace_state,
                    span.kind,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == ERROR,
                    span.status.message,
                    _plain(span.attributes),
                    [event.name for event in span.events],
                    [link.span_id.hex() for link in span.links],
                    resource,
                )


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)
