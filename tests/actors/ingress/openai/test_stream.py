"""Streams read by the official client: its event parser, and its own types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from actors.ingress.openai import errors
from actors.ingress.openai.logprobs import chat_logprobs, completion_logprobs
from actors.ingress.openai.responses import Usage
from actors.ingress.openai.stream import DONE, ChatStream, CompletionStream, error_event
from actors.messages.sampling import Logprobs, TokenLogprob

Chunk = TypeVar("Chunk", ChatCompletionChunk, Completion)
ENTRY = Logprobs(TokenLogprob(1, -0.5), (TokenLogprob(1, -0.5),))


def _events(stream: bytes) -> Iterator[str]:
    """Through the parser of the official client, in awkward pieces."""
    decoder = SSEDecoder()
    pieces = (stream[at : at + 7] for at in range(0, len(stream), 7))
    return (event.data for event in decoder.iter_bytes(pieces))


def _chunks(stream: bytes, kind: type[Chunk]) -> list[Chunk]:
    *chunks, done = _events(stream)
    assert done == "[DONE]"
    return [kind.model_validate_json(chunk, strict=True) for chunk in chunks]


@given(texts=st.lists(st.text(max_size=10), max_size=5))
def test_a_streamed_chat_is_read_by_the_official_client(texts: list[str]) -> None:
    stream = ChatStream("chatcmpl-1", 1700000000, 'm"', index=2, system_fingerprint="fp")
    content = [stream.content(text) for text in texts]
    whole = b"".join([stream.role(), *content, stream.finish("stop"), DONE])
    chunks = _chunks(whole, ChatCompletionChunk)
    opening, *middle, closing = [chunk.choices[0] for chunk in chunks]
    assert (opening.delta.role, opening.delta.content) == ("assistant", "")
    assert [choice.delta.content for choice in middle] == texts
    assert (closing.delta.content, closing.finish_reason) == (None, "stop")
    assert all(choice.finish_reason is None for choice in (opening, *middle))
    assert {chunk.choices[0].index for chunk in chunks} == {2}
    assert {(chunk.id, chunk.model, chunk.created) for chunk in chunks} == {
        ("chatcmpl-1", 'm"', 1700000000)
    }
    assert {chunk.system_fingerprint for chunk in chunks} == {"fp"}


@given(texts=st.lists(st.text(max_size=10), max_size=5))
def test_a_streamed_completion_is_read_by_the_official_client(texts: list[str]) -> None:
    """Its official type has no null finish_reason, though the API itself sends it; so the chunks
    before the last are checked without it."""
    stream = CompletionStream("cmpl-1", 1700000000, "m")
    whole = b"".join([*map(stream.content, texts), stream.finish("length"), DONE])
    *chunks, done = map(_json, _events(whole))
    assert done is None
    for chunk in chunks[:-1]:
        assert chunk["choices"][0].pop("finish_reason") is None
        chunk["choices"][0]["finish_reason"] = "stop"
    read = [Completion.model_validate(chunk, strict=True) for chunk in chunks]
    assert [chunk.choices[0].text for chunk in read] == [*texts, ""]
    assert read[-1].choices[0].finish_reason == "length"


def _json(event: str) -> Any:
    return None if event == "[DONE]" else json.loads(event)


@pytest.mark.parametrize("kind", [ChatStream, CompletionStream])
def test_usage_is_null_in_every_chunk_but_the_last_when_asked_for(
    kind: type[ChatStream | CompletionStream],
) -> None:
    stream = kind("x", 1, "m", include_usage=True)
    usage = stream.usage(Usage.of(10, 2, cached_tokens=4))
    chunks = list(map(_json, _events(stream.content("a") + stream.finish("stop") + usage)))
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None, None]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 4},
    }


def test_usage_is_absent_when_not_asked_for() -> None:
    stream = ChatStream("x", 1, "m")
    whole = stream.role() + stream.content("a") + stream.finish("stop")
    assert all("usage" not in _json(event) for event in _events(whole))


def test_logprobs_travel_with_their_text() -> None:
    chat = ChatStream("x", 1, "m").content("a", chat_logprobs([ENTRY], lambda _: b"a"))
    [chunk] = _chunks(chat + DONE, ChatCompletionChunk)
    assert chunk.choices[0].logprobs is not None
    [entry] = chunk.choices[0].logprobs.content or []
    assert (entry.token, entry.logprob, entry.top_logprobs[0].bytes) == ("a", -0.5, [97])

    logprobs = completion_logprobs([ENTRY], lambda _: b"a", text_offset=5)
    plain = CompletionStream("x", 1, "m").content("a", logprobs)
    [event] = map(_json, _events(plain))
    assert event["choices"][0]["logprobs"] == {
        "tokens": ["a"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"a": -0.5}],
        "text_offset": [5],
    }


def test_an_error_event_has_the_member_the_official_client_raises_on() -> None:
    [event] = map(_json, _events(error_event(errors.internal("broke"))))
    assert event["error"]["message"] == "broke"
    assert event["error"]["type"] == "server_error"
