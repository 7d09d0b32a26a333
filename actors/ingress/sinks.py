"""Where the text of an answer goes: a stream of events, or one body at the end.

A sink is told what its choices produce, in order, and never waits: a stream's bytes go straight to
the socket's buffer, so no task is woken for a token.
"""

from __future__ import annotations

import asyncio
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence
from functools import partial

import msgspec

from actors.ingress.openai import responses
from actors.ingress.openai.errors import ApiError
from actors.ingress.openai.logprobs import (
    ChatLogprobs,
    CompletionLogprobs,
    TokenBytes,
    chat_logprobs,
    completion_logprobs,
)
from actors.ingress.openai.responses import (
    ChatChoice,
    ChatMessage,
    CompletionChoice,
    FinishReason,
    ToolCall,
    Usage,
)
from actors.ingress.openai.stream import DONE, ChatStream, CompletionStream, error_event
from actors.ingress.server.direct import Outlet, Writes
from actors.messages.names import Kind
from actors.messages.sampling import Logprobs
from actors.text.answers.parts import CallArguments, CallBegin, Content, Part, Reasoning

MAX_READY_SIZE = 2048
CHUNK_SIZES = tuple(b"%x\r\n" % size for size in range(MAX_READY_SIZE))
"""Heads of chunks of HTTP's chunked coding, by size."""


class Lane:
    """The way of a choice's text to its client, once nothing but text is left to say. All that a
    token needs lies together: of a thousand streams nothing is in a cache when its turn comes."""

    __slots__ = ("_after", "_before", "_chunked", "_fixed", "_write")

    def __init__(self, outlet: Outlet, before: bytes, after: bytes, *, chunked: bool) -> None:
        """`before` and `after`: what an event has around its text."""
        self._write = outlet.write_text
        self._before = before
        self._after = after + b"\r\n" if chunked else after
        self._fixed = len(before) + len(after)
        self._chunked = chunked

    def push(self, text: bytes) -> None:
        """Send text that is not empty, escaped as in a JSON string."""
        if self._chunked:
            size = self._fixed + len(text)
            head = CHUNK_SIZES[size] if size < MAX_READY_SIZE else b"%x\r\n" % size
        else:
            head = b""
        self._write(b"".join((head, self._before, text, self._after)))


class Head(msgspec.Struct, frozen=True):
    """What all choices of an answer have in common."""

    kind: Kind
    id: str
    created: int
    model: str
    include_usage: bool


class Sink(ABC):
    """Takes the answer of one HTTP request."""

    @abstractmethod
    def text(self, index: int, text: str, logprobs: list[Logprobs] | None) -> None:
        """The next piece of a choice; may be empty when only logprobs are new."""

    @abstractmethod
    def parts(self, index: int, parts: list[Part], logprobs: list[Logprobs] | None) -> None:
        """Instead of `text`, for an answer that is read for calls and reasoning."""

    def vector(self, index: int, embedding: bytes) -> None:
        """A choice's prompt as packed float32. Only of a request for embeddings."""
        raise NotImplementedError

    @abstractmethod
    def finish(self, index: int, reason: FinishReason) -> None:
        """A choice is complete."""

    def lane(self, index: int) -> Lane | None:
        """A faster way than `text` for a piece of a choice whose role has been said; None when
        there is none yet. Good until `finish`."""
        del index
        return None


