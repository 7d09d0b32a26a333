"""The engine contract: what a worker asks of whatever computes tokens.

Shaped so that TensorRT-LLM's LLM API fits it without tricks, and so that an engine can run in a
thread of its own: every method but `start` and `close` returns at once.

A request is one of three phases.

    whole     compute the prompt, then generate.
    prefill   compute the prompt, choose one token, keep the prompt's KV blocks for a successor.
              The only output carries that token and a `handoff`.
    decode    fetch the KV blocks named by a `handoff`, then generate from the second token on.
              The output with `fetched` set says that the blocks at the other side may go.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Literal

import msgspec

from actors.messages.cache import CacheEvent, Load
from actors.messages.sampling import Findings, Logprobs, Sampling

Phase = Literal["whole", "prefill", "decode"]


class Finish(enum.StrEnum):
    """Why a sequence ended."""

    STOP = "stop"
    """The model's end token, or one of `stop_token_ids`."""
    LENGTH = "length"
    """`max_tokens` reached, or the model's context is full."""
    CANCELLED = "cancelled"
    ERROR = "error"


class EngineError(Exception):
    """Base of what an engine raises on purpose."""


class RequestRefused(EngineError):
    """This engine cannot run this request, now or ever; nothing of it was begun."""


class EngineFailed(EngineError):
    """The engine as a whole cannot go on; its worker must end and be restarted."""


class Handoff(msgspec.Struct, frozen=True, array_like=True):
    """What a decode worker needs to continue after a prefill elsewhere."""

    first_token: int
    ticket: bytes
    """How to fetch the KV blocks; opaque to everyone but the two engines. May be used once."""


class Request(msgspec.Struct, frozen=True):
    """One sequence to run. Token ids travel as packed little-endian u32."""

    id: int
    """Unique among the engine's live requests; chosen by the worker."""
    prompt: bytes
    """4 bytes a token; at least one token."""
    sampling: Sampling
    """`max_tokens` counts what this request and its handoff produce: of a decode, the first token
    too; of a prefill, more than the one it makes."""
    phase: Phase = "whole"
    handoff: Handoff | None = None
    """Given exactly when the phase is decode; `prompt` does not include its first token."""
    resumed: int = 0
    """How many of the prompt's last tokens were generated in an earlier attempt. They count as
    output for penalties and `min_tokens`, not for `max_tokens`."""


class Output(msgspec.Struct):
    """What one step produced for one request. After one with `finish` none follows."""

    id: int
    tokens: list[int]
    """New tokens, in order. An end token or stop token is not among them."""
    finish: Finish | None = None
    logprobs: list[Logprobs] | None = None
    """One for each token, when asked for."""
    handoff: Handoff | None = None
    """Only from a prefill, together with its token. Absent when the first token already ended the
    sequence (`finish` is then set and nothing is kept). Otherwise `finish` stays None: the
    prefill is over, its blocks are held until `release` or `cancel`."""
    fetched: bool = False
    """A decode's blocks have arrived: the other side may `release` them."""
    fetched_bytes: int = 0
    """With `fetched`: how many were copied; 0 where there is nothing to copy."""
    cached_tokens: int = 0
    """On the first output: prompt tokens whose KV was found in the cache."""
    error: str = ""
    """With finish == ERROR: one sentence for a log and a client."""
    findings: Findings | None = None
    """On the first output, when `Sampling.prompt` asks for them; of an embedding it is the only
    one, and has `finish` STOP."""

    def join(self, after: Output) -> None:
        """Say what the same request's next output says too: nobody has read either yet."""
        self.tokens += after.tokens
        if after.logprobs is not None:
            self.logprobs = [*(self.logprobs or ()), *after.logprobs]
        self.finish = after.finish
        self.error = after.error
        self.handoff = after.handoff or self.handoff
        self.fetched = self.fetched or after.fetched
        self.fetched_bytes += after.fetched_bytes
        self.cached_tokens += after.cached_tokens
        self.findings = self.findings or after.findings


class Outputs(msgspec.Struct):
    """What one step produced. A request is in it once, be it in `full` or in `plain`."""

    full: list[Output] = []
    plain: list[int] = []
    """Of requests that produced one token and have nothing else to say, which is nearly all: two
    numbers each, the request's id and the token. Never a request's first output. An engine need
    not use it, but nothing is made for a token then."""

    def __bool__(self) -> bool:
        return bool(self.full or self.plain)

    def __iter__(self) -> Iterator[Output]:
        """All of it, for readers in no hurry."""
        yield from self.full
        pairs = iter(self.plain)
        for request_id, token in zip(pairs, pairs, strict=True):
            yield Output(request_id, [token])


class Info(msgspec.Struct, frozen=True):
    """What an engine is, known once it has started."""

    kind: str
    model: str
    max_context_tokens: int
    """Prompt and output together."""
    block_tokens: int
    blocks_total: int
    max_running: int
    vocabulary: int
    eos_token_ids: tuple[int, ...]
    publishes_cache_events: bool
    guided: bool = False
    """Whether it follows `Sampling.grammar`."""
    prompt_logprobs: bool = False
    """Whether it finds those of a prompt (`Sampling.prompt`)."""
    embedding_size: int = 0
    """How long the vectors are that it makes of prompts; 0: it makes none."""


class Engine(ABC):
    """Computes tokens. One engine a worker; used from one event loop."""

    @abstractmethod
    async def start(self) -> Info:
        """Load the model; return when a request could be run. Raises EngineFailed."""

    @abstractmethod
    def submit(self, request: Request) -> None:
        """Queue a request. Raises RequestRefused when it can never run here (too long, wrong
        phase) or when the waiting queue is full."""

    @abstractmethod
    def cancel(self, request_id: int) -> None:
        """End a request soon and free what it holds, also blocks kept after a prefill. A final
        output follows unless one was already on its way; unknown ids are ignored. Blocks that
        nobody fetched in time are dropped as by this call."""

    @abstractmethod
    def release(self, request_id: int) -> None:
        """Free the blocks kept after a prefill: the successor has fetched them. Unknown ids are
        ignored."""

    @abstractmethod
    def steps(self) -> AsyncIterator[Outputs]:
        """All outputs of each engine step, in order; never none. For one consumer. Ends after
        `close`; raises EngineFailed when the engine broke."""

    @abstractmethod
    def load(self) -> Load:
        """How busy the engine is now."""

    @abstractmethod
    def take_cache_events(self) -> list[CacheEvent]:
        """What changed in the reusable cache since the last call, in order."""

    @abstractmethod
    def cache_snapshot(self) -> list[CacheEvent]:
        """Every reusable block held now, as `Stored` events a reader can apply to an empty index.
        Events still waiting in `take_cache_events` are dropped: the snapshot includes them."""

    @property
    @abstractmethod
    def progress(self) -> int:
        """A number that grows with every step. A watchdog reads it: busy and not growing means
        stuck. See `busy`."""

    @property
    def handoff_refusals(self) -> Mapping[str, int]:
        """How many fetches of what is handed off here were turned away, by reason."""
        return {}

    @property
    def patience_s(self) -> float:
        """How long the step under way may honestly take before `progress` grows; 0 for no
        opinion. An engine whose steps depend on the hardware says what it has measured."""
        return 0.0

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether there is work, so that `progress` ought to grow."""

    @abstractmethod
    async def close(self) -> None:
        """Stop stepping and free everything. Live requests get no further output."""
