"""What a client is told when its request cannot be served, in OpenAI's form.

One type, `ApiError`, because a client sees only its status and body; the constructors below are
the whole family.

    invalid_json, bad_field, unsupported, context_too_long,
    malformed_request                                        400
    unauthorized                                             401
    not_found, not_kept, unknown_model, model_of_other_kind, path_not_served  404
    method_not_allowed                                       405
    timeout_before_start                                     408
    body_too_large                                           413
    rate_limited                                             429
    head_too_large                                           431
    internal                                                 500
    unavailable                                              503
    timeout_during_generation                                504
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

INVALID_REQUEST = "invalid_request_error"
MAX_MESSAGE_CHARACTERS = 1000
"""A message may quote what the client sent; it is cut here, so that no body is sent back whole."""


class ErrorDetail(msgspec.Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    error: ErrorDetail


class ApiError(Exception):
    """An HTTP status, a JSON body that says why, and headers."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str,  # noqa: A002  # the name it has in the body
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        allowed: Sequence[str] = (),
    ) -> None:
        message = message[:MAX_MESSAGE_CHARACTERS]
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        """The field of the request that is to blame, as a path: `messages[0].role`."""
        self.code = code
        self.retry_after_s = retry_after_s
        self._allowed = allowed

    def body(self) -> bytes:
        """`{"error": {message, type, param, code}}`; also the data of a stream's error event."""
        error = ErrorDetail(_encodable(self.message), self.type, self.param, self.code)
        return msgspec.json.encode(ErrorBody(error))

    @property
    def headers(self) -> dict[str, str]:
        """Headers beside those of every response. Retry-After is in whole seconds, at least 1."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self._allowed:
            headers["Allow"] = ", ".join(self._allowed)
        return headers


def _encodable(text: str) -> str:
    """A message may quote what a client sent, which may hold half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()


def invalid_json(reason: str) -> ApiError:
    return ApiError(
        400,
        f"We could not parse the JSON body of your request: {reason}",
        type=INVALID_REQUEST,
        code="invalid_json",
    )


def bad_field(param: str | None, message: str, *, code: str = "invalid_value") -> ApiError:
    return ApiError(400, message, type=INVALID_REQUEST, param=param, code=code)


def missing_field(param: str) -> ApiError:
    return bad_field(
        param, f"Missing required parameter: '{param}'.", code="missing_required_parameter"
    )


def unsupported(param: str, message: str = "") -> ApiError:
    """A field this API has and this server does not serve; ignoring it would mislead."""
    return bad_field(
        param,
        message or f"'{param}' is not supported by this server.",
        code="unsupported_parameter",
    )


def context_too_long(prompt_tokens: int, max_tokens: int, context_tokens: int) -> ApiError:
    return ApiError(
        400,
        f"This model's maximum context length is {context_tokens} tokens. However, you requested "
        f"{prompt_tokens + max_tokens} tokens ({prompt_tokens} in the prompt, {max_tokens} for the "
        "completion). Please reduce the length of either.",
        type=INVALID_REQUEST,
        param="messages",
        code="context_length_exceeded",
    )


def unauthorized() -> ApiError:
    return ApiError(
        401, "Incorrect API key provided.", type="authentication_error", code="invalid_api_key"
    )


def not_found(path: str) -> ApiError:
    return ApiError(404, f"Unknown request URL: {path}.", type=INVALID_REQUEST, code="unknown_url")


def path_not_served(path: str) -> ApiError:
    """A part of OpenAI's API that this server lacks."""
    return ApiError(
        404,
        f"{path} is not served here; /openapi.json lists what is.",
        type=INVALID_REQUEST,
        code="not_served",
    )


def not_kept(name: str) -> ApiError:
    """A response that was never made, was not stored, was deleted, or whose time is over."""
    return ApiError(
        404, f"Response with id '{name}' not found.", type=INVALID_REQUEST, code="not_found"
    )


def unknown_model(model: str) -> ApiError:
    return ApiError(
        404,
        f"The model '{model}' does not exist.",
        type=INVALID_REQUEST,
        param="model",
        code="model_not_found",
    )


def model_of_other_kind(model: str, path: str) -> ApiError:
    """`path`: where the model is served."""
    return ApiError(
        404,
        f"The model '{model}' is not served here, but at {path}.",
        type=INVALID_REQUEST,
        param="model",
        code="model_not_found",
    )


def method_not_allowed(method: str, allowed: Sequence[str]) -> ApiError:
    return ApiError(
        405,
        f"{method} is not allowed here.",
        type=INVALID_REQUEST,
        code="method_not_allowed",
        allowed=allowed,
    )


def malformed_request() -> ApiError:
    return ApiError(400, "This is no HTTP request that can be understood.", type=INVALID_REQUEST)


def head_too_large() -> ApiError:
    return ApiError(431, "The request's header fields are too large.", type=INVALID_REQUEST)


def timeout_before_start(after_s: float) -> ApiError:
    """Nothing was generated: the same request may be sent again."""
    return ApiError(
        408,
        f"The request was not started within {after_s:g} s.",
        type="timeout_error",
        code="timeout",
    )


def body_too_large(limit_bytes: int) -> ApiError:
    return ApiError(
        413,
        f"The request body is larger than {limit_bytes} bytes.",
        type=INVALID_REQUEST,
        code="request_too_large",
    )


def rate_limited(retry_after_s: float, why: str = "") -> ApiError:
    return ApiError(
        429,
        f"Too many requests: {why}." if why else "Too many requests.",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after_s=retry_after_s,
    )


def internal(message: str = "The server had an error while processing your request.") -> ApiError:
    return ApiError(500, message, type="server_error", code="internal_error")


def unavailable(message: str, retry_after_s: float) -> ApiError:
    return ApiError(
        503, message, type="server_error", code="unavailable", retry_after_s=retry_after_s
    )


def timeout_during_generation(after_s: float) -> ApiError:
    return ApiError(
        504,
        f"The answer was not finished within {after_s:g} s.",
        type="timeout_error",
        code="timeout",
    )
