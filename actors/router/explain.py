"""What the router would do with a request, worker by worker. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterator

from actors.messages.explain import Candidate
from actors.router.affinity import Leg
from actors.router.index import BlockIndex
from actors.router.options import RouterOptions
from actors.router.placement import Ask, Decision
from actors.router.roster import Pool, Site
from actors.router.strategies import Wanted, costs_of, depth_of
from actors.runtime.address import Address

_SENTENCES = {
    "pair": "{context} computes {left} of {tokens} tokens, {generation} goes on",
    "alone": "{generation} does it all, computing {left} of {tokens} tokens",
    "local": "{generation} does it all: only {left} of {tokens} tokens are left to compute",
    "no_context": "{generation} does it all, computing {left} of {tokens} tokens: no context "
    "worker is ready",
}


def candidates(
    site: Site,
    decision: Decision,
    ask: Ask,
    index: BlockIndex,
    options: RouterOptions,
    avoid: Container[Address],
    *,
    with_costs: bool,
) -> tuple[Candidate, ...]:
    """Every worker that was considered, for each leg of the placement."""
    found: list[Candidate] = []
    for pool, leg in _legs(site, decision):
        weight = options.cost.transfer_weight if leg == "generation" else 1.0
        runs = index.match(ask.blocks, pool.mask)
        certain = index.match(ask.blocks, pool.mask, predicted=False)
        costs = costs_of(pool, Wanted(ask.blocks, weight), runs, options.cost)
        pick = decision.context if leg == "context" else decision.generation
        for member, cost in zip(pool.members, costs, strict=True):
            matched = depth_of(runs, member.bit)
            found.append(
                Candidate(
                    worker=str(member.address),
                    leg=leg,
                    matched_tokens=matched * ask.block_tokens,
                    predicted_tokens=(matched - depth_of(certain, member.bit)) * ask.block_tokens,
                    prefill_tokens=member.load.prefill_tokens,
                    decode_blocks=member.load.blocks,
                    requests=member.load.requests,
                    cost=round(cost, 2) if with_costs else None,
                    chosen=pick is not None and pick.member is member,
                    suspected=member.address in avoid,
                )
            )
    return tuple(found)


def sentence(decision: Decision, ask: Ask) -> str:
    """The decision in words."""
    context, generation = decision.context, decision.generation
    return _SENTENCES[decision.how].format(
        context="" if context is None else context.member.address.name,
        generation=generation.member.address.name,
        tokens=ask.tokens,
        left=ask.tokens - decision.computing.matched * ask.block_tokens,
    )


def _legs(site: Site, decision: Decision) -> Iterator[tuple[Pool, Leg]]:
    if decision.how == "pair":
        yield site.context, "context"
        yield site.generation, "generation"
    elif decision.how == "local":
        yield site.generation, "alone"
    else:
        yield (site.alone if site.alone.members else site.generation), "alone"
