"""The HTTP side of the ingress: who may come in, and which endpoint answers which path."""

from __future__ import annotations

import resource
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from actors.ingress import tracing
from actors.ingress.cors import Cors
from actors.ingress.endpoints.embeddings import Embeddings
from actors.ingress.endpoints.generation import Generation
from actors.ingress.endpoints.health import Health
from actors.ingress.endpoints.models import Models
from actors.ingress.endpoints.responses import Responses
from actors.ingress.endpoints.running import Running
from actors.ingress.endpoints.tokens import Tokens
from actors.ingress.gate import Gate
from actors.ingress.openai import errors
from actors.ingress.openai.errors import ApiError
from actors.ingress.openapi import document
from actors.ingress.options import IngressOptions
from actors.ingress.room import connections
from actors.ingress.server import Certificate, Limits, Listener, Request, Response, Trouble
from actors.ingress.server.routes import Route, Routes
from actors.ingress.sharing import is_ours, is_taken
from actors.ingress.web import HEADERS, chat_page
from actors.runtime.errors import ActorError
from actors.runtime.metrics.registry import OTHER

if TYPE_CHECKING:
    from actors.ingress.actor import Ingress
    from actors.ingress.tracing import RequestTrace
    from actors.runtime.tracing.tracer import Tracer

NOT_SERVED = (
    "audio/speech",
    "audio/transcriptions",
    "images/generations",
    "moderations",
    "responses/compact",
)
"""Paths of the API that clients may try, answered with a 404 that says so."""
REQUEST_ID = "X-Request-Id"
"""Under the name that OpenAI gives it, where its clients look for it."""
PROBES = frozenset({"/live", "/health", "/ready", "/metrics"})
"""Answered beyond the limit of connections, too: a full ingress is not a dead one."""
SHUTDOWN_S = 1.0
"""For what is still open when draining is over."""
EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - only compared with
log = structlog.get_logger("http")


class AddressInUse(ActorError):
    """Another program listens on the port."""


