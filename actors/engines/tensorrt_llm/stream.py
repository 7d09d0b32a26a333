"""One request on its way through TensorRT-LLM: from its cumulative results to our outputs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from actors.engines.base import Finish, Handoff, Output, Request
from actors.messages.sampling import Logprobs, TokenLogprob


class Snapshot(msgspec.Struct, kw_only=True):
    """A copy of what one step's result said; the result itself is changed by the next."""

    tokens: list[int]
    """All so far."""
    reason: str | None
    finished: bool
    logprobs: list[Any]
    """All so far; numbers, or mappings from token to an object with `logprob`."""
    cached_tokens: int = 0
    handoff: Handoff | None = None
    """Of a prefill."""


class Stream:
    """A request, and how much of its output is out."""

    def __init__(self, request: Request, ends: tuple[int, ...], cached_tokens: int = 0) -> None:
        self.request = request
        self.over = False
        self.cancelled = False
        self._ends = ends
        self._cached_tokens = cached_tokens
        """What the cache held by our own account, for versions that do not tell."""
        # A decode's results begin with the token that the context worker has sent already.
        self._sent = 1 if request.phase == "decode" else 0
        self._begun = False

    def take(self, found: Snapshot) -> Output | None:
        """What a step adds to the output; None for nothing."""
        if self.over:
            return None
        finish, error = self._finish(found)
        tokens = found.tokens
        if finish is Finish.STOP and tokens and tokens[-1] in self._ends:
            tokens = tokens[:-1]
        new = tokens[self._sent :]
        logprobs = self._logprobs(found, len(tokens)) if new else None
        self._sent = max(self._sent, len(tokens))
        output = Output(
            self.request.id, new, finish=finish, logprobs=logprobs, error=error,
        )  # fmt: skip
        if not self._begun and finish not in {Finish.ERROR, Finish.CANCELLED}:
            self._begun = True
            output.fetched = self.request.phase == "decode"
            if not output.fetched:
                output.cached_tokens = found.cached_tokens or self._cached_tokens
        if found.handoff is not None and finish is None:
            output.handoff = found.handoff
        self.over = finish is not None or output.handoff is not None
        if not (new or output.fetched or finish is not None or output.handoff is not None):
            return None
        return output

    def fail(self, text: str) -> Output | None:
        """The output that ends the request; None when it has ended."""
        if self.over:
            return None
        self.over = True
        if self.cancelled:
            return Output(self.request.id, [], finish=Finish.CANCELLED)
        return Output(self.request.id, [], finish=Finish.ERROR, error=text)

    def _finish(self, found: Snapshot) -> tuple[Finish | None, str]:
        sampling = self.request.sampling
        match found.reason:
            case "stop":
                return Finish.STOP, ""
            case "cancelled":
                if self.cancelled:
                    return Finish.CANCELLED, ""
                return Finish.ERROR, "TensorRT-LLM cancelled the request by itself"
            case "timeout":
                return Finish.ERROR, "TensorRT-LLM gave the request up after its time limit"
        if not found.finished:
            return None, ""
        if self.request.phase == "prefill":
            if sampling.max_tokens == 1:
                return Finish.LENGTH, ""
            if found.handoff is None:
                return Finish.ERROR, "TensorRT-LLM gave no state to hand over"
            return None, ""
        if found.reason == "length" or len(found.tokens) >= sampling.max_tokens:
            return Finish.LENGTH, ""
        return Finish.ERROR, f"TensorRT-LLM ended the request as {found.reason!r}"

    def _logprobs(self, found: Snapshot, end: int) -> list[Logprobs] | None:
        if self.request.sampling.logprobs is None:
            return None
        return [
            _logprob(entry, token, self.request.sampling.logprobs)
            for token, entry in zip(
                found.tokens[self._sent : end], found.logprobs[self._sent : end], strict=False
            )
        ]


def _logprob(entry: Any, token: int, count: int) -> Logprobs:
    if not isinstance(entry, Mapping):
        return Logprobs(TokenLogprob(token, float(entry)))
    by_token = {int(key): float(value.logprob) for key, value in entry.items()}
    ranked = sorted(by_token.items(), key=lambda item: -item[1])[:count]
    chosen = by_token.get(token, float("-inf"))
    return Logprobs(
        TokenLogprob(token, chosen), tuple(TokenLogprob(key, value) for key, value in ranked)
    )
