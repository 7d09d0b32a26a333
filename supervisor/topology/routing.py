"""What a disaggregated configuration says of routing, as options of our router. Pure.

TensorRT-LLM's orchestrator has a router for each section; there is one of ours for all workers, so
both sections have to want the same of it. What the topology says goes before what the file says.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from supervisor.topology.disaggregation import Disaggregation
from supervisor.topology.model import Actor, Child, Node
from supervisor.topology.places import Path as DocumentPath
from supervisor.topology.roles import BUILT_IN

_STRATEGIES = MappingProxyType(
    {
        "round_robin": "round_robin",
        "load_balancing": "least_loaded",
        "kv_cache_aware": "kv",
        # Sessions stay together by `affinity`, which is on.
        "conversation": "kv",
    }
)
"""Their routers, and our strategies. Their names are read whatever their case."""

T = TypeVar("T", str, int)


class Wish(msgspec.Struct, frozen=True):
    """What one file wants of the router."""

    path: DocumentPath
    """Of the entry that names the file."""
    found: Disaggregation


class Clash(msgspec.Struct, frozen=True):
    """A wish that cannot be followed."""

    path: DocumentPath
    message: str


def follow(
    children: Sequence[Child], wishes: Sequence[Wish]
) -> tuple[tuple[Child, ...], list[Clash]]:
    """The children with their routers as the files want them, where the topology does not say
    otherwise; and what cannot be followed."""
    routers = [actor for child in children for actor in _routers(child)]
    if not routers or not wishes:
        return tuple(children), []
    clashes: list[Clash] = []
    options: dict[str, Any] = {}
    if not all("strategy" in actor.options for actor in routers):
        strategy = _one(_strategies(wishes, clashes), "strategy", clashes)
        if strategy is not None:
            options["strategy"] = strategy
    if not all(_says_tokens(actor) for actor in routers):
        tokens = _one(_tokens(wishes), "conditional: {uncached_tokens: N}", clashes)
        if tokens is not None:
            options["conditional"] = {"uncached_tokens": tokens}
    return tuple(_with(child, options) for child in children), clashes


def _routers(child: Child) -> list[Actor]:
    if isinstance(child, Node):
        return [actor for actor in child.actors if _is_router(actor)]
    return [actor for below in child.children for actor in _routers(below)]


def _is_router(actor: Actor) -> bool:
    return actor.class_path == BUILT_IN["router"]


def _says_tokens(actor: Actor) -> bool:
    conditional = actor.options.get("conditional", {})
    # What is no mapping is for the check of the options to refuse.
    return not isinstance(conditional, dict) or "uncached_tokens" in conditional


def _strategies(wishes: Sequence[Wish], clashes: list[Clash]) -> list[tuple[Wish, str, str]]:
    """What each section that has a router wants, in its own words and in ours."""
    wanted = []
    for wish in wishes:
        found = wish.found
        for name, router in (
            ("context_servers", found.context_router),
            ("generation_servers", found.generation_router),
        ):
            if router is None:
                continue
            strategy = _STRATEGIES.get(router.type.lower())
            said = f"{router.type} for {name} in {found.path.name}"
            if strategy is None:
                known = ", ".join(_STRATEGIES)
                clashes.append(Clash(wish.path, f"expected one of {known} as router; found {said}"))
            else:
                wanted.append((wish, said, strategy))
    return wanted


def _tokens(wishes: Sequence[Wish]) -> list[tuple[Wish, str, int]]:
    return [
        (wish, f"max_local_prefill_length: {tokens} in {wish.found.path.name}", tokens)
        for wish in wishes
        if (tokens := wish.found.max_local_prefill_tokens) is not None
    ]


def _one(wanted: Sequence[tuple[Wish, str, T]], option: str, clashes: list[Clash]) -> T | None:
    """What all want; None when nobody wants anything, or not all the same."""
    if not wanted:
        return None
    _, first, value = wanted[0]
    for wish, said, other in wanted[1:]:
        if other != value:
            text = (
                f"expected one way of routing, as one router serves all; found {first} and {said}"
            )
            clashes.append(Clash(wish.path, f"{text}: say `{option}` in the router's options"))
            return None
    return value


def _with(child: Child, options: dict[str, Any]) -> Child:
    if isinstance(child, Node):
        actors = tuple(
            msgspec.structs.replace(actor, options=_merged(actor.options, options))
            if _is_router(actor)
            else actor
            for actor in child.actors
        )
        return msgspec.structs.replace(child, actors=actors)
    below = tuple(_with(one, options) for one in child.children)
    return msgspec.structs.replace(child, children=below)


def _merged(said: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    merged = {**wanted, **said}
    conditional = said.get("conditional")
    if isinstance(conditional, dict) and "conditional" in wanted:
        merged["conditional"] = {**wanted["conditional"], **conditional}
    return merged
