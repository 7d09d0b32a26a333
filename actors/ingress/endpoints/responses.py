"""The Responses API: made, followed, asked for again, deleted."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec

from actors.ingress.endpoints.running import Run, Running, Served
from actors.ingress.exchange import Exchange
from actors.ingress.openai import errors
from actors.ingress.openai.errors import ApiError, bad_field
from actors.ingress.openai.responses_api import objects, record
from actors.ingress.openai.responses_api.items import Json, check_calls, completed, messages_of
from actors.ingress.openai.responses_api.objects import ResponseUsage
from actors.ingress.openai.responses_api.record import Record
from actors.ingress.openai.responses_api.request import ResponsesRequest, parse_responses
from actors.ingress.reading import reading_of
from actors.ingress.response_sink import ResponseSink
from actors.ingress.server import Request, Response
from actors.ingress.tokenizing import count_chat
from actors.ingress.wishes import read_wishes
from actors.messages.submit import ChatPrompt
from actors.runtime.transport.buckets import BucketLimits, BucketUnavailable, ValueTooLong

PATH = "/v1/responses/"
RETRY_AFTER_S = 1.0


class Responses:
    """Requests for, and about, responses."""

    def __init__(self, running: Running) -> None:
        self._running = running
        options, node = running.options, running.ingress.node
        limits = BucketLimits(
            ttl_s=options.response_ttl_s,
            total_bytes=options.response_store_bytes,
            value_bytes=options.max_response_bytes,
        )
        self._bucket = node.transport.bucket(f"{node.namespace}-responses", limits)

    # -- made ----------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response | None:
        running = self._running
        asked = parse_responses(request.body, unknown=running.options.unknown_fields)
        items = completed(asked.input or [])
        served = await running.admit(request, asked.model, "chat")
        before = await self._before(request, asked)
        base = objects.begun(asked, record.new_response_id(), int(running.ingress.clock.wall()))
        kept = Record(running.gate.owner(request), base, items, before)
        run, sink = self._run(request, asked, served, kept)
        try:
            explained = await running.only_explained(run)
            if explained is not None:
                return explained
            if not asked.stream:
                await running.whole(run)
                body = await self._ended(run, sink, kept)
                headers = running.explanation(run.exchange)
                return Response(msgspec.json.encode(body), headers=headers)
            await running.stream(run, sink, lambda: self._end_stream(run, sink, kept))
        except ApiError as error:
            raise _as_asked(error) from None
        return None

    async def count(self, request: Request) -> Response:
        """How many tokens a request's prompt would have; nothing is run, or kept."""
        asked = parse_responses(request.body, unknown=self._running.options.unknown_fields)
        self._running.gate.check_model(request, asked.model)
        _, tokenizer, _ = await self._running.served(asked.model, "chat")
        before = await self._before(request, asked)
        items = [*before, *completed(asked.input or [])]
        prompt = _prompt(asked, items)
        try:
            tokens = await asyncio.to_thread(count_chat, prompt, tokenizer)
        except ApiError as error:
            raise _as_asked(error) from None
        return _json({"object": "response.input_tokens", "input_tokens": tokens})

    async def _before(self, request: Request, asked: ResponsesRequest) -> list[Json]:
        """The conversation that the request goes on with. Raises ApiError."""
        name = asked.previous_response_id
        if name is None:
            return []
        try:
            found = await self._find(request, name)
        except ApiError as error:
            if error.status != 404:
                raise
            raise record.previous_not_found(name) from None
        return found.conversation

    def _run(
        self, request: Request, asked: ResponsesRequest, served: Served, kept: Record
    ) -> tuple[Run, ResponseSink]:
        running = self._running
        prompt = _prompt(asked, [*kept.before, *kept.input])
        sampling = asked.sampling(running.options.default_max_tokens, random.getrandbits(63))
        request_id = kept.response["id"]
        sink = ResponseSink(
            kept.response,
            served.tokenizer.token_bytes,
            running.options.max_unsent_bytes,
            running.cut(request, request_id),
            running.ingress.writes,
            streams=bool(asked.stream),
        )
        wishes = read_wishes(request.headers, asked.user, running.options.tenant_header)
        exchange = Exchange(served.model, request_id, sink, wishes)
        reading = reading_of(asked, served.card)
        return Run(request, exchange, served.tokenizer, [(prompt, sampling)], reading), sink

    async def _end_stream(self, run: Run, sink: ResponseSink, kept: Record) -> None:
        if run.exchange.error is not None:
            failed = objects.failed(kept.response, sink.outline.said, run.exchange.error)
            sink.outline.event("response.failed", response=failed)
            return
        body = await self._ended(run, sink, kept)
        sink.outline.event(f"response.{body['status']}", response=body)

    async def _ended(self, run: Run, sink: ResponseSink, kept: Record) -> Json:
        """The whole response, kept if that was wanted before its client hears of its end."""
        thoughts = sink.thoughts
        reasoning_tokens = 0
        if thoughts:
            encoded = run.tokenizer.encode(thoughts, add_special_tokens=False)
            reasoning_tokens = len(encoded) // 4
        body = objects.ended(
            kept.response,
            "incomplete" if sink.reason == "length" else "completed",
            sink.outline.items,
            ResponseUsage.of(run.exchange.usage(1), reasoning_tokens),
            int(self._running.ingress.clock.wall()),
        )
        if body["store"]:
            body["store"] = await self._keep(msgspec.structs.replace(kept, response=body))
        return body

    # -- kept ----------------------------------------------------------------------------------

    async def _keep(self, kept: Record) -> bool:
        name = kept.response["id"]
        try:
            await self._bucket.put(name, record.encode(kept))
        except (BucketUnavailable, ValueTooLong) as error:
            self._running.ingress.log.warning("response_not_kept", response=name, why=str(error))
            return False
        return True

    async def _find(self, request: Request, name: str) -> Record:
        """Raises ApiError."""
        found = None
        if record.is_response_id(name):
            try:
                value = await self._bucket.get(name)
            except BucketUnavailable as error:
                text = f"Responses cannot be looked up now: {error.why}."
                raise errors.unavailable(text, RETRY_AFTER_S) from None
            found = record.decode(value, self._running.gate.owner(request))
        if found is None:
            raise errors.not_kept(name)
        return found

    async def retrieve(self, request: Request) -> Response:
        if request.query.get("stream") in {"true", "1"}:
            raise errors.unsupported("stream", "A response that is kept is not streamed again.")
        found = await self._find(request, _name(request))
        return _json(found.response)

    async def items(self, request: Request) -> Response:
        found = await self._find(request, _name(request))
        return _json(record.page(found, request.query))

    async def delete(self, request: Request) -> Response:
        name = _name(request)
        await self._find(request, name)
        try:
            await self._bucket.delete(name)
        except BucketUnavailable as error:
            text = f"The response cannot be deleted now: {error.why}."
            raise errors.unavailable(text, RETRY_AFTER_S) from None
        return _json({"id": name, "object": "response", "deleted": True})

    async def cancel(self, request: Request) -> Response:
        """Only what runs in the background could be cancelled."""
        await self._find(request, _name(request))
        text = "Only responses made in the background can be cancelled, and none is made so here."
        raise bad_field(None, text, code="response_not_cancellable")


def _prompt(asked: ResponsesRequest, items: list[Json]) -> ChatPrompt:
    check_calls(items)
    arguments = bytes(asked.chat_template_kwargs)
    tools = asked.usable_tools
    return ChatPrompt(
        msgspec.json.encode(messages_of(asked.instructions, items)),
        b"{}" if arguments == b"null" else arguments,
        asked.add_generation_prompt is not False,
        b"null" if tools is None else tools.raw,
    )


def _name(request: Request) -> str:
    """Of the response that a path is about. Raises ApiError for a path that is none of ours."""
    name, _, rest = request.path.removeprefix(PATH).partition("/")
    if rest not in {"", "input_items", "cancel"}:
        raise errors.not_found(request.path)
    return name


def _json(body: Any) -> Response:
    return Response(msgspec.json.encode(body))


def _as_asked(error: ApiError) -> ApiError:
    """What is wrong with the messages is wrong with the input that they were made from."""
    if error.param is not None and error.param.startswith("messages"):
        error.param = "input"
    return error
