"""What every endpoint does that has workers compute something."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from actors.ingress.exchange import Exchange
from actors.ingress.gate import Gate
from actors.ingress.openai import errors
from actors.ingress.options import IngressOptions
from actors.ingress.reading import Reading
from actors.ingress.server import Request, Response
from actors.ingress.sinks import EventSink
from actors.ingress.wishes import explaining_headers
from actors.messages.cards import WorkerCard
from actors.messages.names import Kind
from actors.messages.sampling import Sampling
from actors.messages.submit import Prompt
from actors.text.model_files import TokenizerNotFound

if TYPE_CHECKING:
    from actors.ingress.actor import Ingress
    from actors.ingress.tracing import RequestTrace
    from actors.text.tokenizer import Tokenizer

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}

Work = list[tuple[Prompt, Sampling]]
"""One prompt and sampling a choice."""


class Served(NamedTuple):
    """A model that a client has named."""

    model: str
    """As its workers declare it."""
    tokenizer: Tokenizer
    card: WorkerCard


class Run(NamedTuple):
    """What is to be computed for one HTTP request."""

    request: Request
    exchange: Exchange
    tokenizer: Tokenizer
    work: Work
    reading: Reading


class Running:
    """The way of a request through the service, for whichever endpoint."""

    def __init__(
        self,
        ingress: Ingress,
        options: IngressOptions,
        gate: Gate,
        headers: Callable[[Request], Mapping[str, str]],
        traces: Mapping[Request, RequestTrace],
    ) -> None:
        """`headers`: those of every answer. `traces`: of the requests that are being traced."""
        self.ingress = ingress
        self.options = options
        self.gate = gate
        self._headers = headers
        self._traces = traces

    async def admit(self, request: Request, named: str, kind: Kind | None) -> Served:
        """The model that the client calls so, if it may use it and there is room. Raises
        ApiError."""
        self.gate.check_model(request, named)
        self.ingress.check_room()
        return await self.served(named, kind)

    async def served(self, named: str, kind: Kind | None = None) -> Served:
        """The model that the client calls so. Raises ApiError."""
        ingress = self.ingress
        model = ingress.model_named(named, kind)
        if model != named and model not in ingress.fleet.models():
            raise errors.unavailable(f"No worker of '{named}' is ready.", 1.0)
        try:
            tokenizer = await ingress.tokenizer_of(model)
        except TokenizerNotFound as error:
            ingress.log.warning("tokenizer_not_loaded", model=model, error=str(error))
            raise errors.internal(f"The tokenizer of '{named}' cannot be loaded.") from error
        return Served(model, tokenizer, ingress.fleet.models()[model])

    async def only_explained(self, run: Run) -> Response | None:
        """What the router would do with the first choice, when the client wants to know no more.
        Raises ApiError."""
        exchange = run.exchange
        if not (exchange.wishes.only_explain and self.options.explain):
            return None
        explained = await self.ingress.explain(
            exchange.request_id, exchange.model, run.work[0], exchange.wishes.hints
        )
        return Response(msgspec.json.encode(explained))

    async def whole(self, run: Run) -> None:
        """Return when all of it has come. Raises ApiError."""
        exchange = run.exchange
        try:
            self._open(run)
            await exchange.ended.wait()
        finally:
            self.ingress.close(exchange)
        if exchange.error is not None:
            raise exchange.error

    async def stream(self, run: Run, sink: EventSink, last: Callable[[], Awaitable[None]]) -> None:
        """Answer with events as they come; `last` writes those that close the answer, also one
        whose exchange has failed. Raises ApiError for what fails before its first token."""
        exchange, request = run.exchange, run.request
        try:
            self._open(run)
            await exchange.begun.wait()
            if exchange.error is not None and not any(
                c.session.delivered for c in exchange.choices
            ):
                raise exchange.error
            headers = {**STREAM_HEADERS, **self.explanation(exchange), **self._headers(request)}
            stream = request.begin(200, headers)
            if stream is None:
                return
            sink.open(stream.transport, chunked=stream.chunked)
            for choice in exchange.choices:
                choice.hurry()
            await exchange.ended.wait()
            await last()
        finally:
            self.ingress.close(exchange)
        # Waits for the client to read; by now that holds up nothing but its own connection.
        await stream.end()

    def _open(self, run: Run) -> None:
        run.request.name = run.exchange.request_id
        run.exchange.trace = self._traces.get(run.request)
        self.gate.charge(run.request, run.exchange)
        self.ingress.open(run.exchange, run.tokenizer, run.work, run.reading)

    def explanation(self, exchange: Exchange) -> dict[str, str]:
        """The headers that say how the request was placed, for clients that ask."""
        if not (exchange.wishes.explain and self.options.explain):
            return {}
        return explaining_headers(exchange.assigned)

    def cut(self, request: Request, request_id: str) -> Callable[[], None]:
        """To be called when the client reads more slowly than it may: gives its memory back."""

        def cut() -> None:
            self.ingress.log.warning("slow_client_cut", request=request_id)
            request.cut()

        return cut


def new_id(prefix: str) -> str:
    """A request's name for logs and clients; not a secret."""
    return f"{prefix}-{random.getrandbits(96):024x}"
