"""To the workers: prompts to compute, sequences to continue, requests to forget."""

from __future__ import annotations

from actors.messages.key import RequestKey
from actors.messages.sampling import Sampling
from actors.runtime.address import Address
from actors.runtime.message import Message
from actors.runtime.tracing import TraceContext


class Generate(Message, frozen=True):
    """Router → worker: compute the prompt and generate, all in one place."""

    key: RequestKey
    request_id: str
    prompt: bytes
    sampling: Sampling
    resumed: int = 0
    budget_s: float = 0.0
    """As of `Submit`."""
    trace: TraceContext | None = None
    """As of `Submit`."""


class Prefill(Message, frozen=True):
    """Router → context worker: compute the prompt, send the first token to the ingress, and tell
    `generation` to `Decode`."""

    key: RequestKey
    request_id: str
    prompt: bytes
    sampling: Sampling
    generation: Address
    resumed: int = 0
    budget_s: float = 0.0
    trace: TraceContext | None = None


class Decode(Message, frozen=True):
    """Context worker → generation worker: fetch the KV blocks and go on."""

    key: RequestKey
    request_id: str
    prompt: bytes
    sampling: Sampling
    """As the router sent it: `max_tokens` counts the first token too."""
    context: Address
    first_token: int
    ticket: bytes
    """Of the engine's handoff."""
    resumed: int = 0
    budget_s: float = 0.0
    trace: TraceContext | None = None


class Fetched(Message, frozen=True):
    """Generation worker → context worker: the blocks are here (or are no longer wanted)."""

    key: RequestKey


class Resend(Message, frozen=True):
    """Ingress → worker: what have you sent me of this from `offset` on?

    Always answered with one chunk: what is missing; nothing, when there is nothing new; or an
    error, when the attempt is not known here (any more).
    """

    key: RequestKey
    offset: int
    """Counted in tokens of this attempt, as `Chunk.offset`."""


class Cancel(Message, frozen=True):
    """Ingress → worker: nobody waits for this any more."""

    key: RequestKey
