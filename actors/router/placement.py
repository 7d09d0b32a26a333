"""Which workers run a request. Pure.

A placement is a pair: a context worker that computes the prompt and a generation worker that
goes on, or one worker alone.

    a context and a generation worker   the pair, or, where the topology allows it and little of
                                        the prompt is left to compute, the generation worker alone
    no context worker                   generation workers compute prompts themselves
    aggregated workers                  one of them alone
    no generation worker                nobody: context workers cannot finish anything
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Literal

import msgspec

from actors.kv.hashing import BYTES_PER_TOKEN, PrefixHasher
from actors.messages.events import Placement
from actors.messages.key import RequestKey
from actors.router.affinity import Leg, Sessions
from actors.router.index import BlockIndex
from actors.router.options import RouterOptions
from actors.router.roster import Member, Pool, Site
from actors.router.strategies import Pick, Strategy, Wanted, depth_of, window
from actors.runtime.address import Address

How = Literal["pair", "alone", "local", "no_context"]
"""`local`: the generation worker computes the prompt, because little of it is left to compute.
`no_context`: it does because no context worker is there."""


MAX_FORETOLD = 512
"""Blocks of a prompt that other routers are told of before their worker has computed them; what is
shared between prompts is at their beginning."""


class Ask(msgspec.Struct, frozen=True, gc=False):
    """A request, as far as its placement depends on it."""

    tokens: int
    blocks: Sequence[int]
    """Sequence hashes of the prompt's blocks that a cache can spare; empty when nobody asks."""
    block_tokens: int
    session: int = 0


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Where a request goes. `context` is None when `generation` does it all."""

    context: Pick | None
    generation: Pick
    how: How

    @property
    def computing(self) -> Pick:
        """Who computes the prompt."""
        return self.generation if self.context is None else self.context

    @property
    def workers(self) -> list[tuple[Leg, Address]]:
        """Everybody who takes part, and as what."""
        generation = self.generation.member.address
        if self.context is not None:
            return [("context", self.context.member.address), ("generation", generation)]
        return [("generation" if self.how == "local" else "alone", generation)]


class NoPlacement(Exception):
    """Nobody can run the request now."""


def make_ask(
    prompt: bytes, block_tokens: int, *, session: int = 0, hasher: PrefixHasher | None
) -> Ask:
    """What there is to place; without a hasher nobody asks for its blocks. The prompt's last token
    is computed in any case: its block counts as cacheable only when another token follows it."""
    tokens = len(prompt) // BYTES_PER_TOKEN
    blocks: Sequence[int] = ()
    if hasher is not None and tokens > block_tokens:
        blocks = hasher.hashes(prompt[: (tokens - 1) * BYTES_PER_TOKEN], block_tokens)
    return Ask(tokens, blocks, block_tokens, session)


def placements(key: RequestKey, ask: Ask, decision: Decision) -> list[Placement]:
    """What a decision will cost each worker."""
    computing = decision.computing
    left = ask.tokens - computing.matched * ask.block_tokens
    blocks = ask.tokens // ask.block_tokens + 1
    missing = tuple(ask.blocks[computing.matched : computing.matched + MAX_FORETOLD])
    found = [Placement(key, computing.member.address, left, blocks, missing)]
    if decision.context is not None:
        found.append(Placement(key, decision.generation.member.address, 0, blocks))
    return found


def predict(index: BlockIndex, ask: Ask, decision: Decision) -> None:
    """Note which blocks whoever computes the prompt will have soon."""
    computing = decision.computing
    index.predict(computing.member.slot, ask.blocks[computing.matched :])


class Placer:
    """Places requests by a strategy."""

    def __init__(
        self, options: RouterOptions, index: BlockIndex, strategy: Strategy, sessions: Sessions
    ) -> None:
        self._options = options
        self._index = index
        self._strategy = strategy
        self._sessions = sessions
        self.uses_index = strategy.uses_index

    def place(
        self, site: Site, model: str, ask: Ask, now: float, avoid: Container[Address] = ()
    ) -> Decision:
        """Choose workers. Those to `avoid` are taken only when there are no others: that all of
        them failed at once is the network's doing. Raises NoPlacement."""
        try:
            return self._place(site, model, ask, now, avoid)
        except NoPlacement:
            if not avoid:
                raise
            return self._place(site, model, ask, now, ())

    def _place(
        self, site: Site, model: str, ask: Ask, now: float, avoid: Container[Address]
    ) -> Decision:
        context, generation, alone = site.context, site.generation, site.alone
        if avoid:
            context, generation = context.without(avoid), generation.without(avoid)
            alone = alone.without(avoid)
        if context.members and generation.members:
            return self._pair(context, generation, ask, now)
        if not alone.members and generation.members:
            alone = generation  # all context workers are under suspicion
        if alone.members:
            pick = self._choose(alone, ask, "alone", 1.0, now)
            is_fallback = pick.member.card.duty == "generation"
            return Decision(None, pick, "no_context" if is_fallback else "alone")
        if context.members:
            raise NoPlacement(f"no generation worker of {model} is ready")
        raise NoPlacement(f"no worker of {model} is ready")

    def _pair(self, context: Pool, generation: Pool, ask: Ask, now: float) -> Decision:
        conditional = self._options.conditional
        if conditional.uncached_tokens or conditional.uncached_share:
            pick = self._choose(generation, ask, "generation", 1.0, now)
            left = ask.tokens - pick.matched * ask.block_tokens
            allowed = max(conditional.uncached_tokens, conditional.uncached_share * ask.tokens)
            if left <= allowed:
                return Decision(None, pick, "local")
        weight = self._options.cost.transfer_weight
        return Decision(
            self._choose(context, ask, "context", 1.0, now),
            self._choose(generation, ask, "generation", weight, now),
            "pair",
        )

    def _choose(self, pool: Pool, ask: Ask, leg: Leg, block_weight: float, now: float) -> Pick:
        pick = self._strategy.choose(pool, Wanted(ask.blocks, block_weight))
        if ask.session:
            last = self._sessions.find(ask.session, leg, now)
            if last is not None and last != pick.member.address:
                pick = self._prefer(pool, ask, block_weight, pick, last)
        return pick

    def _prefer(self, pool: Pool, ask: Ask, block_weight: float, pick: Pick, last: Address) -> Pick:
        """The session's last worker, unless the other is better by more than it is credited."""
        member = next((one for one in pool.members if one.address == last), None)
        if member is None:
            return pick
        cost, matched = self._cost(pool, ask, block_weight, member)
        other, _ = self._cost(pool, ask, block_weight, pick.member)
        if cost - self._options.affinity.blocks <= other:
            return Pick(member, matched, cost)
        return pick

    def _cost(self, pool: Pool, ask: Ask, block_weight: float, member: Member) -> tuple[float, int]:
        runs = self._index.match(ask.blocks, member.bit)
        matched = depth_of(runs, member.bit)
        free = window(self._options.cost, min(pool.weights))
        return block_weight * (len(ask.blocks) - matched) + max(0.0, member.weight - free), matched