class EventSink(Sink):
    """Writes server-sent events. Until `open` they are held, so that a request that fails before
    its first token can still be answered with a status of its own."""

    def __init__(self, limit_bytes: int, overflow: Callable[[], None], writes: Writes) -> None:
        """`overflow` is called when the client leaves more than `limit_bytes` unread."""
        self._limit_bytes = limit_bytes
        self._overflow = overflow
        self._writes = writes
        self._held: list[bytes] = []
        self._outlet: Outlet | None = None
        self._chunked = True

    def open(self, transport: asyncio.WriteTransport, *, chunked: bool) -> None:
        """The response's head is out: write what is held, and from now on at once."""
        self._outlet, self._chunked = Outlet(transport, self._writes, self._waiting), chunked
        held, self._held = self._held, []
        if held:
            self._write(b"".join(held))

    def _write(self, data: bytes, *, waits: bool = False) -> None:
        """`waits`: it may wait for more of its kind (`stream_interval_s`)."""
        if self._outlet is None:
            self._held.append(data)
            return
        chunk = b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
        if waits:
            self._outlet.write_text(chunk)
        else:
            self._outlet.write(chunk)

    def _waiting(self, size: int) -> None:
        if size > self._limit_bytes:
            self._overflow()


class BodySink(Sink):
    """Collects everything for one JSON body."""

    def __init__(
        self,
        head: Head,
        choices: int,
        token_bytes: TokenBytes,
        hidden: Container[int] = frozenset(),
    ) -> None:
        """`hidden`: tokens that show in log probabilities and not in the text."""
        self._head = head
        self._hidden = hidden
        self._token_bytes = token_bytes
        self._texts: list[list[str]] = [[] for _ in range(choices)]
        self._logprobs: list[list[Logprobs]] = [[] for _ in range(choices)]
        self._reasons: list[FinishReason] = ["stop"] * choices
        self._reasoning: list[list[str]] = [[] for _ in range(choices)]
        self._calls: list[list[tuple[str, str, list[str]]]] = [[] for _ in range(choices)]

    def text(self, index: int, text: str, logprobs: list[Logprobs] | None) -> None:
        self._texts[index].append(text)
        self._logprobs[index] += logprobs or ()

    def parts(self, index: int, parts: list[Part], logprobs: list[Logprobs] | None) -> None:
        self._logprobs[index] += logprobs or ()
        for part in parts:
            match part:
                case Content(text):
                    self._texts[index].append(text)
                case Reasoning(text):
                    self._reasoning[index].append(text)
                case CallBegin(_, name):
                    self._calls[index].append((new_call_id(), name, []))
                case CallArguments(call, text):
                    self._calls[index][call][2].append(text)

    def finish(self, index: int, reason: FinishReason) -> None:
        self._reasons[index] = reason

    def keep_best(self, n: int, of: int, generated: Sequence[int]) -> None:
        """Of every `of` choices keep the `n` whose tokens are likeliest on average, the best first.
        `generated`: how many tokens each choice has."""
        kept: list[int] = []
        for first in range(0, len(generated), of):
            candidates = range(first, first + of)
            scores = {i: self._score(i, generated[i]) for i in candidates}
            kept += sorted(candidates, key=lambda i: -scores[i])[:n]
        self._texts = [self._texts[i] for i in kept]
        self._logprobs = [self._logprobs[i] for i in kept]
        self._reasons = [self._reasons[i] for i in kept]

    def _score(self, index: int, generated: int) -> float:
        entries = self._logprobs[index][-generated:] if generated else []
        total = sum(entry.chosen.logprob for entry in entries)
        return total / len(entries) if entries else -math.inf

    def drop_logprobs(self) -> None:
        """They were only needed here."""
        self._logprobs = [[] for _ in self._logprobs]

    def body(self, usage: Usage) -> bytes:
        """The response body, once every choice is complete."""
        head = self._head
        indices = range(len(self._texts))
        if head.kind == "chat":
            return responses.chat_completion(
                head.id, head.created, head.model, [self._chat(i) for i in indices], usage
            )
        return responses.completion(
            head.id, head.created, head.model, [self._completion(i) for i in indices], usage
        )

    def _chat(self, index: int) -> ChatChoice:
        entries = self._logprobs[index]
        logprobs = chat_logprobs(entries, self._token_bytes) if entries else None
        calls = [ToolCall.of(id_, name, "".join(said)) for id_, name, said in self._calls[index]]
        text = "".join(self._texts[index])
        # Beside calls the API has null for no text.
        content = None if calls and not text else text
        message = ChatMessage.of(content, "".join(self._reasoning[index]), calls)
        return ChatChoice.of(index, message, self._reasons[index], logprobs)

    def _completion(self, index: int) -> CompletionChoice:
        entries = self._logprobs[index]
        logprobs = None
        if entries:
            logprobs = completion_logprobs(entries, self._token_bytes, 0, self._hidden)
        text = "".join(self._texts[index])
        return CompletionChoice(index, text, self._reasons[index], logprobs)


