"""Embeddings."""

from __future__ import annotations

from actors.ingress.endpoints.running import Run, Running, Served, Work, new_id
from actors.ingress.exchange import Exchange
from actors.ingress.openai.embeddings import EmbeddingsRequest, embedding_list, parse_embeddings
from actors.ingress.openai.errors import ApiError, bad_field, unsupported
from actors.ingress.openai.responses import FinishReason
from actors.ingress.reading import Reading
from actors.ingress.server import Request, Response
from actors.ingress.sinks import Sink
from actors.ingress.wishes import Wishes, read_wishes
from actors.messages.sampling import Logprobs, Sampling
from actors.messages.submit import TextPrompt, TokenPrompt
from actors.text.answers.parts import Part

TOGETHER = 64
"""Texts of one request that are on their way at the same time: no client fills the queues alone."""


class Embeddings:
    """Requests for vectors."""

    def __init__(self, running: Running) -> None:
        self._running = running

    async def create(self, request: Request) -> Response:
        running = self._running
        asked = parse_embeddings(request.body, unknown=running.options.unknown_fields)
        served = await running.admit(request, asked.model, None)
        _check(asked, served)
        wishes = read_wishes(request.headers, asked.user, running.options.tenant_header)
        work = _work(asked)
        name = new_id("embd")
        vectors: list[bytes] = []
        prompt_tokens = 0
        headers: dict[str, str] = {}
        for first in range(0, len(work), TOGETHER):
            part = work[first : first + TOGETHER]
            exchange = await self._embed(request, served, part, name, wishes)
            assert isinstance(exchange.sink, VectorSink)
            vectors += exchange.sink.vectors
            prompt_tokens += exchange.usage(len(part)).prompt_tokens
            headers = headers or running.explanation(exchange)
        form = asked.encoding_format or "float"
        return Response(embedding_list(asked.model, vectors, prompt_tokens, form), headers=headers)

    async def _embed(
        self, request: Request, served: Served, work: Work, name: str, wishes: Wishes
    ) -> Exchange:
        exchange = Exchange(served.model, name, VectorSink(len(work)), wishes)
        run = Run(request, exchange, served.tokenizer, work, Reading())
        try:
            await self._running.whole(run)
        except ApiError as error:
            if error.param == "prompt":
                error.param = "input"
            raise
        return exchange


class VectorSink(Sink):
    """Takes vectors, and nothing else."""

    def __init__(self, count: int) -> None:
        self.vectors = [b""] * count

    def vector(self, index: int, embedding: bytes) -> None:
        self.vectors[index] = embedding

    def text(self, index: int, text: str, logprobs: list[Logprobs] | None) -> None:
        """There is none."""

    def parts(self, index: int, parts: list[Part], logprobs: list[Logprobs] | None) -> None:
        """There are none."""

    def finish(self, index: int, reason: FinishReason) -> None:
        """Nothing is said of it."""


def _check(asked: EmbeddingsRequest, served: Served) -> None:
    size = served.card.embedding_size
    if not size:
        raise bad_field(
            "model",
            f"The engine of '{asked.model}' ({served.card.engine}) makes no embeddings.",
            code="unsupported_model",
        )
    if asked.dimensions not in {None, size}:
        text = f"'{asked.model}' makes vectors of {size} dimensions, and they are not cut."
        raise unsupported("dimensions", text)


def _work(asked: EmbeddingsRequest) -> Work:
    sampling = Sampling(max_tokens=1, temperature=0.0, prompt="embedding")
    special = asked.add_special_tokens is not False
    return [
        (TextPrompt(one, special) if isinstance(one, str) else TokenPrompt(one), sampling)
        for one in asked.inputs
    ]
