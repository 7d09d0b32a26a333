"""Chat completions and completions."""

from __future__ import annotations

import random
from collections.abc import Callable

from actors.ingress.endpoints.running import Run, Running, Work, new_id
from actors.ingress.exchange import Exchange
from actors.ingress.openai.requests import (
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    parse_chat,
    parse_completion,
    refuse_unknown,
)
from actors.ingress.openai.responses import Usage
from actors.ingress.reading import reading_of
from actors.ingress.server import Request, Response
from actors.ingress.sinks import BodySink, Head, StreamSink
from actors.ingress.wishes import read_wishes
from actors.messages.names import Kind
from actors.messages.submit import ChatPrompt, Prompt, TextPrompt, TokenPrompt
from actors.text.tokenizer import Tokenizer


class Generation:
    """Requests for text."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._options = running.options

    async def chat(self, request: Request) -> Response | None:
        asked = parse_chat(request.body)
        self._check_known(request.body, asked)
        return await self._answer(request, "chat", asked)

    async def completion(self, request: Request) -> Response | None:
        asked = parse_completion(request.body)
        self._check_known(request.body, asked)
        return await self._answer(request, "completion", asked)

    def _check_known(self, body: bytes, asked: GenerationRequest) -> None:
        if self._options.unknown_fields == "refuse":
            refuse_unknown(body, asked)

    async def _answer(
        self, request: Request, kind: Kind, asked: ChatRequest | CompletionRequest
    ) -> Response | None:
        running = self._running
        model, tokenizer, card = await running.admit(request, asked.model, kind)
        head = Head(
            kind,
            new_id("chatcmpl" if kind == "chat" else "cmpl"),
            int(running.ingress.clock.wall()),
            asked.model,
            asked.include_usage,
        )
        prompts = prompts_of(asked)
        work = self._work(asked, prompts)
        wishes = read_wishes(request.headers, asked.user, self._options.tenant_header)

        def count(index: int) -> Usage | None:
            return exchange.usage_of(index)

        sink = self._sink(request, asked, head, tokenizer, len(work), count)
        exchange = Exchange(model, head.id, sink, wishes)
        exchange.prompt_only = asked.token_limit == 0
        _echo(exchange, asked, tokenizer, work)
        run = Run(request, exchange, tokenizer, work, reading_of(asked, card))
        explained = await running.only_explained(run)
        if explained is not None:
            return explained
        if isinstance(sink, BodySink):
            await running.whole(run)
            usage = exchange.usage(len(prompts))
            if asked.candidates > asked.choices:
                _choose(exchange, sink, asked)
            return Response(sink.body(usage), headers=running.explanation(exchange))

        async def last() -> None:
            usage = None if exchange.error is not None else exchange.usage(len(prompts))
            sink.end(usage, exchange.error)

        await running.stream(run, sink, last)
        return None

    def _sink(
        self,
        request: Request,
        asked: GenerationRequest,
        head: Head,
        tokenizer: Tokenizer,
        choices: int,
        count: Callable[[int], Usage | None],
    ) -> BodySink | StreamSink:
        hidden = tokenizer.special if asked.skip_special_tokens is not False else frozenset()
        if not asked.stream:
            return BodySink(head, choices, tokenizer.token_bytes, hidden)
        return StreamSink(
            head,
            choices,
            tokenizer.token_bytes,
            self._options.max_unsent_bytes,
            self._running.cut(request, head.id),
            self._running.ingress.writes,
            count=count if asked.counts_along else None,
            hidden=hidden,
        )

    def _work(self, asked: ChatRequest | CompletionRequest, prompts: list[Prompt]) -> Work:
        seed = random.getrandbits(63)
        limit = self._options.default_max_tokens
        return [
            (prompt, asked.sampling(limit, seed, choice=i * asked.candidates + j))
            for i, prompt in enumerate(prompts)
            for j in range(asked.candidates)
        ]


def prompts_of(asked: ChatRequest | CompletionRequest) -> list[Prompt]:
    """The different prompts of a request."""
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


def _choose(exchange: Exchange, sink: BodySink, asked: ChatRequest | CompletionRequest) -> None:
    """`best_of`: keep the likeliest."""
    generated = [len(choice.session.delivered) for choice in exchange.choices]
    sink.keep_best(asked.choices, asked.candidates, generated)
    if asked.logprobs is None:
        sink.drop_logprobs()


def _echo(exchange: Exchange, asked: GenerationRequest, tokenizer: Tokenizer, work: Work) -> None:
    """`echo` of the completions API: the prompt comes before its continuation, at once or with
    the log probabilities that its worker finds."""
    if not isinstance(asked, CompletionRequest) or not asked.echo:
        return
    texts = [_text(prompt, tokenizer) for prompt, _ in work]
    if asked.prompt_wish == "logprobs":
        exchange.echoes = texts
        return
    for index, text in enumerate(texts):
        exchange.sink.text(index, text, None)


def _text(prompt: Prompt, tokenizer: Tokenizer) -> str:
    match prompt:
        case TextPrompt(text=text):
            return text
        case TokenPrompt(tokens=tokens):
            return tokenizer.decode(tokens)
        case ChatPrompt():
            raise AssertionError("completions have no messages")
