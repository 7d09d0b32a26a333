"""What a topology may say of the router."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Literal, get_args

import msgspec

StrategyName = Literal["kv", "prefix", "round_robin", "random", "least_loaded", "power_of_two"]

STRATEGIES: MappingProxyType[str, StrategyName] = MappingProxyType(
    {name: name for name in get_args(StrategyName)}
)

NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class CostOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `kv`, `least_loaded` and `power_of_two` go by. All in KV blocks to compute."""

    prefill_weight: NotNegative = 1.0
    """Of a block of prompt that a worker has still to compute for others."""
    decode_weight: NotNegative = 1.0
    """Of a block that a worker holds for others."""
    transfer_weight: NotNegative = 0.1
    """Of a block that a generation worker has to fetch instead of finding it in its cache."""
    window_blocks: NotNegative = 64.0
    """Differences in load up to this, plus `window_share` of the smallest load, count nothing
    against a longer cached prefix."""
    window_share: NotNegative = 0.1
    temperature: NotNegative = 0.0
    """Of `kv`: 0 takes the cheapest worker; above it, the dearer ones get a share too (softmax
    over the costs, scaled to 0..1)."""


class AffinityOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests of one session (header `x-understudy-session`, or `user`) stay together."""

    blocks: NotNegative = 64.0
    """What the session's last worker is credited with; a placement better by more wins. 0: off."""
    ttl_s: Seconds = 600.0
    sessions: Positive = 100_000
    """Remembered at most; the longest unused is forgotten first."""


class ConditionalOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a generation worker computes a prompt itself, although there are context workers."""

    uncached_tokens: Count = 0
    """When it would have to compute at most so many of the prompt's tokens. 0: never."""
    uncached_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """Or when it would have to compute at most this share of them."""


class AdmissionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much the workers are given at a time, and what happens to the rest. For each model and
    router."""

    enabled: bool = True
    """False: everything is passed on at once, whatever the workers say."""
    fill: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    """Requests in hand of all workers together, times what they run at the same time."""
    prefill_tokens: Positive = 65_536
    """Uncomputed prompt tokens in hand, for each worker that computes prompts."""
    queue: Count = 1024
    """Requests that wait here; of more, the last in line is answered with 429."""
    max_wait_s: Seconds = 5.0
    """Who would wait longer is answered with 429 at once, by the rate at which the queue drains.
    Also the longest wait."""
    max_priority: int = 0
    """The highest priority that clients may ask for (`x-understudy-priority`)."""


class RouterOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the router."""

    strategy: StrategyName = "kv"
    """`kv` (or `prefix`): the longest cached prefix, weighed against load."""
    override: bool = False
    """Clients may choose another strategy with the header `x-understudy-strategy`."""
    cost: CostOptions = CostOptions()
    affinity: AffinityOptions = AffinityOptions()
    conditional: ConditionalOptions = ConditionalOptions()
    admission: AdmissionOptions = AdmissionOptions()
    index_blocks: Positive = 10_000_000
    """The index's bound. Further blocks are not indexed (gauge `index_refused`)."""
