"""What every request for text may say of how its tokens are chosen and when they end."""

from __future__ import annotations

from actors.ingress.openai import fields
from actors.ingress.openai.errors import bad_field
from actors.ingress.openai.structured import StructuredFields
from actors.messages.sampling import PromptWish, Sampling

_SEED_MASK = 2**63 - 1


class SamplingFields(StructuredFields, kw_only=True):
    """The fields that chat, completions and responses have in common, under the names of the
    wire."""

    model: fields.ModelName
    temperature: fields.Temperature | None = None
    top_p: fields.TopP | None = None
    top_k: fields.TopK | None = None
    min_p: fields.MinP | None = None
    seed: fields.Seed | None = None
    stop: fields.Stop | None = None
    stop_token_ids: fields.StopTokenIds | None = None
    ignore_eos: bool | None = None
    min_tokens: fields.MinTokens | None = None
    presence_penalty: fields.Penalty | None = None
    frequency_penalty: fields.Penalty | None = None
    repetition_penalty: fields.RepetitionPenalty | None = None
    logit_bias: fields.LogitBias | None = None
    stream: bool | None = None
    skip_special_tokens: bool | None = None
    add_special_tokens: bool | None = None
    user: str | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def token_limit(self) -> int | None:
        """Tokens the client wants at most; None when it did not say."""
        raise NotImplementedError

    @property
    def wanted_logprobs(self) -> int | None:
        """As `Sampling.logprobs`: None for none, else how many beside the chosen token's."""
        raise NotImplementedError

    @property
    def prompt_wish(self) -> PromptWish:
        """As `Sampling.prompt`."""
        return "none"

    def sampling(self, default_max_tokens: int | None, seed: int, *, choice: int = 0) -> Sampling:
        """How the tokens of one choice are chosen.

        `default_max_tokens` holds when the client gave no limit; None then means until the context
        is full. `seed` likewise, 0 ≤ seed < 2**63. Choices of one request have seeds that follow
        each other, so that they differ and can be asked for again. Raises ApiError when
        `min_tokens` is above the limit.
        """
        max_tokens = self.token_limit
        if max_tokens is None:
            max_tokens = default_max_tokens or fields.UNLIMITED_TOKENS
        if (self.min_tokens or 0) > max_tokens:
            raise bad_field("min_tokens", f"'min_tokens' must be at most {max_tokens}.")
        return Sampling(
            max_tokens=max(1, max_tokens),  # see `Exchange.prompt_only`
            seed=((seed if self.seed is None else self.seed) + choice) & _SEED_MASK,
            temperature=_given(self.temperature, 1.0),
            top_p=_given(self.top_p, 1.0),
            top_k=max(0, self.top_k or 0),
            min_p=_given(self.min_p, 0.0),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            ignore_eos=bool(self.ignore_eos),
            min_tokens=self.min_tokens or 0,
            presence_penalty=_given(self.presence_penalty, 0.0),
            frequency_penalty=_given(self.frequency_penalty, 0.0),
            repetition_penalty=_given(self.repetition_penalty, 1.0),
            logit_bias=self.logit_bias or {},
            logprobs=self.wanted_logprobs,
            grammar=self.grammar,
            prompt=self.prompt_wish,
        )

    def check_limits(self) -> None:
        """Raises ApiError when `min_tokens` is above the limit that the client gave."""
        limit = self.token_limit
        if limit is not None and (self.min_tokens or 0) > limit:
            raise bad_field("min_tokens", f"'min_tokens' must be at most {limit}.")


def _given(value: float | None, default: float) -> float:
    return default if value is None else value
