"""How one worker of a pool is chosen. Pure.

`kv` goes by cost, in KV blocks:

    cost = blocks the worker would have to compute for this prompt
         + its load beyond the window

A worker's load is the prompt blocks it has still to compute plus the blocks it holds for others,
work that is on its way included. The window reaches from the smallest load in the pool to
`window_blocks` plus `window_share` of it above. Within the window only the cached prefix counts, so
small differences in load do not tear sessions from their caches; beyond it every block of load
weighs as much as a block to compute, so no worker is buried under a popular prefix. Equal costs go
to the smaller load, equal loads to chance.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Protocol

import msgspec

from actors.router.index import BlockIndex, Run, slots_of
from actors.router.options import CostOptions, StrategyName
from actors.router.roster import Member, Pool

TIES_PROBED = 4
"""Draws made to find one of many equal loads before they are counted off."""


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """What is to be placed on one worker."""

    blocks: Sequence[int]
    """Sequence hashes of the prompt's blocks that a cache can spare it."""
    block_weight: float = 1.0
    """What a block that is not cached costs."""


class Pick(msgspec.Struct, frozen=True, gc=False):
    """The worker chosen, and how many of the prompt's first blocks it holds."""

    member: Member
    matched: int
    cost: float | None = None


class Strategy(Protocol):
    """Chooses a worker of a pool that is not empty."""

    uses_index: bool

    def choose(self, pool: Pool, wanted: Wanted) -> Pick: ...


class RoundRobin:
    """Each in turn, separately for each pool."""

    uses_index = False

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}

    def choose(self, pool: Pool, wanted: Wanted) -> Pick:
        del wanted
        turn = self._turns.get(pool.name, 0)
        self._turns[pool.name] = turn + 1
        return Pick(pool.members[turn % len(pool)], 0)


class Random:
    """Any, with equal chances."""

    uses_index = False

    def __init__(self, generator: random.Random) -> None:
        self._random = generator

    def choose(self, pool: Pool, wanted: Wanted) -> Pick:
        del wanted
        return Pick(self._random.choice(pool.members), 0)


class LeastLoaded:
    """The smallest load."""

    uses_index = False

    def __init__(self, generator: random.Random) -> None:
        self._random = generator

    def choose(self, pool: Pool, wanted: Wanted) -> Pick:
        del wanted
        return Pick(pool.members[lightest(pool.weights, self._random)], 0)


class PowerOfTwo:
    """The smaller load of two drawn at random (Mitzenmacher, 1996)."""

    uses_index = False

    def __init__(self, generator: random.Random) -> None:
        self._random = generator

    def choose(self, pool: Pool, wanted: Wanted) -> Pick:
        del wanted
        if len(pool) == 1:
            return Pick(pool.members[0], 0)
        one, other = self._random.sample(range(len(pool)), 2)
        return Pick(pool.members[one if pool.weights[one] <= pool.weights[other] else other], 0)


class KvAware:
    """The smallest cost; see the module."""

    uses_index = True

    def __init__(self, index: BlockIndex, options: CostOptions, generator: random.Random) -> None:
        self._index = index
        self._options = options
        self._random = generator

    def choose(self, pool: Pool, wanted: Wanted) -> Pick:
        runs = self._index.match(wanted.blocks, pool.mask)
        if self._options.temperature > 0:
            return self._draw(pool, wanted, runs)
        best = lightest(pool.weights, self._random)
        least = pool.weights[best]
        free = window(self._options, least)
        count, weight = len(wanted.blocks), wanted.block_weight
        matched = depth_of(runs, pool.members[best].bit)
        cost = weight * (count - matched)
        load, ties = least, 1
        # Longest prefixes first. Whoever is left out has no longer one than the cheapest found,
        # and the load of that one is within the window or already paid for.
        for depth, workers in reversed(runs):
            compute = weight * (count - depth)
            if compute > cost or depth <= matched:
                break
            for slot in slots_of(workers):
                position = pool.position[slot]
                other = pool.weights[position]
                its_cost = compute + max(0.0, other - free)
                if (its_cost, other) > (cost, load):
                    continue
                ties = ties + 1 if (its_cost, other) == (cost, load) else 1
                if ties == 1 or self._random.random() * ties < 1:
                    best, cost, load = position, its_cost, other
        member = pool.members[best]
        return Pick(member, depth_of(runs, member.bit), cost)

    def _draw(self, pool: Pool, wanted: Wanted, runs: Sequence[Run]) -> Pick:
        costs = costs_of(pool, wanted, runs, self._options)
        lowest = min(costs)
        spread = (max(costs) - lowest) or 1.0
        chances = [
            math.exp(-(cost - lowest) / spread / self._options.temperature) for cost in costs
        ]
        [position] = self._random.choices(range(len(pool)), chances)
        member = pool.members[position]
        return Pick(member, depth_of(runs, member.bit), costs[position])


def window(options: CostOptions, least: float) -> float:
    """The load up to which a worker counts as no busier than the least busy one."""
    return least + options.window_blocks + options.window_share * least


def costs_of(pool: Pool, wanted: Wanted, runs: Sequence[Run], options: CostOptions) -> list[float]:
    """The cost of every worker, in the pool's order. For explanations, and for temperatures."""
    free = window(options, min(pool.weights))
    count = len(wanted.blocks)
    return [
        wanted.block_weight * (count - depth_of(runs, member.bit)) + max(0.0, weight - free)
        for member, weight in zip(pool.members, pool.weights, strict=True)
    ]


def depth_of(runs: Sequence[Run], bit: int) -> int:
    """How many blocks one worker holds."""
    for depth, workers in runs:
        if workers & bit:
            return depth
    return 0


def lightest(weights: Sequence[float], generator: random.Random) -> int:
    """The position of the smallest; of several, any with equal chances."""
    least = min(weights)
    position = weights.index(least)
    equals = weights.count(least)
    if equals == 1:
        return position
    for _ in range(TIES_PROBED):
        drawn = int(generator.random() * len(weights))
        if weights[drawn] == least:
            return drawn
    for _ in range(int(generator.random() * equals)):
        position = weights.index(least, position + 1)
    return position


def make_strategy(
    name: StrategyName, index: BlockIndex, options: CostOptions, generator: random.Random
) -> Strategy:
    match name:
        case "kv" | "prefix":
            return KvAware(index, options, generator)
        case "round_robin":
            return RoundRobin()
        case "random":
            return Random(generator)
        case "least_loaded":
            return LeastLoaded(generator)
        case "power_of_two":
            return PowerOfTwo(generator)
