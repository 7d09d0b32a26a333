"""What is asked, and when: everything random about a run, as a function of its seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

_WORDS = (  # noqa: SIM905 - a list of quoted words would fill a screen
    "river stone lantern quiet harbour copper meadow signal winter orchard paper violin garden "
    "thunder valley mirror bridge candle forest silver compass morning island feather window "
    "castle summer ribbon market anchor desert planet"
).split()


class Span(msgspec.Struct, frozen=True):
    """A length, fixed or drawn evenly between two bounds, both included."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str) -> Span:
        """Read `64` or `50-200`. Raises ValueError."""
        low, dash, high = text.partition("-")
        try:
            span = cls(int(low), int(high if dash else low))
        except ValueError:
            raise ValueError(f"not a length: {text!r} (expected 64 or 50-200)") from None
        if not 1 <= span.low <= span.high:
            raise ValueError(f"not a length: {text!r} (bounds must be positive and in order)")
        return span

    def draw(self, rng: random.Random) -> int:
        return rng.randint(self.low, self.high)


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of a run. The n-th is the same whoever sends it."""

    api: Literal["chat", "completions"] = "chat"
    model: str = ""
    stream: bool = True
    input_tokens: Span = Span(64, 64)
    output_tokens: Span = Span(64, 64)
    shared_prefix_fraction: float = 0.0
    prefix_groups: int = 1
    ignore_eos: bool = False
    temperature: float = 1.0
    seed: int = 0

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.api == "chat" else "/v1/completions"

    def prompt(self, number: int) -> str:
        """Common words, about a token each; requests of one group begin alike."""
        rng = random.Random(f"{self.seed}/request/{number}")
        length = self.input_tokens.draw(rng)
        shared = round(length * self.shared_prefix_fraction)
        group = random.Random(f"{self.seed}/group/{rng.randrange(self.prefix_groups)}")
        return " ".join(
            [group.choice(_WORDS) for _ in range(shared)]
            + [rng.choice(_WORDS) for _ in range(length - shared)]
        )

    def body(self, number: int) -> bytes:
        """The n-th request as JSON."""
        rng = random.Random(f"{self.seed}/output/{number}")
        text = self.prompt(number)
        fields: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self.output_tokens.draw(rng),
            "temperature": self.temperature,
            "seed": rng.getrandbits(31),
            "stream": self.stream,
        }
        if self.api == "chat":
            fields["messages"] = [{"role": "user", "content": text}]
        else:
            fields["prompt"] = text
        if self.stream:
            fields["stream_options"] = {"include_usage": True}
        if self.ignore_eos:
            fields["ignore_eos"] = True
        return msgspec.json.encode(fields)


def poisson_times(rate: float, seed: str) -> Iterator[float]:
    """Seconds from the start at which requests arrive, `rate` a second on average; endless."""
    rng = random.Random(f"{seed}/arrivals")
    at_s = 0.0
    while True:
        at_s += rng.expovariate(rate)
        yield at_s


def share(total: int, parts: int, index: int) -> int:
    """How many of `total` things the index-th of `parts` takes; the shares differ by one."""
    return total // parts + (index < total % parts)
