"""The spans of an ingress: the HTTP request, and below it one for each attempt at each choice.

    POST /v1/chat/completions        the client's `traceparent` above it
      attempt                        epoch 0; ended in an error if a worker fell
        preprocess, route, prefill, handoff, decode     made by who does them
      attempt                        epoch 1, linked to the one before, and so are the spans below

Names of attributes are OpenTelemetry's (`http.*`, `gen_ai.*`) where there are such, else
`understudy.*`. None holds a word of a prompt or an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.messages.submit import ChatPrompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.ingress.exchange import Choice, Exchange
    from actors.ingress.openai.responses import FinishReason
    from actors.ingress.server import Request
    from actors.messages.assign import Assigned
    from actors.messages.sampling import Sampling
    from actors.messages.submit import Prompt
    from actors.runtime.tracing import TraceContext
    from actors.runtime.tracing.tracer import Span, Tracer

ATTEMPT = "attempt"
MAX_CHARACTERS = 256
"""Of what a client has made up: spans wait in memory, by the thousand."""
SERVER_ERROR = 500


class RequestTrace:
    """One traced HTTP request, from its being read to its end."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._exchange: Exchange | None = None
        """The last one: embeddings of many texts are several."""
        self._closed: list[Exchange] = []
        self._attempts: dict[int, Span] = {}
        """Those under way, by choice."""
        self._reasons: dict[int, FinishReason] = {}

    def begun(self, exchange: Exchange, prompts: Sequence[tuple[Prompt, Sampling]]) -> None:
        """It is a request for tokens, and these are its choices."""
        self._exchange = exchange
        prompt, sampling = prompts[0]
        operation = "chat" if isinstance(prompt, ChatPrompt) else "text_completion"
        if sampling.prompt == "embedding":
            operation = "embeddings"
        self._span.set(
            {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "understudy",
                "gen_ai.request.model": exchange.model,
                "gen_ai.request.choice.count": len(prompts),
                "gen_ai.request.max_tokens": sampling.max_tokens,
                "gen_ai.request.temperature": sampling.temperature,
                "gen_ai.request.top_p": sampling.top_p,
                "gen_ai.request.top_k": sampling.top_k,
                "gen_ai.request.frequency_penalty": sampling.frequency_penalty,
                "gen_ai.request.presence_penalty": sampling.presence_penalty,
                "gen_ai.response.id": exchange.request_id,
                "understudy.request": exchange.request_id,
            }
        )

    def attempt(self, choice: Choice, epoch: int, resumed: int) -> TraceContext:
        """Another attempt begins, and what was under way before has failed."""
        before = self._attempts.pop(choice.index, None)
        if before is not None:
            before.set({"error.type": "lost"})
            before.end(choice.session.setback or "lost")
        attributes = {
            "understudy.epoch": epoch,
            "understudy.choice": choice.index,
            "understudy.resumed_tokens": resumed,
        }
        attempt = self._span.child(ATTEMPT, attributes, replaces=before)
        self._attempts[choice.index] = attempt
        return attempt.context(replaces=before)

    def assigned(self, index: int, assigned: Assigned) -> None:
        """Workers have taken a choice on."""
        attempt = self._attempts.get(index)
        if attempt is not None:
            workers = {
                "understudy.context": str(assigned.context or assigned.generation),
                "understudy.generation": str(assigned.generation),
            }
            attempt.set(workers)
            attempt.event("assigned", workers)

    def finished(self, index: int, reason: FinishReason) -> None:
        """A choice has come to its end."""
        self._reasons[index] = reason
        attempt = self._attempts.pop(index, None)
        if attempt is not None:
            attempt.set({"gen_ai.response.finish_reasons": [reason]})
            attempt.end()

    def closed(self, now: float) -> None:
        """The exchange is over, however it ended; `now` on the precise clock."""
        exchange = self._exchange
        assert exchange is not None, "it was begun"
        firsts = [c.watch.first_at for c in exchange.choices if c.watch.first_at]
        if firsts:
            self._span.event("first_token", {}, ago_s=now - min(firsts))
        self._closed.append(exchange)
        counts = [one.counts for one in self._closed]
        sessions = [choice.session for one in self._closed for choice in one.choices]
        cached = [one.prompt_tokens_details.cached_tokens for one in counts]
        self._span.set(
            {
                "gen_ai.response.model": exchange.model,
                "gen_ai.usage.input_tokens": sum(one.prompt_tokens for one in counts),
                "gen_ai.usage.output_tokens": sum(one.completion_tokens for one in counts),
                "gen_ai.usage.cache_read.input_tokens": sum(cached),
                "gen_ai.response.finish_reasons": list(self._reasons.values()),
                "understudy.replays": sum(s.replays for s in sessions),
            }
        )
        error = "cancelled" if exchange.error is None else str(exchange.error.status)
        for attempt in self._attempts.values():
            attempt.set({"error.type": error})
            attempt.end(error)
        self._attempts.clear()

    def end(self, status: int | None) -> None:
        """The answer is out. `status`: None when it was a stream, or when the client has left."""
        exchange = self._exchange
        failed = "" if exchange is None or exchange.error is None else str(exchange.error.status)
        left = exchange is not None and not exchange.ended.is_set()
        if status is not None:
            self._span.set({"http.response.status_code": status})
            failed = str(status) if status >= SERVER_ERROR else ""
        elif left or exchange is None:
            failed = "cancelled"
        else:
            self._span.set({"http.response.status_code": 200})
        if failed:
            self._span.set({"error.type": failed})
        self._span.end(failed)


def begin(tracer: Tracer, request: Request, route: str | None) -> RequestTrace | None:
    """The trace of a request that has come in; None when it is not to be traced."""
    if request.method != "POST":
        return None  # pages, probes, scrapes
    attributes = {
        "http.request.method": request.method,
        "url.path": request.path[:MAX_CHARACTERS] if route is not None else "",
        "client.address": request.peer,
        "user_agent.original": request.headers.get("user-agent", "")[:MAX_CHARACTERS],
    }
    if route is not None:
        attributes["http.route"] = route
    span = tracer.begin(f"{request.method} {route or ''}".strip(), request.headers, attributes)
    return None if span is None else RequestTrace(span)
