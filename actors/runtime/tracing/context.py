"""What travels of a trace: the W3C's context, in the form of a message's field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

Attributes: TypeAlias = Mapping[str, str | bool | int | float | Sequence[str]]
"""Of a span, by name."""


class TraceContext(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """Below which span the spans of whoever gets the message belong. Only of traces that are
    recorded: the decision is made once, where a request comes in."""

    trace_id: bytes
    """16 bytes."""
    span_id: bytes
    """8 bytes, of the parent."""
    state: str = ""
    """W3C `tracestate`, passed on as it came."""
    replaces: bytes = b""
    """8 bytes: the span, of the same trace, of the attempt that this one repeats."""