class HttpServer:
    """Listens, reads requests, and answers what the ingress produces."""

    def __init__(self, ingress: Ingress, options: IngressOptions) -> None:
        self._ingress = ingress
        self._options = options
        self._listener: Listener | None = None
        keys = None if options.keys is None else ingress.path(options.keys)
        self._gate = Gate(keys, ingress.clock)
        self._cors = Cors(options.cors_origins)
        self._tracer = ingress.node.tracer
        self._traces: dict[Request, RequestTrace] = {}
        """Of the requests that are being traced."""
        running = Running(ingress, options, self._gate, self._headers, self._traces)
        generation, tokens = Generation(running), Tokens(running)
        made, embeddings = Responses(running), Embeddings(running)
        models, health = Models(ingress), Health(ingress, options)
        self._routes = Routes()
        for method, path, handler in (
            ("POST", "/v1/chat/completions", generation.chat),
            ("POST", "/v1/completions", generation.completion),
            ("POST", "/v1/responses", made.create),
            ("POST", "/v1/responses/input_tokens", made.count),
            ("GET", "/v1/responses/*", made.retrieve),
            ("DELETE", "/v1/responses/*", made.delete),
            ("GET", "/v1/responses/*/input_items", made.items),
            ("POST", "/v1/responses/*/cancel", made.cancel),
            ("POST", "/v1/embeddings", embeddings.create),
            ("GET", "/v1/models", models.all),
            ("GET", "/v1/models/*", models.one),
            ("POST", "/tokenize", tokens.tokenize),
            ("POST", "/detokenize", tokens.detokenize),
            *(("POST", f"/v1/{name}", _not_served) for name in NOT_SERVED),
            ("GET", "/live", health.live),
            ("GET", "/ready", health.ready),
            ("GET", "/health", health.health),
            ("GET", "/openapi.json", self._openapi),
            *((("GET", "/", self._chat_page),) if options.chat_page else ()),
            *((("GET", "/metrics", health.metrics),) if options.metrics else ()),
        ):
            self._routes.add(method, path, handler)
        self.url: str | None = None
        self._document: bytes | None = None
        """Made when it is first asked for."""

    async def start(self) -> None:
        """Raises AddressInUse, KeyFileError, CertificateError."""
        options = self._options
        tls = None if (certificate := self._certificate()) is None else certificate.load()
        self._gate.start()
        limits = Limits(
            head_bytes=options.max_header_bytes,
            body_bytes=options.max_body_bytes,
            head_s=options.header_timeout_s,
            body_s=options.body_timeout_s,
            connections=self._most_connections(),
            client_s=options.client_timeout_s,
        )
        self._refuse_strangers()
        listener = Listener(self._handle, self._trouble, limits, self._screen)
        # Always shared, so that a successor can listen before this one stops.
        port = await listener.start(options.host, options.port, reuse_port=True, tls=tls)
        self._listener = listener
        self._ingress.metrics.before_collect(self._count)
        host = "127.0.0.1" if options.host in EVERYWHERE else options.host
        self.url = f"{'http' if tls is None else 'https'}://{host}:{port}"

    def _most_connections(self) -> int:
        options = self._options
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = connections(options.max_connections, options.max_requests, files)
        if options.max_connections is not None and most < options.max_connections:
            log.warning(
                "max_connections_lowered",
                wanted=options.max_connections,
                limit=most,
                open_files=files,
                remedy="raise the limit of open files: ulimit -n, LimitNOFILE= of the unit",
            )
        return most

    def _count(self) -> None:
        listener, measures = self._listener, self._ingress.measures
        if listener is not None:
            measures.connections.set(listener.connections)
            measures.over_limit.mirror(listener.over_limit)
            measures.accept_failures.mirror(listener.accept_failures)

    def _certificate(self) -> Certificate | None:
        options, ingress = self._options, self._ingress
        if options.tls_cert is None:
            return None
        key = None if options.tls_key is None else ingress.path(options.tls_key)
        return Certificate(ingress.path(options.tls_cert), key)

    def _refuse_strangers(self) -> None:
        """The kernel lets any program of this user share the port: only our own may. Raises
        AddressInUse."""
        options, ingress = self._options, self._ingress
        host, port = options.host, options.port
        if not port or not is_taken(host, port, shared=options.reuse_port):
            return
        entries = [entry for entry in ingress.directory.all() if entry.role == ingress.role]
        if options.reuse_port or not is_ours(entries, socket.gethostname(), port):
            raise AddressInUse(
                f"port {port} on {host} is in use by another program; "
                "choose another one with --port"
            )

    @property
    def listening(self) -> bool:
        """Whether new connections are taken."""
        return self._listener is not None and self._listener.listening

    async def stop_listening(self) -> None:
        """Take no new connection; those that are open end with the answer they are at."""
        if self._listener is not None:
            await self._listener.stop_listening()

    async def stop(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close(SHUTDOWN_S)

    def _screen(self, request: Request) -> Response | None:
        """What a request is told when its head is enough to refuse it, if it is."""
        try:
            if request.connection.surplus and request.path not in PROBES:
                text = "The server has as many connections open as it may; try again in a moment."
                raise errors.unavailable(text, 1.0)
            if request.has_body:
                self._gate.check(request)
        except ApiError as error:
            route = self._routes.find(request.method, request.path)
            if self._tracer is not None:
                self._trace(self._tracer, request, route)
            response = _answer_of(error)
            more = self._headers(request)
            self._leave(request, response)
            self._finish(route, response, more)
            return response
        return None

    async def _handle(self, request: Request) -> Response | None:
        """Answer a request; every error in OpenAI's form."""
        route = self._routes.find(request.method, request.path)
        response: Response | None = None
        if self._tracer is not None:
            self._trace(self._tracer, request, route)
        try:
            # A browser sends no key when it asks whether it may send one.
            response = self._cors.preflight(request, route)
            if response is None:
                self._gate.admit(request)
                response = await self._run(route, request)
        except ApiError as error:
            response = _answer_of(error)
        except Exception as error:
            # One request that meets a defect of ours must not end everybody else's.
            log.exception("request_broke", path=request.path, error=type(error).__name__)
            response = _answer_of(errors.internal())
        finally:
            more = self._headers(request)
            self._leave(request, response)
        self._finish(route, response, more)
        return response

    def _leave(self, request: Request, response: Response | None) -> None:
        """It is over, also when its client has gone."""
        self._gate.leave(request)
        trace = self._traces.pop(request, None)
        if trace is not None:
            trace.end(None if response is None else response.status)

    def _finish(self, route: Route, response: Response | None, more: Mapping[str, str]) -> None:
        """It has its answer, which `more` belongs to."""
        if response is not None and more:
            response.headers = {**(response.headers or {}), **more}
        # Not what the client wrote as path: that could be anything.
        status = "200" if response is None else str(response.status)
        self._ingress.measures.http.labels(route.pattern or OTHER, status).add()

    def _trace(self, tracer: Tracer, request: Request, route: Route) -> None:
        trace = tracing.begin(tracer, request, route.pattern)
        if trace is not None:
            self._traces[request] = trace

    def _headers(self, request: Request) -> dict[str, str]:
        """Of every answer: how logs call the request, what its key may still take, and whose
        scripts may read it."""
        name = {REQUEST_ID: request.name} if request.name else {}
        return name | self._gate.headers(request) | self._cors.headers(request)

    @staticmethod
    async def _run(route: Route, request: Request) -> Response | None:
        if route.handler is not None:
            return await route.handler(request)
        if route.methods:
            raise errors.method_not_allowed(request.method, route.methods)
        raise errors.not_found(request.path)

    def _trouble(self, trouble: Trouble) -> Response:
        """The answer to what is no request."""
        options = self._options
        match trouble:
            case "body_too_large":
                problem = errors.body_too_large(options.max_body_bytes)
            case "body_too_slow":
                problem = errors.timeout_before_start(options.body_timeout_s)
            case "body_unreadable":
                problem = errors.invalid_json("the body cannot be read as its encoding says.")
            case "head_too_large":
                problem = errors.head_too_large()
            case "malformed":
                problem = errors.malformed_request()
        return _answer_of(problem)

    # -- pages ---------------------------------------------------------------------------------

    async def _chat_page(self, _request: Request) -> Response:
        return Response(chat_page(), headers=HEADERS)

    async def _openapi(self, _request: Request) -> Response:
        if self._document is None:
            keys = self._options.keys is not None
            self._document = document(self._routes.patterns, keys=keys)
        return Response(self._document)


def _answer_of(problem: ApiError) -> Response:
    return Response(problem.body(), problem.status, headers=problem.headers)


async def _not_served(request: Request) -> Response:
    raise errors.path_not_served(request.path)
