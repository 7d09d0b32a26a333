"""The HTTP side of the ingress: paths, limits, and the two ways to answer."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
import structlog
from aiohttp import web
from aiohttp.http import HttpVersion11

from actors.ingress.exchange import Exchange
from actors.ingress.openai import errors, responses
from actors.ingress.openai.errors import ApiError
from actors.ingress.openai.requests import (
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    parse_chat,
    parse_completion,
)
from actors.ingress.openai.responses import Model
from actors.ingress.options import IngressOptions
from actors.ingress.sinks import BodySink, Head, Kind, StreamSink
from actors.ingress.wishes import Wishes, explaining_headers, read_wishes
from actors.messages.sampling import Sampling
from actors.messages.submit import ChatPrompt, Prompt, TextPrompt, TokenPrompt
from actors.runtime.errors import ActorError
from actors.runtime.metrics import CONTENT_TYPE, render
from actors.runtime.metrics.registry import OTHER
from actors.text.model_files import TokenizerNotFound
from actors.text.stop_strings import StopAutomaton

if TYPE_CHECKING:
    from actors.ingress.actor import Ingress
    from actors.text.tokenizer import Tokenizer

JSON = "application/json"
SHUTDOWN_S = 1.0
"""For what is still open when draining is over."""
EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - only compared with
STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}

log = structlog.get_logger("http")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AddressInUse(ActorError):
    """Another program listens on the port."""


class HttpServer:
    """Listens, reads requests, and answers what the ingress produces."""

    def __init__(self, ingress: Ingress, options: IngressOptions) -> None:
        self._ingress = ingress
        self._options = options
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self.url: str | None = None

    async def start(self) -> None:
        """Raises AddressInUse."""
        options = self._options
        app = web.Application(
            client_max_size=options.max_body_bytes,
            middlewares=[self._count, web.middleware(_speak_openai)],
        )
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/completions", self._completion),
                web.get("/v1/models", self._models),
                web.get("/v1/models/{model:.+}", self._model),
                web.get("/live", self._live),
                web.get("/ready", self._ready),
                web.get("/health", self._health),
                *([web.get("/metrics", self._metrics)] if options.metrics else ()),
            ]
        )
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,
            access_log=None,
            # What it has to say is that some client speaks no HTTP, with a traceback each time.
            logger=_silent_logger(),
            shutdown_timeout=SHUTDOWN_S,
            # Also what ends a connection that never completes its first request.
            keepalive_timeout=options.header_timeout_s,
        )
        await self._runner.setup()
        self._site = web.TCPSite(
            self._runner,
            options.host,
            options.port,
            reuse_port=options.reuse_port or None,
            backlog=4096,
        )
        try:
            await self._site.start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise AddressInUse(
                f"port {options.port} on {options.host} is in use by another program; "
                "choose another one with --port"
            ) from error
        _, port, *_ = self._runner.addresses[0]
        host = "127.0.0.1" if options.host in EVERYWHERE else options.host
        self.url = f"http://{host}:{port}"

    async def stop_listening(self) -> None:
        """Take no new connection; those that are open go on, and those that clients have opened
        but we have not accepted yet are accepted: closing the socket alone would reset them."""
        site, self._site = self._site, None
        if site is None or self._runner is None:
            return
        # aiohttp has no public way to its sockets, and uvloop's server is no asyncio.Server.
        listening = getattr(site._server, "sockets", ())  # noqa: SLF001
        queues = [socket.socket(fileno=os.dup(one.fileno())) for one in listening]
        await site.stop()
        waiting = [connection for queue in queues for connection in _accept_rest(queue)]
        loop = asyncio.get_running_loop()
        for connection in waiting:
            assert self._runner.server is not None, "it has been set up"
            await loop.connect_accepted_socket(self._runner.server, connection)

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # -- answers -------------------------------------------------------------------------------

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request)
        return await self._answer(request, "chat", parse_chat(body))

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request)
        return await self._answer(request, "completion", parse_completion(body))

    async def _read(self, request: web.Request) -> bytes:
        """The whole body. Raises ApiError when it is too large, too slow or badly encoded."""
        try:
            async with asyncio.timeout(self._options.body_timeout_s):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise errors.body_too_large(self._options.max_body_bytes) from None
        except web.RequestPayloadError as error:
            raise errors.invalid_json(f"the body cannot be read ({error}).") from error
        except TimeoutError:
            raise errors.timeout_before_start(self._options.body_timeout_s) from None

    async def _answer(
        self, request: web.Request, kind: Kind, asked: ChatRequest | CompletionRequest
    ) -> web.StreamResponse:
        ingress = self._ingress
        ingress.check_room()
        tokenizer = await _tokenizer(ingress, asked.model)
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
            explained = await ingress.explain(head, *work[0], wishes.hints)
            return web.Response(body=msgspec.json.encode(explained), content_type=JSON)
        if asked.stream:
            return await self._stream(request, asked, head, tokenizer, work, prompts, wishes)
        sink = BodySink(head, len(work), tokenizer.token_bytes)
        exchange = Exchange(asked.model, head.id, sink, wishes)
        _echo(exchange, asked, tokenizer, work)
        self._open(exchange, asked, tokenizer, work)
        try:
            await exchange.ended.wait()
        finally:
            ingress.close(exchange)
        if exchange.error is not None:
            raise exchange.error
        body = sink.body(exchange.usage(prompts))
        return web.Response(body=body, content_type=JSON, headers=self._explanation(exchange))

    async def _stream(
        self,
        request: web.Request,
        asked: GenerationRequest,
        head: Head,
        tokenizer: Tokenizer,
        work: list[tuple[Prompt, Sampling]],
        prompts: int,
        wishes: Wishes,
    ) -> web.StreamResponse:
        sink = StreamSink(
            head,
            len(work),
            tokenizer.token_bytes,
            self._options.max_unsent_bytes,
            overflow=lambda: _cut(request, head.id, self._ingress),
        )
        exchange = Exchange(asked.model, head.id, sink, wishes)
        _echo(exchange, asked, tokenizer, work)
        self._open(exchange, asked, tokenizer, work)
        try:
            await exchange.begun.wait()
            if exchange.error is not None and not any(
                c.session.delivered for c in exchange.choices
            ):
                raise exchange.error
            headers = {**STREAM_HEADERS, **self._explanation(exchange)}
            response = web.StreamResponse(headers=headers)
            chunked = request.version >= HttpVersion11
            if chunked:
                response.enable_chunked_encoding()
            await response.prepare(request)
            transport = request.transport
            if transport is None:
                return response
            sink.open(transport, chunked=chunked)
            await exchange.ended.wait()
            usage = None if exchange.error is not None else exchange.usage(prompts)
            sink.end(usage, exchange.error)
        finally:
            self._ingress.close(exchange)
        # Waits for the client to read; by now that holds up nothing but its own connection.
        await response.write_eof()
        return response

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
        stops = StopAutomaton(asked.stop_strings) if asked.stop_strings else None
        skip = asked.skip_special_tokens is not False
        self._ingress.open(exchange, tokenizer, work, stops, skip_special_tokens=skip)

    # -- the rest ------------------------------------------------------------------------------

    async def _models(self, _request: web.Request) -> web.Response:
        return web.Response(body=responses.model_list(self._model_objects()), content_type=JSON)

    async def _model(self, request: web.Request) -> web.Response:
        wanted = request.match_info["model"]
        for model in self._model_objects():
            if model.id == wanted:
                return web.Response(body=responses.model_object(model), content_type=JSON)
        raise errors.unknown_model(wanted)

    def _model_objects(self) -> list[Model]:
        models = self._ingress.fleet.models()
        return [Model(name, int(card.started_at)) for name, card in sorted(models.items())]

    async def _metrics(self, _request: web.Request) -> web.Response:
        """Of this node alone; the supervisor has those of all."""
        node = self._ingress.node
        text = render([([("node", node.name)], node.metrics.collect())])
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        resource = request.match_info.route.resource
        # Not what the client wrote: that could be anything.
        path = OTHER if resource is None else resource.canonical
        self._ingress.measures.http.labels(path, str(response.status)).add()
        return response

    async def _live(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _health(self, _request: web.Request) -> web.Response:
        """By what the registry says: cheap, and believes it. `/ready` asks for a token."""
        models = {name: self._ingress.fleet.can_serve(name) for name in self._model_names()}
        return self._healthy(models, {})

    async def _ready(self, request: web.Request) -> web.Response:
        wanted = request.query.get("model")
        names = self._model_names()
        if wanted is not None and wanted not in names:
            raise errors.unknown_model(wanted)
        asked = names if wanted is None else [wanted]
        readiness = self._ingress.readiness
        verdicts = await asyncio.gather(*(readiness.of(name) for name in asked))
        found = dict(zip(asked, verdicts, strict=True))
        models = {name: verdict.ready for name, verdict in found.items()}
        why = {name: verdict.why for name, verdict in found.items() if verdict.why}
        return self._healthy(models, why)

    def _healthy(self, models: dict[str, bool], why: dict[str, str]) -> web.Response:
        missing = [
            role for role in (self._options.preprocessor,) if not self._ingress.has_role(role)
        ]
        draining = self._ingress.is_draining
        ready = any(models.values()) and not missing and not draining
        status = "ready" if ready else "draining" if draining else "not ready"
        body = {"status": status, "models": models, "missing": missing, "why": why}
        headers = {"Cache-Control": "no-store"}
        return web.json_response(body, status=200 if ready else 503, headers=headers)

    def _model_names(self) -> list[str]:
        return sorted(self._ingress.fleet.models())


def _accept_rest(queue: socket.socket) -> list[socket.socket]:
    """Everybody who waits to be accepted; then close the queue, with nothing in between."""
    accepted = []
    queue.setblocking(False)  # noqa: FBT003 - positional in the standard library
    with queue:
        while True:
            try:
                accepted.append(queue.accept()[0])
            except BlockingIOError:
                return accepted
            except ConnectionAbortedError:
                pass  # the client has gone in the meantime


async def _speak_openai(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error in OpenAI's form."""
    try:
        return await handler(request)
    except ApiError as error:
        problem = error
    except web.HTTPNotFound:
        problem = errors.not_found(request.path)
    except web.HTTPMethodNotAllowed:
        problem = errors.method_not_allowed(request.method)
    except web.HTTPClientError as error:
        problem = ApiError(error.status, error.reason, type=errors.INVALID_REQUEST)
    except Exception as error:
        # One request that meets a defect of ours must not end everybody else's.
        log.exception("request_broke", path=request.path, error=type(error).__name__)
        problem = errors.internal()
    return web.Response(body=problem.body(), status=problem.status, headers=problem.headers)


def _silent_logger() -> logging.Logger:
    logger = logging.getLogger("actors.ingress.http")
    logger.setLevel(logging.CRITICAL)
    return logger


async def _tokenizer(ingress: Ingress, model: str) -> Tokenizer:
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


def _cut(request: web.Request, request_id: str, ingress: Ingress) -> None:
    """The client reads more slowly than it may: give its memory back."""
    ingress.log.warning("slow_client_cut", request=request_id)
    if request.transport is not None:
        request.transport.abort()


def _new_id(prefix: str) -> str:
    """A request's name for logs and clients; not a secret."""
    return f"{prefix}-{random.getrandbits(96):024x}"