class StreamSink(EventSink):
    """The chunks of chat completions and completions."""

    def __init__(
        self,
        head: Head,
        choices: int,
        token_bytes: TokenBytes,
        limit_bytes: int,
        overflow: Callable[[], None],
        writes: Writes,
        count: Callable[[int], Usage | None] | None = None,
        hidden: Container[int] = frozenset(),
    ) -> None:
        """`hidden`: as of `BodySink`. `count`: the tokens of a choice so far, for clients that want
        to see them in every chunk."""
        super().__init__(limit_bytes, overflow, writes)
        make = ChatStream if head.kind == "chat" else CompletionStream
        self._streams: Sequence[ChatStream | CompletionStream] = [
            make(
                head.id,
                head.created,
                head.model,
                index=i,
                include_usage=head.include_usage,
                count=None if count is None else partial(count, i),
            )
            for i in range(choices)
        ]
        self._head = head
        self._counts = count is not None
        self._hidden = hidden
        self._token_bytes = token_bytes
        self._begun = [head.kind == "completion"] * choices
        self._offsets = [0] * choices

    def text(self, index: int, text: str, logprobs: list[Logprobs] | None) -> None:
        stream = self._streams[index]
        events, begun = b"", self._begun[index]
        if not begun and isinstance(stream, ChatStream):
            self._begun[index] = True
            events = stream.role()
        if text or logprobs:
            events += stream.content(text, self._format(index, logprobs))
            self._offsets[index] += len(text)
        if events:
            self._write(events, waits=begun)

    def parts(self, index: int, parts: list[Part], logprobs: list[Logprobs] | None) -> None:
        stream = self._streams[index]
        assert isinstance(stream, ChatStream), "only chat answers are read"
        self.text(index, "", None)
        events = [
            stream.part(part, new_call_id() if isinstance(part, CallBegin) else "")
            for part in parts
        ]
        if logprobs:
            events.append(stream.delta({}, chat_logprobs(logprobs, self._token_bytes)))
        if events:
            begins = any(isinstance(part, CallBegin) for part in parts)
            self._write(b"".join(events), waits=not begins)

    def finish(self, index: int, reason: FinishReason) -> None:
        self.text(index, "", None)
        self._write(self._streams[index].finish(reason))

    def end(self, usage: Usage | None, error: ApiError | None) -> None:
        """Write what closes the stream; the caller ends the response."""
        if error is not None:
            self._write(error_event(error))
        elif usage is not None and self._head.include_usage:
            self._write(self._streams[0].usage(usage))
        self._write(DONE)
        if self._outlet is not None:
            self._outlet.flush()

    def _format(
        self, index: int, logprobs: list[Logprobs] | None
    ) -> ChatLogprobs | CompletionLogprobs | None:
        if not logprobs:
            return None
        if self._head.kind == "chat":
            return chat_logprobs(logprobs, self._token_bytes)
        offset = self._offsets[index]
        return completion_logprobs(logprobs, self._token_bytes, offset, self._hidden)

    def lane(self, index: int) -> Lane | None:
        if self._outlet is None or not self._begun[index] or self._counts:
            return None
        before, after = self._streams[index].around_content
        return Lane(self._outlet, before, after, chunked=self._chunked)


def new_call_id() -> str:
    """A call's name, by which its answer will refer to it; not a secret."""
    return f"call_{random.getrandbits(96):024x}"
