"""How one leaf of a tree is started: its recipe, and what becomes of it in other hands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from actors.runtime.process import NodeSpec
from supervisor import tree
from supervisor.adoption import identity_of
from supervisor.ids import entry_of, understudies_of
from supervisor.launchers.world import WorldImage
from supervisor.launchers.zygote import Image
from supervisor.layout import file_name
from supervisor.probes import Probe
from supervisor.resources import Limits
from supervisor.watchdog import Deadlines

NODE_VARIABLE = "UNDERSTUDY_NODE"
"""In the environment of every node and of what it starts: whose it is. One that takes another's
place keeps what it was started with."""
REFILL_AFTER_S = 1.0
"""From a promotion to the start of the next understudy: it must not compete with the one that is
just taking over."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How to start one leaf; the `data` of its `ChildSpec`."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    ready_mark: bytes | None = None
    """Of a server, see `services.Server`. A node says over its link that it is ready."""
    node: NodeSpec | None = None
    """What goes into a node's file, but for `run` and `above`, which each start has its own of."""
    own_env: dict[str, str] = {}
    """The part of `env` that is this node's alone."""
    zygote: str | None = None
    """The child that can fork this node, a zygote or a world; None starts it in a process of its
    own."""
    image: Image | None = None
    """Set for a zygote: what it preloads."""
    world: WorldImage | None = None
    """Set for a world: which nodes share it."""
    ranks: int | None = None
    """Of a node that mpirun starts; None: it is started as it is."""
    outlived: bool = False
    """Whether mpirun has to be told when the node has ended: it is none of the ranks."""
    probe: Probe | None = None
    """Of a server: how it is asked whether it lives."""
    pulse: bool = False
    """Of a helper that says nothing: its process is looked at."""
    watchdog: Deadlines | None = None
    """When it has failed although its process lives; None: never."""
    limits: Limits = Limits()
    gpus: int | None = None
    """How many GPUs it gets for itself alone; None leaves all visible."""
    surge: bool = False
    """Whether a stand-in may run beside it while it is being replaced, see `change.rollout`."""
    stand_ins_from: int = 0
    """The least number of such a stand-in: no other node of the topology gives it one as high."""


def leaves(spec: tree.Spec) -> Iterator[tuple[str, Recipe]]:
    """Every leaf's id and recipe, in start order."""
    if isinstance(spec, tree.ChildSpec):
        yield spec.id, spec.data
    else:
        for child in spec.children:
            yield from leaves(child)


def identities(spec: tree.Spec) -> dict[str, str]:
    """By id: with what each leaf is started that a later supervisor could take over.

    All but the zygotes, which speak to the one that started them. What a node is told anew with
    each start (`run`, `above`) is not part of it, nor is the supervisor's own environment.
    """
    return {name: identity(recipe) for name, recipe in leaves(spec) if recipe.image is None}


def identity(recipe: Recipe) -> str:
    """What `identities` has for one leaf."""
    return identity_of(
        recipe.argv,
        recipe.cwd,
        recipe.own_env,
        recipe.node,
        recipe.probe,
        recipe.limits,
        recipe.gpus,
    )


def part(recipe: Recipe) -> str:
    """What a node is started as, but for its name and number: a node and its understudies have
    this in common, and nobody else. The empty text for what is no node."""
    if recipe.node is None:
        return ""
    actors = tuple(msgspec.structs.replace(a, instance=0) for a in recipe.node.actors)
    own_env = {key: value for key, value in recipe.own_env.items() if key != NODE_VARIABLE}
    node = msgspec.structs.replace(recipe.node, name="", standby=False, actors=actors)
    return identity_of(recipe.argv[:-1], recipe.cwd, own_env, node, recipe.limits, recipe.gpus)


def understudy(spec: tree.ChildSpec, number: int) -> tree.ChildSpec:
    """An understudy for this node and its fellow replicas: loaded, without a name, and in nobody's
    way. It has nothing to drain, and is tried again for ever."""
    recipe = spec.data
    assert isinstance(recipe, Recipe), "a plan's leaves have recipes"
    assert recipe.node is not None, "only nodes have understudies"
    name = f"{understudies_of(entry_of(spec.id))}/{number}"
    node = msgspec.structs.replace(recipe.node, standby=True)
    again = msgspec.structs.replace(spec.backoff, first_s=REFILL_AFTER_S)
    spec = msgspec.structs.replace(
        spec,
        restart=tree.Restart.PERMANENT,
        significant=False,
        drain_s=None,
        aside=True,
        backoff=again,
        max_failures=None,
        data=msgspec.structs.replace(recipe, node=node, surge=False),
    )
    return _renamed(spec, name)


def renumbered(spec: tree.ChildSpec, number: int) -> tree.ChildSpec:
    """The same node as another instance of its roles."""
    recipe = spec.data
    assert isinstance(recipe, Recipe), "a plan's leaves have recipes"
    assert recipe.node is not None, "only nodes have numbers"
    actors = tuple(msgspec.structs.replace(a, instance=number) for a in recipe.node.actors)
    node = msgspec.structs.replace(recipe.node, actors=actors)
    spec = msgspec.structs.replace(spec, data=msgspec.structs.replace(recipe, node=node))
    return _renamed(spec, f"{entry_of(spec.id)}/{number}")


def _renamed(spec: tree.ChildSpec, name: str) -> tree.ChildSpec:
    recipe = spec.data
    own_env = {**recipe.own_env, NODE_VARIABLE: name}
    *argv, file = recipe.argv
    return msgspec.structs.replace(
        spec,
        id=name,
        data=msgspec.structs.replace(
            recipe,
            argv=(*argv, str(Path(file).with_name(f"{file_name(name)}.json"))),
            env={**recipe.env, NODE_VARIABLE: name},
            own_env=own_env,
            node=msgspec.structs.replace(recipe.node, name=name),
        ),
    )
