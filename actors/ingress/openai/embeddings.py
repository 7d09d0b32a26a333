"""Embeddings: request bodies, and the answers to them."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from actors.ingress.openai import fields
from actors.ingress.openai.decoding import Decoder, unknown_fields
from actors.ingress.openai.errors import bad_field
from actors.ingress.openai.requests import check_prompt, is_several, packed

MAX_INPUTS = 2048


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """A body of POST /v1/embeddings."""

    model: fields.ModelName
    input: fields.Prompt
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None
    add_special_tokens: bool | None = None

    @property
    def inputs(self) -> tuple[str | bytes, ...]:
        """One entry a text: itself, or packed little-endian u32 token ids."""
        match self.input:
            case str(text):
                return (text,)
            case [int(), *_]:
                return (packed(self.input),)
            case several:
                return tuple(one if isinstance(one, str) else packed(one) for one in several)


class Embedding(msgspec.Struct, frozen=True):
    """One vector: numbers, or base64 of packed little-endian float32."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingsUsage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, frozen=True):
    model: str
    data: Sequence[Embedding]
    usage: EmbeddingsUsage
    object: Literal["list"] = "list"


def parse_embeddings(body: bytes, *, unknown: Literal["ignore", "refuse"]) -> EmbeddingsRequest:
    """Read a body of POST /v1/embeddings. Raises ApiError, and nothing else."""
    asked = _REQUEST.decode(body)
    check_prompt(asked.input, "input")
    if is_several(asked.input) and len(asked.input) > MAX_INPUTS:
        raise bad_field("input", f"'input' may hold at most {MAX_INPUTS} texts.")
    if "" in asked.inputs:
        raise bad_field("input", "A text must not be empty.")
    if unknown == "refuse":
        for name in unknown_fields(body, EmbeddingsRequest):
            raise bad_field(
                name, f"Unrecognized request argument: '{name}'.", code="unknown_parameter"
            )
    return asked


def embedding_list(
    model: str, vectors: Sequence[bytes], prompt_tokens: int, form: Literal["float", "base64"]
) -> bytes:
    """The body of the answer, from packed little-endian float32."""
    data = [
        Embedding(
            index,
            base64.b64encode(vector).decode()
            if form == "base64"
            else list(struct.unpack(f"<{len(vector) // 4}f", vector)),
        )
        for index, vector in enumerate(vectors)
    ]
    usage = EmbeddingsUsage(prompt_tokens, prompt_tokens)
    return msgspec.json.encode(EmbeddingList(model, data, usage))


_REQUEST = Decoder(EmbeddingsRequest)
