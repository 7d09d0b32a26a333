"""What a topology may say of a simulated engine."""

from __future__ import annotations

from typing import Annotated

import msgspec

from actors.engines.simulated.faults import Fault
from actors.engines.simulated.timing import DECODE_MS, HANDOFF_MS, PREFILL_MS, Polynomial, Timing
from actors.engines.simulated.tokens import Vocabulary

Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class SimulatedOptions(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="simulated",
):
    """Everything about an engine without a model. Raises ValueError when options contradict."""

    model: str = "simulated"
    """The name clients ask for."""
    tokenizer: str | None = None
    """A directory with a tokenizer. The engine does not read it; its worker publishes it."""
    vocabulary: Positive = 1024
    tokens: tuple[int, int] = (300, 900)
    """Ids to draw from, upper bound exclusive. In byte-level BPE vocabularies the default range
    holds short frequent pieces of text and no special token."""
    eos_token_ids: tuple[int, ...] = ()
    """Published, never produced as output."""
    eos_every: Annotated[int, msgspec.Meta(ge=0)] = 0
    """A sequence ends at each position with probability 1 / this; 0: only at `max_tokens`."""

    block_tokens: Positive = 16
    blocks: Positive = 16_384
    prefix_cache: bool = True
    max_running: Positive = 256
    """Sequences that take part in steps."""
    max_waiting: Annotated[int, msgspec.Meta(ge=0)] = 1024
    max_context_tokens: Positive = 32_768
    max_step_tokens: Positive = 8192
    """Prompt tokens computed in one step; longer prompts take several."""
    max_unread_steps: Positive = 64
    """Steps whose outputs nobody has read yet; at the limit the engine waits for its reader."""

    speedup: NotNegative = 1.0
    """Divides every duration of the formulas; 0 or infinity: no waiting at all."""
    prefill_ms: Polynomial = PREFILL_MS
    decode_ms: Polynomial = DECODE_MS
    handoff_ms: Polynomial = HANDOFF_MS
    load_time_s: NotNegative = 0.0
    """How long `start` takes; not divided by `speedup`."""
    handoff_ttl_s: NotNegative = 30.0
    """How long the blocks of a prefill wait for being fetched; not divided by `speedup`."""

    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        low, high = self.tokens
        if not 0 <= low < high <= self.vocabulary:
            raise ValueError(
                f"tokens: expected 0 <= low < high <= vocabulary ({self.vocabulary}), "
                f"got [{low}, {high})"
            )
        if any(low <= eos < high for eos in self.eos_token_ids):
            raise ValueError(f"eos_token_ids: an id lies in the range of tokens [{low}, {high})")

    @property
    def words(self) -> Vocabulary:
        """What `expected_token` needs to know of these options."""
        low, high = self.tokens
        return Vocabulary(low, high, self.eos_every)

    @property
    def timing(self) -> Timing:
        """The step formulas."""
        return Timing(self.prefill_ms, self.decode_ms, self.handoff_ms, self.speedup)

    @property
    def context_tokens(self) -> int:
        """The longest sequence, prompt and output, that both context and KV pool allow."""
        return min(self.max_context_tokens, self.blocks * self.block_tokens)
