"""Sinks: what a client is sent, read back by the official client's own types."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from actors.ingress.openai import errors
from actors.ingress.openai.responses import Usage
from actors.ingress.server.direct import Writes
from actors.ingress.sinks import BodySink, Head, StreamSink
from actors.messages.names import Kind
from actors.messages.sampling import Logprobs, TokenLogprob
from actors.text.answers.parts import CallBegin, Content
from tests.service import tokenizer

USAGE = Usage.of(3, 4, 1)
LOGPROBS = [Logprobs(TokenLogprob(400, -0.5), (TokenLogprob(400, -0.5),))]


class Client(asyncio.WriteTransport):
    """A connection whose other end reads when it is told to."""

    def __init__(self, *, reads: bool = True) -> None:
        super().__init__()
        self.received = b""
        self._reads = reads
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._closing, "nothing is written to a closed connection"
        self.received += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0 if self._reads else len(self.received)

    def is_closing(self) -> bool:
        return self._closing

    def abort(self) -> None:
        self._closing = True


def head(kind: Kind = "chat", *, include_usage: bool = False) -> Head:
    return Head(kind, "id-1", 1_700_000_000, "m", include_usage)


def stream(
    kind: Kind = "chat",
    choices: int = 1,
    *,
    include_usage: bool = False,
    limit_bytes: int = 2**20,
    client: Client | None = None,
    writes: Writes | None = None,
) -> StreamSink:
    def cut() -> None:
        assert client is not None, "nobody was to be cut off"
        client.abort()

    made = head(kind, include_usage=include_usage)
    return StreamSink(made, choices, tokenizer().token_bytes, limit_bytes, cut, writes or Writes())


def body(kind: Kind = "chat", choices: int = 1) -> BodySink:
    return BodySink(head(kind), choices, tokenizer().token_bytes)


def events(sent: bytes) -> list[str]:
    return [event.data for event in SSEDecoder().iter_bytes(iter([sent]))]


def unchunked(sent: bytes) -> Iterator[bytes]:
    """The chunks of a body in HTTP's chunked coding, its end not included."""
    while sent:
        size, _, rest = sent.partition(b"\r\n")
        length = int(size, 16)
        assert rest[length : length + 2] == b"\r\n"
        yield rest[:length]
        sent = rest[length + 2 :]


def chat_chunks(sent: bytes) -> list[ChatCompletionChunk]:
    *chunks, done = events(sent)
    assert done == "[DONE]"
    return [ChatCompletionChunk.model_validate_json(chunk, strict=True) for chunk in chunks]


def completion_choice(event: str) -> dict[str, Any]:
    """As JSON: the client's type of a whole completion knows no chunk without a finish reason."""
    [choice] = msgspec.json.decode(event)["choices"]
    assert isinstance(choice, dict)
    return choice


def test_nothing_is_written_before_the_response_is_open() -> None:
    client, sink = Client(), stream()

    sink.text(0, "held", None)
    assert client.received == b""

    sink.open(client, chunked=False)
    sink.text(0, " and more", None)
    sink.finish(0, "stop")
    sink.end(USAGE, None)

    opening, first, second, closing = chat_chunks(client.received)
    assert opening.choices[0].delta.role == "assistant"
    assert first.choices[0].delta.content == "held"
    assert second.choices[0].delta.content == " and more"
    assert closing.choices[0].finish_reason == "stop"


async def test_what_is_only_more_of_the_same_waits_and_nothing_else_does() -> None:
    client, sink = Client(), stream(writes=Writes(interval_s=1000.0))
    sink.open(client, chunked=False)

    def shown() -> list[str]:
        said = [event for event in events(client.received) if event != "[DONE]"]
        deltas = [ChatCompletionChunk.model_validate_json(one).choices[0].delta for one in said]
        return [delta.content or delta.role or "call or end" for delta in deltas]

    sink.text(0, "first", None)
    assert shown() == ["assistant", "first"]
    sink.text(0, "second", None)
    sink.parts(0, [Content("third")], None)
    assert shown() == ["assistant", "first"]
    sink.parts(0, [CallBegin(0, "f")], None)
    assert shown() == ["assistant", "first", "second", "third", "call or end"]
    lane = sink.lane(0)
    assert lane is not None
    lane.push(b"fourth")
    assert shown()[-1] == "call or end"
    sink.finish(0, "stop")
    assert shown()[-2:] == ["fourth", "call or end"]


def test_every_write_is_one_chunk_of_http() -> None:
    client, sink = Client(), stream("completion")
    sink.open(client, chunked=True)

    sink.text(0, "é" * 1000, None)
    sink.finish(0, "length")
    sink.end(None, None)

    text, finish, done = unchunked(client.received)
    assert completion_choice(*events(text))["text"] == "é" * 1000
    assert completion_choice(*events(finish))["finish_reason"] == "length"
    assert events(done) == ["[DONE]"]


