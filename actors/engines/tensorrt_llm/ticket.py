"""A context worker's `DisaggregatedParams` as a handoff's ticket, whatever fields they have.

The fields differ between versions, and the newest versions need those they added. So nothing is
known of them here: whatever dataclass fields are set travel, as MessagePack, and are put into the
receiver's class. Its `opaque_state` stays bytes all the way.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from actors.engines.tensorrt_llm.api import fields_of

VERSION = 1
GENERATION = "generation_only"
CONTEXT = "context_only"


class BadTicket(ValueError):
    """A ticket that cannot be made or used; the text says why."""


class _Ticket(msgspec.Struct, frozen=True, array_like=True):
    version: int
    engine: str
    """The version of TensorRT-LLM it comes from, for messages."""
    fields: dict[str, Any]


def encode(params: Any, engine: str) -> bytes:
    """The ticket of a finished prefill. Raises BadTicket for a field that cannot travel."""
    fields = {
        name: _plain(name, value)
        for name in sorted(fields_of(type(params)))
        if (value := getattr(params, name, None)) is not None
    }
    fields["request_type"] = GENERATION
    return msgspec.msgpack.encode(_Ticket(VERSION, engine, fields))


def decode(data: bytes, kind: Any) -> Any:
    """The params of the decode that a ticket stands for. Raises BadTicket."""
    try:
        ticket = msgspec.msgpack.decode(data, type=_Ticket)
    except msgspec.DecodeError as error:
        raise BadTicket(f"the handoff's ticket cannot be read: {error}") from None
    if ticket.version != VERSION:
        raise BadTicket(f"the handoff's ticket has version {ticket.version}, not {VERSION}")
    unknown = sorted(ticket.fields.keys() - fields_of(kind))
    if unknown:
        raise BadTicket(
            f"the handoff comes from TensorRT-LLM {ticket.engine} with {', '.join(unknown)}, "
            "which the version here does not know: run one version on both sides"
        )
    if not isinstance(ticket.fields.get("opaque_state"), bytes):
        raise BadTicket("the handoff's ticket carries no state")
    try:
        return kind(**ticket.fields)
    except (TypeError, ValueError) as error:
        raise BadTicket(f"the handoff's ticket is not taken: {error}") from error


def first_token(params: Any) -> int | None:
    """The token that the context phase chose."""
    tokens = getattr(params, "first_gen_tokens", None)
    return int(tokens[0]) if tokens else None


def _plain(name: str, value: Any) -> Any:
    """A value as it travels."""
    match value:
        case enum.Enum():
            return value.value
        case bool() | int() | float() | str() | bytes():
            return value
        case bytearray() | memoryview():
            return bytes(value)
        case list() | tuple():
            return [_plain(name, item) for item in value]
        case dict():
            return {str(key): _plain(name, item) for key, item in value.items()}
    raise BadTicket(f"a handoff cannot carry {name}, a {type(value).__name__}")
