"""Prompts as they travel, and what no engine of a given kind can ever run."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from actors.engines.base import Info, Request
from actors.kv.hashing import BYTES_PER_TOKEN
from actors.messages.sampling import PromptWish


def unpack(packed: bytes) -> array[int]:
    """Token ids from little-endian u32."""
    tokens = array("I")
    assert tokens.itemsize == BYTES_PER_TOKEN
    tokens.frombytes(packed)
    if _BIG_ENDIAN:
        tokens.byteswap()
    return tokens


def pack(tokens: array[int]) -> bytes:
    """Little-endian u32 from token ids."""
    if _BIG_ENDIAN:
        tokens = tokens[:]
        tokens.byteswap()
    return tokens.tobytes()


def pack_tokens(tokens: Iterable[int]) -> bytes:
    """Little-endian u32 from any token ids."""
    return pack(array("I", tokens))


_BIG_ENDIAN = array("I", [1]).tobytes()[0] == 0


def refusal(request: Request, info: Info) -> str | None:
    """Why this engine can never run a request; None when it can."""
    size = len(request.prompt)
    if size == 0 or size % BYTES_PER_TOKEN:
        return f"a prompt is one or more tokens of {BYTES_PER_TOKEN} bytes, not {size} bytes"
    if (request.phase == "decode") != (request.handoff is not None):
        return "a handoff belongs to the decode phase, and to no other"
    sampling = request.sampling
    first = () if request.handoff is None else (request.handoff.first_token,)
    known = size // BYTES_PER_TOKEN + len(first)
    if known >= info.max_context_tokens:
        return f"{known} tokens leave no room in a context of {info.max_context_tokens}"
    if sampling.max_tokens <= len(first):
        return f"max_tokens is {sampling.max_tokens}: nothing is left to generate"
    if not 0 <= request.resumed <= size // BYTES_PER_TOKEN:
        return f"{request.resumed} resumed tokens are not part of the prompt"
    largest = max((*unpack(request.prompt), *first, *sampling.logit_bias))
    smallest = min((*first, *sampling.logit_bias), default=0)
    if largest >= info.vocabulary or smallest < 0:
        wrong = largest if largest >= info.vocabulary else smallest
        return f"token {wrong} is outside of the vocabulary of {info.vocabulary}"
    if sampling.grammar is not None and not info.guided:
        return "structured output needs the model's tokenizer.json, which is not there"
    if sampling.repetition_penalty <= 0.0:
        return f"repetition_penalty must be positive, not {sampling.repetition_penalty}"
    return _unfindable(sampling.prompt, info)


def _unfindable(wish: PromptWish, info: Info) -> str | None:
    """Why this engine cannot find out about prompts what is wanted."""
    if wish == "embedding" and not info.embedding_size:
        return "this engine makes no embeddings"
    if wish == "logprobs" and not info.prompt_logprobs:
        return "this engine does not compute log probabilities of prompts"
    return None
