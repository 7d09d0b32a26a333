"""How a token is chosen. One type from the HTTP request to the engine."""

from __future__ import annotations

from typing import Literal

import msgspec


class Grammar(msgspec.Struct, frozen=True, array_like=True):
    """What the whole answer must look like, from its first token on."""

    kind: Literal["json_schema", "regex", "choice", "grammar"]
    """How `text` is to be read: see `actors.text.grammar`."""
    text: str
    param: str = "response_format"
    """The field of the request that it came from, for errors."""


PromptWish = Literal["none", "logprobs", "embedding"]
"""What is wanted of a prompt beside what follows it."""


class Sampling(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """Everything that decides which token comes next, and when to stop.

    The noise behind a sampled token is a function of (`seed`, position of the token in the whole
    sequence), never of a generator's state: any worker can continue any stream.
    """

    max_tokens: int
    """Tokens still to produce, at least 1. A replay asks for what is left."""
    seed: int = 0
    """0 ≤ seed < 2**63; the ingress draws one when the client gives none."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all tokens."""
    min_p: float = 0.0
    stop_token_ids: tuple[int, ...] = ()
    """End the sequence as the model's own end token does; not part of the output text."""
    ignore_eos: bool = False
    """Go on to `max_tokens` whatever the model says; `stop_token_ids` still end it."""
    min_tokens: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}
    logprobs: int | None = None
    """None: no logprobs. n ≥ 0: the chosen token's, and those of the n most likely."""

    grammar: Grammar | None = None
    """Tokens that would leave the grammar are never chosen. The sequence ends when nothing can
    follow, whatever `ignore_eos` says; a replay goes on behind the tokens delivered."""

    prompt: PromptWish = "none"
    """`logprobs`: also those of the prompt's tokens, as many as `logprobs` says. `embedding`: no
    tokens; the sequence ends with the prompt's vector, and `max_tokens` is 1. Either way all of the
    prompt is computed, whatever is in the cache."""

    @property
    def greedy(self) -> bool:
        """Whether the most likely token always wins."""
        return self.temperature <= 0.0 or self.top_k == 1


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Natural logarithm of one token's probability, before temperature and truncation."""

    token: int
    logprob: float


class Logprobs(msgspec.Struct, frozen=True, array_like=True):
    """The chosen token, and the most likely ones at its position, best first."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()


class Findings(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What was found out about a prompt."""

    logprobs: list[Logprobs] = []
    """One for each of its tokens; the first one's is not a number, as nothing comes before it."""
    embedding: bytes = b""
    """Packed little-endian float32: the mean of the model's last hidden states over all tokens,
    scaled to length 1."""
