"""Bodies read by the official client's own types."""

from __future__ import annotations

import math

from openai.types import Completion, Model
from openai.types.chat import ChatCompletion

from actors.ingress.openai import responses
from actors.ingress.openai.logprobs import LOWEST, chat_logprobs, completion_logprobs
from actors.messages.sampling import Logprobs, TokenLogprob

SPELLED = {1: b"Hi", 2: "日".encode()[:1], 3: "日".encode()[1:], 4: b" all"}
ENTRIES = [
    Logprobs(TokenLogprob(1, -0.5), (TokenLogprob(1, -0.5), TokenLogprob(2, -math.inf))),
    Logprobs(TokenLogprob(2, -1.0), (TokenLogprob(2, -1.0), TokenLogprob(3, -2.0))),
    Logprobs(TokenLogprob(4, -1.5)),
]


def test_a_chat_completion_is_read_by_the_official_types() -> None:
    logprobs = chat_logprobs(ENTRIES, SPELLED.__getitem__)
    body = responses.chat_completion(
        "chatcmpl-1",
        1700000000,
        "m",
        [
            responses.ChatChoice.of(0, responses.ChatMessage.of('a "b"\n日'), "stop", logprobs),
            responses.ChatChoice.of(1, responses.ChatMessage.of(""), "length"),
        ],
        responses.Usage.of(10, 4, cached_tokens=8),
        system_fingerprint="fp",
    )
    read = ChatCompletion.model_validate_json(body, strict=True)
    assert [choice.message.content for choice in read.choices] == ['a "b"\n日', ""]
    assert [choice.finish_reason for choice in read.choices] == ["stop", "length"]
    assert read.usage is not None
    assert (read.usage.total_tokens, read.system_fingerprint) == (14, "fp")
    assert read.usage.prompt_tokens_details is not None
    assert read.usage.prompt_tokens_details.cached_tokens == 8
    assert read.choices[0].logprobs is not None
    first, second, last = read.choices[0].logprobs.content or []
    assert (first.token, first.bytes, first.top_logprobs[1].logprob) == ("Hi", [72, 105], LOWEST)
    assert (second.token, second.bytes) == ("\ufffd", [0xE6])
    assert last.top_logprobs == []


def test_a_completion_is_read_by_the_official_types() -> None:
    logprobs = completion_logprobs(ENTRIES, SPELLED.__getitem__, text_offset=3)
    body = responses.completion(
        "cmpl-1",
        1700000000,
        "m",
        [responses.CompletionChoice(0, "Hi", "length", logprobs)],
        responses.Usage.of(10, 3),
    )
    read = Completion.model_validate_json(body, strict=True)
    assert read.choices[0].text == "Hi"
    shown = read.choices[0].logprobs
    assert shown is not None
    assert shown.tokens == ["Hi", "bytes:\\xe6", " all"]
    assert shown.text_offset == [3, 5, 5]
    assert shown.top_logprobs is not None
    assert shown.top_logprobs[1] == {"bytes:\\xe6": -1.0, "bytes:\\x97\\xa5": -2.0}


def test_models_are_read_by_the_official_types() -> None:
    model = responses.Model("m", 1700000000)
    assert Model.model_validate_json(responses.model_object(model), strict=True).id == "m"
    listed = responses.model_list([model])
    assert listed == b'{"data":[' + responses.model_object(model) + b'],"object":"list"}'