@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=5)), max_size=20), st.integers(0, 20))
def test_a_stream_gives_each_choice_its_own_text_whenever_it_opens(
    pieces: list[tuple[int, str]], opened_after: int
) -> None:
    client, sink = Client(), stream(choices=3)
    for count, (index, text) in enumerate(pieces):
        if count == opened_after:
            sink.open(client, chunked=False)
        sink.text(index, text, None)
    for index in range(3):
        sink.finish(index, "stop")
    if opened_after >= len(pieces):
        sink.open(client, chunked=False)
    sink.end(None, None)

    texts, roles, reasons = [""] * 3, [0] * 3, [0] * 3
    for chunk in chat_chunks(client.received):
        [choice] = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        roles[choice.index] += choice.delta.role is not None
        reasons[choice.index] += choice.finish_reason is not None
    assert texts == ["".join(t for i, t in pieces if i == index) for index in range(3)]
    assert roles == reasons == [1, 1, 1]


def test_usage_comes_last_and_only_when_asked_for() -> None:
    for include_usage in (False, True):
        client, sink = Client(), stream(include_usage=include_usage)
        sink.open(client, chunked=False)
        sink.finish(0, "stop")
        sink.end(USAGE, None)

        *chunks, last = chat_chunks(client.received)
        assert all(chunk.usage is None for chunk in chunks)
        assert (last.usage is not None) is include_usage
        if last.usage is not None:
            assert (last.usage.total_tokens, last.choices) == (7, [])


def test_an_error_after_the_first_token_is_an_event_and_the_last_one() -> None:
    client, sink = Client(), stream(include_usage=True)
    sink.open(client, chunked=False)
    sink.text(0, "half an", None)
    sink.end(USAGE, errors.unavailable("gone", 1.0))

    *_, error, done = events(client.received)
    assert msgspec.json.decode(error)["error"]["message"] == "gone"
    assert done == "[DONE]"


def test_a_client_that_does_not_read_is_cut_once_its_limit_is_reached() -> None:
    client = Client(reads=False)
    sink = stream("completion", limit_bytes=10_000, client=client)
    sink.open(client, chunked=True)

    for _ in range(1000):
        sink.text(0, "unread", None)
    sink.finish(0, "stop")
    sink.end(None, None)

    assert client.is_closing()
    assert 10_000 < len(client.received) < 11_000


def test_logprobs_of_a_stream_count_characters_from_the_beginning() -> None:
    client, sink = Client(), stream("completion")
    sink.open(client, chunked=False)
    sink.text(0, "abcd", None)
    sink.text(0, "x", LOGPROBS)
    sink.end(None, None)

    _, chunk, _ = events(client.received)
    logprobs = completion_choice(chunk)["logprobs"]
    assert logprobs["text_offset"] == [4]
    assert logprobs["token_logprobs"] == [-0.5]


def test_logprobs_without_text_still_go_out() -> None:
    client, sink = Client(), stream()
    sink.open(client, chunked=False)
    sink.text(0, "", LOGPROBS)
    sink.end(None, None)

    _, chunk = chat_chunks(client.received)
    assert chunk.choices[0].logprobs is not None
    assert chunk.choices[0].delta.content == ""


def test_a_body_holds_every_choice_with_its_reason() -> None:
    sink = body(choices=2)
    sink.text(1, "wor", None)
    sink.text(0, "hello", LOGPROBS)
    sink.text(1, "ld", None)
    sink.finish(0, "stop")
    sink.finish(1, "length")

    answer = ChatCompletion.model_validate_json(sink.body(USAGE), strict=True)

    assert [choice.message.content for choice in answer.choices] == ["hello", "world"]
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "length"]
    assert answer.choices[0].logprobs is not None
    assert answer.choices[1].logprobs is None


def test_a_completion_s_body_is_read_by_the_official_client() -> None:
    sink = body("completion", choices=2)
    sink.text(0, "a", LOGPROBS)
    sink.text(1, "b", None)
    sink.finish(0, "length")
    sink.finish(1, "stop")

    answer = Completion.model_validate_json(sink.body(USAGE), strict=True)

    assert [choice.text for choice in answer.choices] == ["a", "b"]
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.text_offset == [0]
    assert answer.usage is not None
    assert answer.usage.total_tokens == 7


def test_a_lane_sends_the_same_bytes_as_the_ordinary_way() -> None:
    texts = ["a", ' "quoted" \\ ', "line\nbreak", "é", "🎭", "x" * 3000]
    forms: list[tuple[Kind, bool]] = [("chat", True), ("chat", False), ("completion", True)]
    for kind, chunked in forms:
        slow, fast = Client(), Client()
        for client in (slow, fast):
            sink = stream(kind)
            assert sink.lane(0) is None, "not open yet"
            sink.open(client, chunked=chunked)
            sink.text(0, "first", None)
            lane = sink.lane(0)
            assert lane is not None
            for text in texts:
                if client is slow:
                    sink.text(0, text, None)
                else:
                    lane.push(msgspec.json.encode(text)[1:-1])

        assert fast.received == slow.received


def test_a_lane_too_cuts_a_client_that_does_not_read() -> None:
    client = Client(reads=False)
    sink = stream("completion", limit_bytes=10_000, client=client)
    sink.open(client, chunked=True)
    lane = sink.lane(0)
    assert lane is not None

    for _ in range(1000):
        lane.push(b"unread")

    assert client.is_closing()
    assert 10_000 < len(client.received) < 11_000


def test_there_is_no_lane_before_a_chat_answer_says_its_role() -> None:
    sink = stream("chat")
    sink.open(Client(), chunked=True)

    assert sink.lane(0) is None
