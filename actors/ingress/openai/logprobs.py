"""Log probabilities in the two forms the API knows: chat's, and the older one of completions."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable

import msgspec

from actors.messages.sampling import Logprobs, TokenLogprob

LOWEST = -9999.0
"""Stands for a probability of zero, whose logarithm JSON cannot hold; OpenAI's own number."""

TokenBytes = Callable[[int], bytes]
"""Token id to the bytes it adds to the text (`Tokenizer.token_bytes`)."""


class TopLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]


class TokenEntry(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True):
    content: list[TokenEntry]
    refusal: None = None


class CompletionLogprobs(msgspec.Struct, frozen=True):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


def chat_logprobs(entries: Iterable[Logprobs], token_bytes: TokenBytes) -> ChatLogprobs:
    """For `choices[].logprobs` of chat. A token that is no whole character shows U+FFFD as its
    text, and its true bytes.
    """

    def entry(position: Logprobs) -> TokenEntry:
        chosen = token_bytes(position.chosen.token)
        return TokenEntry(
            token=chosen.decode("utf-8", "replace"),
            logprob=_finite(position.chosen.logprob),
            bytes=list(chosen),
            top_logprobs=[top(candidate) for candidate in position.top],
        )

    def top(candidate: TokenLogprob) -> TopLogprob:
        spelled = token_bytes(candidate.token)
        text = spelled.decode("utf-8", "replace")
        return TopLogprob(text, _finite(candidate.logprob), list(spelled))

    return ChatLogprobs([entry(position) for position in entries])


def completion_logprobs(
    entries: Iterable[Logprobs],
    token_bytes: TokenBytes,
    text_offset: int,
    hidden: Container[int] = frozenset(),
) -> CompletionLogprobs:
    r"""For `choices[].logprobs` of completions. `text_offset` is where the first token begins, in
    characters of the text. A prompt's first token has no probability, and null stands for it. A
    token that is no whole character shows as `bytes:\xe4`, so that two of them do not fall
    together in `top_logprobs`, and counts as no character; neither do `hidden` tokens.
    """
    made = CompletionLogprobs([], [], [], [])
    for position in entries:
        spelled = token_bytes(position.chosen.token)
        made.tokens.append(_name(spelled))
        if math.isnan(position.chosen.logprob):
            made.token_logprobs.append(None)
            made.top_logprobs.append(None)
        else:
            made.token_logprobs.append(_finite(position.chosen.logprob))
            made.top_logprobs.append(
                {_name(token_bytes(top.token)): _finite(top.logprob) for top in position.top}
            )
        made.text_offset.append(text_offset)
        if position.chosen.token not in hidden:
            text_offset += len(spelled.decode("utf-8", "ignore"))
    return made


def _name(spelled: bytes) -> str:
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST)
