"""What a client is told when its request cannot go on."""

from __future__ import annotations

from actors.ingress.openai import errors
from actors.ingress.openai.errors import ApiError
from actors.ingress.session import Fail


def api_error(failure: Fail, timeout_s: float, *, begun: bool) -> ApiError:
    """`timeout_s`: what the request was given. `begun`: its client has some of the answer."""
    match failure.why:
        case "invalid":
            return errors.bad_field(failure.param or None, failure.text)
        case "too_long":
            return errors.bad_field(
                failure.param or None, failure.text, code="context_length_exceeded"
            )
        case "internal":
            return errors.internal(failure.text)
        case "timeout" if begun:
            return errors.timeout_during_generation(timeout_s)
        case "timeout":
            return errors.timeout_before_start(timeout_s)
        case "overloaded" if not begun:
            return errors.rate_limited(max(failure.retry_after_s, 1.0), failure.text)
        case _:
            return errors.unavailable(failure.text, max(failure.retry_after_s, 1.0))
