"""What a client says in headers of how its request shall be placed. Pure.

    x-understudy-explain: 1          say in the response's headers who served it
    x-understudy-explain: only       run nothing; answer with what the router would do, as JSON
    x-understudy-session: TEXT       requests of one session stay together; else `user` of the body
    x-understudy-priority: N         higher ones leave the queue first, as far as the router permits
    x-understudy-strategy: NAME      another routing strategy, where the router permits it
    x-understudy-timeout-s: SECONDS  give up after this; at most the ingress's own limit

Whose request it is, for fairness in the queue, is told by the API key, or by the header that the
ingress's option `tenant_header` names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import xxhash

from actors.ingress.openai import errors
from actors.messages.assign import Assigned
from actors.messages.hints import Hints

EXPLAIN = "x-understudy-explain"
SESSION = "x-understudy-session"
PRIORITY = "x-understudy-priority"
STRATEGY = "x-understudy-strategy"
TIMEOUT = "x-understudy-timeout-s"
_ON = frozenset({"1", "true", "yes"})
_MAX_PRIORITY = 1000
_MAX_NAME = 64


class Wishes(msgspec.Struct, frozen=True):
    """Of one HTTP request."""

    hints: Hints = Hints()
    explain: bool = False
    """Say who served it."""
    only_explain: bool = False
    """Run nothing; say who would."""
    timeout_s: float = math.inf


def read_wishes(headers: Mapping[str, str], user: str | None, tenant_header: str) -> Wishes:
    """Names in `headers` are in lower case. Raises ApiError for a header that cannot be meant."""
    session = headers.get(SESSION) or user or ""
    tenant = headers.get(tenant_header.lower() or "authorization", "")
    return Wishes(
        hints=Hints(
            tenant=_name(tenant),
            session=_name(session),
            priority=_priority(headers.get(PRIORITY, "0")),
            strategy=headers.get(STRATEGY, "")[:_MAX_NAME],
        ),
        explain=headers.get(EXPLAIN, "").lower() in _ON,
        only_explain=headers.get(EXPLAIN, "").lower() == "only",
        timeout_s=_timeout(headers.get(TIMEOUT)),
    )


def explaining_headers(assigned: Assigned | None) -> dict[str, str]:
    """Who served a request, and how it was placed; nothing when that is not known."""
    if assigned is None:
        return {}
    context = assigned.context or assigned.generation
    return {
        "x-understudy-context": context.name,
        "x-understudy-generation": assigned.generation.name,
        "x-understudy-matched-tokens": str(assigned.matched_tokens),
        "x-understudy-queued-ms": f"{assigned.queued_ms:.1f}",
    }


def _name(text: str) -> int:
    """A name as it travels: a hash, 0 for none."""
    return int(xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogateescape"))) if text else 0


def _priority(text: str) -> int:
    try:
        priority = int(text)
    except ValueError:
        raise errors.bad_field(PRIORITY, f"'{PRIORITY}' must be a whole number.") from None
    return max(-_MAX_PRIORITY, min(priority, _MAX_PRIORITY))


def _timeout(text: str | None) -> float:
    if text is None:
        return math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise errors.bad_field(TIMEOUT, f"'{TIMEOUT}' must be a positive number of seconds.")
    return seconds
