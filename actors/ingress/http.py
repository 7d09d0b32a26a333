"""The HTTP side of the ingress: paths, limits, and the two ways to answer."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from typing import TYPE_CHECKING, Literal

import msgspec
import structlog

from actors.ingress import tracing
from actors.ingress.cors import Cors
from actors.ingress.exchange import Exchange
from actors.ingress.gate import Gate
from actors.ingress.openai import errors, responses
from actors.ingress.openai.errors import ApiError
from actors.ingress.openai.requests import (
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    parse_chat,
    parse_completion,
    refuse_unknown,
)
from actors.ingress.openai.responses import Model
from actors.ingress.openapi import document
from actors.ingress.options import IngressOptions
from actors.ingress.readiness import Health
from actors.ingress.reading import reading_of
from actors.ingress.server import Certificate, Limits, Listener, Request, Response, Trouble
from actors.ingress.server.routes import Route, Routes
from actors.ingress.sharing import is_ours, is_taken
from actors.ingress.sinks import BodySink, Head, StreamSink
from actors.ingress.tokenizing import detokenize, read_detokenize, read_tokenize, tokenize
from actors.ingress.web import HEADERS, chat_page
from actors.ingress.wishes import Wishes, explaining_headers, read_wishes
from actors.messages.names import Kind
from actors.messages.sampling import Sampling
from actors.messages.submit import ChatPrompt, Prompt, TextPrompt, TokenPrompt
from actors.runtime.errors import ActorError
from actors.runtime.metrics import CONTENT_TYPE, render
from actors.runtime.metrics.registry import OTHER
from actors.text.model_files import TokenizerNotFound

if TYPE_CHECKING:
    from actors.ingress.actor import Ingress
    from actors.ingress.tracing import RequestTrace
    from actors.runtime.tracing.tracer import Tracer
    from actors.text.tokenizer import Tokenizer

NOT_SERVED = (
    "audio/speech",
    "audio/transcriptions",
    "embeddings",
    "images/generations",
    "moderations",
    "responses",
)
"""Paths of the API that clients may try, answered with a 404 that says so."""
SHUTDOWN_S = 1.0
"""For what is still open when draining is over."""
EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - only compared with
STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}

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
        self._routes = Routes()
        for method, path, handler in (
            ("POST", "/v1/chat/completions", self._chat),
            ("POST", "/v1/completions", self._completion),
            ("GET", "/v1/models", self._models),
            ("GET", "/v1/models/*", self._model),
            ("POST", "/tokenize", self._tokenize),
            ("POST", "/detokenize", self._detokenize),
            *(("POST", f"/v1/{name}", _not_served) for name in NOT_SERVED),
            ("GET", "/live", self._live),
            ("GET", "/ready", self._ready),
            ("GET", "/health", self._health),
            ("GET", "/openapi.json", self._openapi),
            *((("GET", "/", self._chat_page),) if options.chat_page else ()),
            *((("GET", "/metrics", self._metrics),) if options.metrics else ()),
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
            client_s=options.client_timeout_s,
        )
        self._refuse_strangers()
        listener = Listener(self._handle, self._trouble, limits)
        # Always shared, so that a successor can listen before this one stops.
        port = await listener.start(options.host, options.port, reuse_port=True, tls=tls)
        self._listener = listener
        host = "127.0.0.1" if options.host in EVERYWHERE else options.host
        self.url = f"{'http' if tls is None else 'https'}://{host}:{port}"

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
            self._gate.leave(request)
            trace = self._traces.pop(request, None)
            if trace is not None:
                trace.end(None if response is None else response.status)
        if response is not None and more:
            response.headers = {**(response.headers or {}), **more}
        # Not what the client wrote as path: that could be anything.
        status = "200" if response is None else str(response.status)
        self._ingress.measures.http.labels(route.pattern or OTHER, status).add()
        return response

    def _trace(self, tracer: Tracer, request: Request, route: Route) -> None:
        trace = tracing.begin(tracer, request, route.pattern)
        if trace is not None:
            self._traces[request] = trace

    def _headers(self, request: Request) -> dict[str, str]:
        """Of every answer: what its key may still take, and whose scripts may read it."""
        return self._gate.headers(request) | self._cors.headers(request)

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

    # -- answers -------------------------------------------------------------------------------

    async def _chat(self, request: Request) -> Response | None:
        asked = parse_chat(request.body)
        self._check_known(request.body, asked)
        return await self._answer(request, "chat", asked)

    async def _completion(self, request: Request) -> Response | None:
        asked = parse_completion(request.body)
        self._check_known(request.body, asked)
        return await self._answer(request, "completion", asked)

    def _check_known(self, body: bytes, asked: GenerationRequest) -> None:
        if self._options.unknown_fields == "refuse":
            refuse_unknown(body, asked)

    async def _answer(
        self, request: Request, kind: Kind, asked: ChatRequest | CompletionRequest
    ) -> Response | None:
        ingress = self._ingress
        self._gate.check_model(request, asked.model)
        ingress.check_room()
        model = ingress.model_named(asked.model, kind)
        tokenizer = await _tokenizer(ingress, model, asked.model)
        head = Head(
            kind,
            _new_id("chatcmpl" if kind == "chat" else "cmpl"),
            int(time.time()),
            asked.model,
            asked.include_usage,
        )
        work, prompts = self._work(asked)
        wishes = read_wishes(request.headers, asked.user, self._options.tenant_header)
        if wishes.only_explain and self._options.explain:
            explained = await ingress.explain(head, model, work[0], wishes.hints)
            return Response(msgspec.json.encode(explained))
        if asked.stream:
            await self._stream(request, asked, head, model, tokenizer, work, prompts, wishes)
            return None
        sink = BodySink(head, len(work), tokenizer.token_bytes)
        exchange = Exchange(model, head.id, sink, wishes)
        exchange.trace = self._traces.get(request)
        self._gate.charge(request, exchange)
        _echo(exchange, asked, tokenizer, work)
        self._open(exchange, asked, tokenizer, work)
        try:
            await exchange.ended.wait()
        finally:
            ingress.close(exchange)
        if exchange.error is not None:
            raise exchange.error
        body = sink.body(exchange.usage(prompts))
        return Response(body, headers=self._explanation(exchange))

    async def _stream(
        self,
        request: Request,
        asked: GenerationRequest,
        head: Head,
        model: str,
        tokenizer: Tokenizer,
        work: list[tuple[Prompt, Sampling]],
        prompts: int,
        wishes: Wishes,
    ) -> None:
        sink = StreamSink(
            head,
            len(work),
            tokenizer.token_bytes,
            self._options.max_unsent_bytes,
            lambda: _cut(request, head.id, self._ingress),
            self._ingress.writes,
        )
        exchange = Exchange(model, head.id, sink, wishes)
        exchange.trace = self._traces.get(request)
        self._gate.charge(request, exchange)
        _echo(exchange, asked, tokenizer, work)
        self._open(exchange, asked, tokenizer, work)
        try:
            await exchange.begun.wait()
            if exchange.error is not None and not any(
                c.session.delivered for c in exchange.choices
            ):
                raise exchange.error
            stream = request.begin(200, self._stream_headers(request, exchange))
            if stream is None:
                return
            sink.open(stream.transport, chunked=stream.chunked)
            for choice in exchange.choices:
                choice.hurry()
            await exchange.ended.wait()
            usage = None if exchange.error is not None else exchange.usage(prompts)
            sink.end(usage, exchange.error)
        finally:
            self._ingress.close(exchange)
        # Waits for the client to read; by now that holds up nothing but its own connection.
        await stream.end()

    def _stream_headers(self, request: Request, exchange: Exchange) -> dict[str, str]:
        return {**STREAM_HEADERS, **self._explanation(exchange), **self._headers(request)}

    def _explanation(self, exchange: Exchange) -> dict[str, str]:
        """The headers that say how the request was placed, for clients that ask."""
        if not (exchange.wishes.explain and self._options.explain):
            return {}
        return explaining_headers(exchange.assigned)

    def _work(
        self, asked: ChatRequest | CompletionRequest
    ) -> tuple[list[tuple[Prompt, Sampling]], int]:
        """One prompt and sampling a choice, and how many different prompts there are."""
        prompts = _prompts(asked)
        seed = random.getrandbits(63)
        work = [
            (
                prompt,
                asked.sampling(
                    self._options.default_max_tokens, seed, choice=i * asked.choices + j
                ),
            )
            for i, prompt in enumerate(prompts)
            for j in range(asked.choices)
        ]
        return work, len(prompts)

    def _open(
        self,
        exchange: Exchange,
        asked: GenerationRequest,
        tokenizer: Tokenizer,
        work: list[tuple[Prompt, Sampling]],
    ) -> None:
        card = self._ingress.fleet.models()[exchange.model]
        self._ingress.open(exchange, tokenizer, work, reading_of(asked, card))

    # -- the rest ------------------------------------------------------------------------------

    async def _tokenize(self, request: Request) -> Response:
        asked = read_tokenize(request.body)
        model = self._ingress.model_named(asked.model)
        tokenizer = await _tokenizer(self._ingress, model, asked.model)
        card = self._ingress.fleet.models()[model]
        return Response(await asyncio.to_thread(tokenize, asked, tokenizer, card))

    async def _detokenize(self, request: Request) -> Response:
        asked = read_detokenize(request.body)
        model = self._ingress.model_named(asked.model)
        tokenizer = await _tokenizer(self._ingress, model, asked.model)
        return Response(await asyncio.to_thread(detokenize, asked, tokenizer))

    async def _models(self, _request: Request) -> Response:
        return Response(responses.model_list(self._model_objects()))

    async def _model(self, request: Request) -> Response:
        wanted = request.path.removeprefix("/v1/models/")
        for model in self._model_objects():
            if model.id == wanted:
                return Response(responses.model_object(model))
        raise errors.unknown_model(wanted)

    def _model_objects(self) -> list[Model]:
        """Of all names, those of either kind."""
        models = self._ingress.fleet.models()
        named = {
            name: Model(name, int(alias.added_at), root=alias.target)
            for name, _, alias in self._ingress.names.all()
            if alias.target in models
        }
        named |= {name: Model(name, int(card.started_at)) for name, card in models.items()}
        return [named[name] for name in sorted(named)]

    async def _chat_page(self, _request: Request) -> Response:
        return Response(chat_page(), headers=HEADERS)

    async def _metrics(self, _request: Request) -> Response:
        """Of this node alone; the supervisor has those of all."""
        node = self._ingress.node
        text = render([([("node", node.name)], node.metrics.collect())])
        return Response(text.encode(), content_type=CONTENT_TYPE)

    async def _openapi(self, _request: Request) -> Response:
        if self._document is None:
            keys = self._options.keys is not None
            self._document = document(self._routes.patterns, keys=keys)
        return Response(self._document)

    async def _live(self, _request: Request) -> Response:
        return Response(b'{"status":"alive"}')

    async def _health(self, _request: Request) -> Response:
        """By what the registry says: cheap, and believes it. `/ready` asks for a token."""
        models = {name: self._ingress.fleet.can_serve(name) for name in self._model_names()}
        return self._healthy(models, {})

    async def _ready(self, request: Request) -> Response:
        named = request.query.get("model")
        wanted = None if named is None else self._ingress.model_named(named)
        names = self._model_names()
        if wanted is not None and wanted not in names:
            raise errors.unknown_model(named or wanted)
        asked = names if wanted is None else [wanted]
        readiness = self._ingress.readiness
        verdicts = await asyncio.gather(*(readiness.of(name) for name in asked))
        found = dict(zip(asked, verdicts, strict=True))
        models = {name: verdict.ready for name, verdict in found.items()}
        why = {name: verdict.why for name, verdict in found.items() if verdict.why}
        return self._healthy(models, why)

    def _healthy(self, models: dict[str, bool], why: dict[str, str]) -> Response:
        missing = [
            role for role in (self._options.preprocessor,) if not self._ingress.has_role(role)
        ]
        draining = self._ingress.is_draining
        ready = any(models.values()) and not missing and not draining
        status: Literal["ready", "not ready", "draining"] = (
            "ready" if ready else "draining" if draining else "not ready"
        )
        body = Health(status, models, missing, why)
        headers = {"Cache-Control": "no-store"}
        return Response(msgspec.json.encode(body), 200 if ready else 503, headers=headers)

    def _model_names(self) -> list[str]:
        return sorted(self._ingress.fleet.models())


def _answer_of(problem: ApiError) -> Response:
    return Response(problem.body(), problem.status, headers=problem.headers)


async def _not_served(request: Request) -> Response:
    raise errors.path_not_served(request.path)


async def _tokenizer(ingress: Ingress, model: str, named: str) -> Tokenizer:
    """`named`: what the client calls it."""
    if model != named and model not in ingress.fleet.models():
        raise errors.unavailable(f"No worker of '{named}' is ready.", 1.0)
    try:
        return await ingress.tokenizer_of(model)
    except TokenizerNotFound as error:
        ingress.log.warning("tokenizer_not_loaded", model=model, error=str(error))
        raise errors.internal(f"The tokenizer of '{model}' cannot be loaded.") from error


def _prompts(asked: ChatRequest | CompletionRequest) -> list[Prompt]:
    if isinstance(asked, ChatRequest):
        arguments = bytes(asked.chat_template_kwargs)
        return [
            ChatPrompt(
                bytes(asked.messages),
                b"{}" if arguments == b"null" else arguments,
                asked.add_generation_prompt is not False,
                b"null" if asked.usable_tools is None else asked.usable_tools.raw,
            )
        ]
    special = asked.add_special_tokens is not False
    return [
        TextPrompt(one, special) if isinstance(one, str) else TokenPrompt(one)
        for one in asked.prompts
    ]


def _echo(
    exchange: Exchange,
    asked: GenerationRequest,
    tokenizer: Tokenizer,
    work: list[tuple[Prompt, Sampling]],
) -> None:
    """`echo` of the completions API: the prompt comes before its continuation."""
    if not isinstance(asked, CompletionRequest) or not asked.echo:
        return
    for index, (prompt, _) in enumerate(work):
        match prompt:
            case TextPrompt(text=text):
                exchange.sink.text(index, text, None)
            case TokenPrompt(tokens=tokens):
                exchange.sink.text(index, tokenizer.decode(tokens), None)
            case ChatPrompt():
                pass


def _cut(request: Request, request_id: str, ingress: Ingress) -> None:
    """The client reads more slowly than it may: give its memory back."""
    ingress.log.warning("slow_client_cut", request=request_id)
    request.cut()


def _new_id(prefix: str) -> str:
    """A request's name for logs and clients; not a secret."""
    return f"{prefix}-{random.getrandbits(96):024x}"
