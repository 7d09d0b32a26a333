"""What is kept of a response, for the client to see again and for the responses that follow it."""

from __future__ import annotations

import secrets

import msgspec

from actors.ingress.openai.errors import ApiError, bad_field
from actors.ingress.openai.responses_api.items import Json

PREFIX = "resp_"
MAX_PAGE = 100
PAGE = 20


class Record(msgspec.Struct, frozen=True):
    """One response. As MessagePack, in a bucket that all ingresses share."""

    owner: str
    """The API key whose client made it; empty without keys. Nobody else's is it."""
    response: Json
    input: list[Json]
    """The items of its own request."""
    before: list[Json] = []
    """Of the responses that it followed, input and output."""

    @property
    def conversation(self) -> list[Json]:
        """All items that a following request has before its own."""
        return [*self.before, *self.input, *self.response["output"]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    return _encoder.encode(record)


def decode(value: bytes | None, owner: str) -> Record | None:
    """None for what is not there, is another's, or was written in another form."""
    if value is None:
        return None
    try:
        record = _decoder.decode(value)
    except msgspec.MsgspecError:
        return None
    return record if record.owner == owner else None


def new_response_id() -> str:
    """A secret, since who knows it may read and continue the conversation."""
    return PREFIX + secrets.token_hex(24)


def is_response_id(name: str) -> bool:
    """Whether it may be the name of a response: letters and digits alone, as keys of buckets."""
    rest = name.removeprefix(PREFIX)
    return name.startswith(PREFIX) and rest.isascii() and rest.isalnum() and len(rest) <= 64


def previous_not_found(name: str) -> ApiError:
    return bad_field(
        "previous_response_id",
        f"Previous response with id '{name}' not found.",
        code="previous_response_not_found",
    )


def page(record: Record, query: dict[str, str]) -> Json:
    """The items of the request that made a response, as the query wants them. Raises ApiError."""
    order = query.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise bad_field("order", "'order' must be 'asc' or 'desc'.")
    try:
        limit = int(query.get("limit", PAGE))
    except ValueError:
        limit = 0
    if not 1 <= limit <= MAX_PAGE:
        raise bad_field("limit", f"'limit' must be a number from 1 to {MAX_PAGE}.")
    items = record.input if order == "asc" else record.input[::-1]
    after = query.get("after")
    if after is not None:
        names = [item["id"] for item in items]
        if after not in names:
            raise bad_field("after", f"There is no item '{after}'.")
        items = items[names.index(after) + 1 :]
    shown = items[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else "",
        "last_id": shown[-1]["id"] if shown else "",
        "has_more": len(items) > limit,
    }
