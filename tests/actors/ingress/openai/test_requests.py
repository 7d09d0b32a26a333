"""Request bodies: what is accepted, what is refused, and how a client is told."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.ingress.openai.errors import ApiError
from actors.ingress.openai.fields import MAX_CHOICES, UNLIMITED_TOKENS
from actors.ingress.openai.requests import (
    ChatRequest,
    CompletionRequest,
    ignored,
    parse_chat,
    parse_completion,
)
from actors.messages.sampling import Grammar

HELLO = [{"role": "user", "content": "hi"}]
A_ONLY = Grammar("regex", "a", "guided_regex")


def chat_body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": HELLO, **fields}).encode()


def completion_body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": "hi", **fields}).encode()


def check_refusal(error: ApiError) -> None:
    assert error.status == 400
    assert msgspec.json.decode(error.body())["error"]["message"]


def chat_error(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse_chat(chat_body(**fields))
    return caught.value


def test_defaults_of_a_plain_request() -> None:
    request = parse_chat(chat_body())
    assert (request.choices, request.stop_strings, request.include_usage) == (1, (), False)
    assert not request.stream
    sampling = request.sampling(None, seed=7)
    assert (sampling.max_tokens, sampling.seed, sampling.temperature) == (UNLIMITED_TOKENS, 7, 1.0)
    assert request.sampling(100, seed=7).max_tokens == 100


def test_null_counts_as_absent_for_every_optional_field() -> None:
    required = {"model", "messages", "prompt"}
    names = set(ChatRequest.__struct_fields__) - required
    request = parse_chat(chat_body(**dict.fromkeys(names)))
    assert request.sampling(None, 7) == parse_chat(chat_body()).sampling(None, 7)
    names = set(CompletionRequest.__struct_fields__) - required
    parse_completion(completion_body(**dict.fromkeys(names)))


def test_every_sampling_field_reaches_the_engine() -> None:
    values: dict[str, Any] = {
        "max_tokens": 5,
        "seed": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "stop_token_ids": (1, 2),
        "ignore_eos": True,
        "min_tokens": 2,
        "presence_penalty": -1.5,
        "frequency_penalty": 1.5,
        "repetition_penalty": 1.1,
        "logit_bias": {"5": -100},
    }
    body = chat_body(**values, logprobs=True, top_logprobs=4, guided_regex="a")
    sampling = parse_chat(body).sampling(9, 9)
    expected = {**values, "logit_bias": {5: -100}, "logprobs": 4, "grammar": A_ONLY}
    assert {name: getattr(sampling, name) for name in expected} == expected
    assert {*expected, "prompt"} == set(sampling.__struct_fields__)
    echoed = parse_completion(completion_body(echo=True, logprobs=2)).sampling(9, 9)
    assert (echoed.prompt, echoed.logprobs) == ("logprobs", 2)


def test_messages_are_kept_as_the_client_wrote_them() -> None:
    body = b'{"model":"m","messages":[ {"role":"user", "name":"x","content":"\\u0041"}]}'
    assert bytes(parse_chat(body).messages) == b'[ {"role":"user", "name":"x","content":"\\u0041"}]'


def test_the_newer_name_of_the_token_limit_goes_first() -> None:
    assert (
        parse_chat(chat_body(max_tokens=5, max_completion_tokens=6)).sampling(9, 9).max_tokens == 6
    )


@pytest.mark.parametrize(("given_seed", "expected"), [(5, 5), (-1, 2**63 - 1), (-(2**63), 0)])
def test_any_64_bit_seed_is_mapped_to_the_range_of_the_engine(
    given_seed: int, expected: int
) -> None:
    assert parse_chat(chat_body(seed=given_seed)).sampling(9, 9).seed == expected


def test_choices_of_one_request_have_different_seeds() -> None:
    request = parse_chat(chat_body(seed=2**63 - 1, n=2))
    assert [request.sampling(9, 9, choice=choice).seed for choice in range(2)] == [2**63 - 1, 0]


def test_no_top_k_can_be_said_in_two_ways() -> None:
    assert parse_chat(chat_body(top_k=-1)).sampling(9, 9).top_k == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_p", 1.1),
        ("n", 0),
        ("n", 129),
        ("n", True),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_completion_tokens", 0),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", ["a"] * 17),
        ("stop", "a" * 513),
        ("stop", 5),
        ("logprobs", 3),
        ("top_logprobs", 5),
        ("top_logprobs", 21),
        ("seed", 2**63),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"-1": 1}),
        ("logit_bias", {"1": 101}),
        ("top_k", -2),
        ("min_p", 1.1),
        ("repetition_penalty", 0),
        ("min_tokens", -1),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", list(range(129))),
        ("stream", "yes"),
        ("stream_options", {"include_usage": True}),
        ("chat_template_kwargs", [1]),
        ("user", 5),
        ("model", ""),
        ("model", None),
        ("messages", []),
        ("messages", "hi"),
        ("messages", None),
    ],
)
def test_a_bad_value_is_a_400_that_names_the_field(field: str, value: object) -> None:
    error = chat_error(**{field: value})
    assert error.status == 400
    assert error.param is not None
    assert error.param.partition("[")[0] == field


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "robot", "content": "x"}, "messages[1].role"),
        ({"content": "x"}, "messages[1].role"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "user", "content": 5}, "messages[1].content"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
        ({"role": "user", "content": [{"text": "a"}]}, "messages[1].content[0].type"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "messages[1].content[0].type",
        ),
        (5, "messages[1]"),
    ],
)
def test_a_bad_message_is_named_by_its_path(message: object, param: str) -> None:
    assert chat_error(messages=[*HELLO, message]).param == param


def test_min_tokens_above_the_limit_is_refused_also_when_the_limit_is_a_default() -> None:
    assert chat_error(min_tokens=6, max_tokens=5).param == "min_tokens"
    with pytest.raises(ApiError):
        parse_chat(chat_body(min_tokens=6)).sampling(5, 9)


@pytest.mark.parametrize("field", ["model", "messages"])
def test_a_missing_field_is_named(field: str) -> None:
    body = json.loads(chat_body())
    del body[field]
    with pytest.raises(ApiError) as caught:
        parse_chat(json.dumps(body).encode())
    assert (caught.value.param, caught.value.code) == (field, "missing_required_parameter")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("continue_final_message", True),
        ("chat_template", "{{ 1 }}"),
        ("modalities", ["text", "audio"]),
    ],
)
def test_a_field_that_would_change_the_answer_is_refused_rather_than_ignored(
    field: str, value: object
) -> None:
    error = chat_error(**{field: value})
    assert (error.status, error.param, error.code) == (400, field, "unsupported_parameter")


def test_values_that_change_nothing_are_accepted() -> None:
    parse_chat(
        chat_body(
            tools=[], tool_choice="none", response_format={"type": "text"}, modalities=["text"]
        )
    )
    parse_completion(completion_body(suffix="", best_of=2, n=2, echo=True))


def test_unknown_fields_are_ignored_and_can_be_named() -> None:
    body = chat_body(nvext={"a": 1}, store=True, user="u")
    assert ignored(body, parse_chat(body)) == ("nvext", "store")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b'{"model":"m"} x', b'{"a":' + b"[" * 100_000]
)
def test_a_body_that_is_no_json_object_is_a_400(body: bytes) -> None:
    for parse in (parse_chat, parse_completion):
        with pytest.raises(ApiError) as caught:
            parse(body)
        assert caught.value.status == 400


def test_bytes_that_are_no_utf8_are_refused_also_where_they_would_be_skipped() -> None:
    body = chat_body(other="?").replace(b"?", b"\xff")
    with pytest.raises(ApiError, match="not UTF-8 at byte"):
        parse_chat(body)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], (b"\1\0\0\0\2\0\0\0",)),
        ([[1], [2]], (b"\1\0\0\0", b"\2\0\0\0")),
    ],
)
def test_prompts_come_in_four_forms(prompt: object, expected: tuple[str | bytes, ...]) -> None:
    assert parse_completion(completion_body(prompt=prompt)).prompts == expected


@pytest.mark.parametrize("prompt", [[], [[]], [1, "a"], ["a", [1]], [-1], [2**32], [[1], []], None])
def test_a_prompt_in_no_form_is_refused(prompt: object) -> None:
    with pytest.raises(ApiError) as caught:
        parse_completion(completion_body(prompt=prompt))
    assert (caught.value.param or "").startswith("prompt")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 3, "n": 2, "stream": True}, "best_of"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 100, "prompt": ["a", "b"]}, "best_of"),
        ({"prompt": ["a", "b"], "n": MAX_CHOICES}, "n"),
    ],
)
def test_what_completions_cannot_combine(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_completion(completion_body(**fields))
    assert caught.value.param == param


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "1"]), inner)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    sorted({*ChatRequest.__struct_fields__, *CompletionRequest.__struct_fields__, "other"})
)


@given(fields=st.dictionaries(NAMES, JSON, max_size=6))
def test_no_json_makes_a_parser_raise_anything_but_an_api_error(fields: dict[str, Any]) -> None:
    for parse, whole in ((parse_chat, chat_body), (parse_completion, completion_body)):
        body = whole(**fields)
        try:
            request = parse(body)
            request.sampling(16, 0)
            assert request.stop_strings is not None
            ignored(body, request)
            if isinstance(request, CompletionRequest):
                assert request.prompts
        except ApiError as error:
            check_refusal(error)


@given(
    body=st.binary(max_size=60)
    | st.builds(
        lambda whole, at, junk: whole[: at % len(whole)] + junk + whole[at % len(whole) + 1 :],
        st.just(chat_body(tools=[], stop=["\ud800x"], other={"a": "é"}, logit_bias={"1": 2})),
        st.integers(0, 500),
        st.binary(max_size=3),
    )
)
def test_no_bytes_make_a_parser_raise_anything_but_an_api_error(body: bytes) -> None:
    for parse in (parse_chat, parse_completion):
        try:
            ignored(body, parse(body))
        except ApiError as error:
            check_refusal(error)
