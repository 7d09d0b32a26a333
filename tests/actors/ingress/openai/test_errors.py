"""Errors as a client receives them."""

from __future__ import annotations

import msgspec
import pytest

from actors.ingress.openai import errors
from actors.ingress.openai.errors import MAX_MESSAGE_CHARACTERS, ApiError

FAMILY = [
    (errors.invalid_json("x"), 400, "invalid_json"),
    (errors.bad_field("n", "x"), 400, "invalid_value"),
    (errors.missing_field("n"), 400, "missing_required_parameter"),
    (errors.unsupported("n"), 400, "unsupported_parameter"),
    (errors.context_too_long(10, 5, 12), 400, "context_length_exceeded"),
    (errors.unauthorized(), 401, "invalid_api_key"),
    (errors.not_found("/x"), 404, "unknown_url"),
    (errors.unknown_model("m"), 404, "model_not_found"),
    (errors.method_not_allowed("PUT", ("GET", "POST")), 405, "method_not_allowed"),
    (errors.timeout_before_start(30), 408, "timeout"),
    (errors.body_too_large(5), 413, "request_too_large"),
    (errors.rate_limited(1), 429, "rate_limit_exceeded"),
    (errors.internal(), 500, "internal_error"),
    (errors.unavailable("x", 2), 503, "unavailable"),
    (errors.timeout_during_generation(30), 504, "timeout"),
]


@pytest.mark.parametrize(("error", "status", "code"), FAMILY)
def test_each_error_has_its_status_and_the_four_members(
    error: ApiError, status: int, code: str
) -> None:
    body = msgspec.json.decode(error.body())
    assert error.status == status
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code
    assert body["error"]["message"]


def test_a_client_is_told_when_to_come_back_in_whole_seconds() -> None:
    assert errors.unavailable("x", 2.2).headers["Retry-After"] == "3"
    assert errors.rate_limited(0.0).headers["Retry-After"] == "1"
    assert "Retry-After" not in errors.internal().headers


def test_a_message_that_quotes_the_client_is_cut_and_can_always_be_encoded() -> None:
    error = errors.bad_field("x", "\ud800" + "a" * 10_000)
    message = msgspec.json.decode(error.body())["error"]["message"]
    assert message == "?" + "a" * (MAX_MESSAGE_CHARACTERS - 1)


def test_a_context_error_says_all_three_numbers() -> None:
    message = errors.context_too_long(10, 5, 12).message
    assert all(str(number) in message for number in (10, 5, 12, 15))
