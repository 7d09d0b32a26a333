"""Which workers run a request. Pure.

A placement is a pair: a context worker that computes the prompt and a generation worker that
goes on, or one worker alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Container, Sequence
from typing import Literal, Protocol

import msgspec

from actors.messages.cards import Fleet, Worker
from actors.runtime.address import Address

StrategyName = Literal["round_robin", "random"]


class Placement(msgspec.Struct, frozen=True):
    """Where a request goes. `context` is None when `generation` does it all."""

    context: Address | None
    generation: Address


class NoPlacement(Exception):
    """Nobody can run the request now."""


class Strategy(Protocol):
    """Chooses one of several workers; `pool` names the choice for strategies that keep turns."""

    def choose(self, pool: str, workers: Sequence[Worker]) -> Worker: ...


class RoundRobin:
    """Each in turn, separately for each pool."""

    def __init__(self) -> None:
        self._turns: Counter[str] = Counter()

    def choose(self, pool: str, workers: Sequence[Worker]) -> Worker:
        turn = self._turns[pool]
        self._turns[pool] += 1
        return workers[turn % len(workers)]


class Random:
    """Any, with equal chances."""

    def __init__(self, generator: random.Random) -> None:
        self._random = generator

    def choose(self, pool: str, workers: Sequence[Worker]) -> Worker:
        del pool
        return self._random.choice(workers)


def make_strategy(name: StrategyName, generator: random.Random) -> Strategy:
    return RoundRobin() if name == "round_robin" else Random(generator)


def place(
    fleet: Fleet, model: str, strategy: Strategy, avoid: Container[Address] = ()
) -> Placement:
    """Choose workers for a request of the model.

    Context and generation workers together are preferred; an aggregated worker serves alone, and
    so does a generation worker when no context worker is left. Workers to `avoid` count as not
    ready. Raises NoPlacement.
    """
    context = _without(fleet.serving(model, "context"), avoid)
    generation = _without(fleet.serving(model, "generation"), avoid)
    if context and generation:
        return Placement(
            strategy.choose(f"{model}:context", context).entry.address,
            strategy.choose(f"{model}:generation", generation).entry.address,
        )
    alone = [*_without(fleet.serving(model, "aggregated"), avoid), *generation]
    if alone:
        return Placement(None, strategy.choose(f"{model}:alone", alone).entry.address)
    if context:
        raise NoPlacement(f"no generation worker of {model} is ready")
    raise NoPlacement(f"no worker of {model} is ready")


def _without(workers: Sequence[Worker], avoid: Container[Address]) -> Sequence[Worker]:
    return [worker for worker in workers if worker.entry.address not in avoid]
