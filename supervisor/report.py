"""What a supervisor tells about itself: reasons in words, and the status of everything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from supervisor import tree
from supervisor.calls import ActorStatus, ChildRow, RegisteredActor, Status
from supervisor.child import Child
from supervisor.ids import is_understudy
from supervisor.layout import Layout
from supervisor.plan import Plan
from supervisor.published import Published, published
from supervisor.recipe import Recipe, leaves
from supervisor.runstate import Holder
from supervisor.tree.reason import AUTO_SHUTDOWN, FAILED_TO_START, MAX_INTENSITY
from supervisor.usage import Usage

_WORDS = {
    MAX_INTENSITY: "failed too often",
    FAILED_TO_START: "could not start",
    AUTO_SHUTDOWN: "ended, and everything else with it",
}


class Fall(msgspec.Struct, frozen=True):
    """The last end of a child that nobody had asked for."""

    at: float
    """Loop time."""
    tail: tuple[str, ...]
    """The last lines it wrote."""


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at the system adds to what the tree knows."""

    now: float
    """Loop time."""
    usage: Mapping[int, Usage] = {}
    """By process group, that is by the pid of a child."""
    own: Usage | None = None
    """Of the supervisor's process."""
    falls: Mapping[str, Fall] = {}
    """By id."""
    web: str | None = None
    registered: tuple[RegisteredActor, ...] = ()
    registry: str = ""


def describe(reason: tree.Reason) -> str:
    """A reason in one line, outermost cause first: for people, not for deciding."""
    parts: list[str] = []
    current: tree.Reason | None = reason
    while current is not None:
        text = _WORDS.get(current.detail, current.detail) or current.kind.value.replace("_", " ")
        if current.detail in _WORDS:
            text = f"{current.child} {text}"
        parts.append(text)
        current = current.cause
    return ": ".join(parts)


def culprit(reason: tree.Reason) -> str:
    """The child whose end brought this about, however deep in the tree; empty when there is
    none."""
    child = ""
    current: tree.Reason | None = reason
    while current is not None:
        child = current.child or child
        current = current.cause
    return child


def urls_and_models(children: Iterable[Child]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Every `url` and every `model` that actors publish, each once, in order."""
    found = [published(meta) for child in children for meta in child.meta.values()]
    urls = dict.fromkeys(item.url for item in found if item.url)
    models = dict.fromkeys(item.model for item in found if item.model)
    return tuple(urls), tuple(models)


def make_status(
    plan: Plan,
    holder: Holder,
    layout: Layout,
    nodes: Sequence[tree.ChildStatus],
    children: Mapping[str, Child],
    sight: Sight,
) -> Status:
    """The answer to `supervise status`. No secret is in it."""
    urls, models = urls_and_models(children.values())
    elsewhere = (actor.model for actor in sight.registered if actor.model is not None)
    specs = dict(leaves(plan.tree))
    return Status(
        namespace=plan.namespace,
        topology=holder.topology,
        pid=holder.pid,
        since=holder.since,
        state=nodes[0].state.value,
        nats=plan.nats.urls,
        etcd=plan.etcd.urls,
        urls=urls,
        models=tuple(dict.fromkeys((*models, *elsewhere))),
        children=tuple(
            _row(node, specs.get(node.id), children.get(node.id), layout, sight) for node in nodes
        ),
        clock_s=sight.now,
        web=sight.web,
        node=plan.here,
        registered=sight.registered,
        registry=sight.registry,
        nodes=plan.machines,
        silent=tuple(sorted(_silent(children.values()))),
    )


def _silent(children: Iterable[Child]) -> set[str]:
    return {host for child in children if child.beat for host in child.beat.silent_hosts}


def _row(
    node: tree.ChildStatus,
    recipe: Recipe | None,
    child: Child | None,
    layout: Layout,
    sight: Sight,
) -> ChildRow:
    now, fall = sight.now, sight.falls.get(node.id)
    usage = None if child is None or child.process is None else sight.usage.get(child.process.pid)
    if not node.supervisor:
        usage = sight.own
    row = ChildRow(
        id=node.id,
        supervisor=node.supervisor,
        is_supervisor=node.is_supervisor,
        state=node.state.value,
        run=node.run,
        restarts=node.restarts,
        uptime_s=now - node.since if node.state is tree.State.RUNNING else None,
        last_exit=None if node.last_exit is None else describe(node.last_exit),
        ended_ago_s=None if fall is None else now - fall.at,
        tail=() if fall is None else fall.tail,
        cpu_s=None if usage is None else usage.cpu_s,
        memory_bytes=None if usage is None else usage.memory_bytes,
        next_retry_s=None if node.next_retry is None else max(0.0, node.next_retry - now),
        log=None if node.is_supervisor else str(layout.log(node.id)),
        ranks=None if recipe is None else recipe.ranks,
        standby=is_understudy(node.id),
        actors=() if recipe is None else _actors(recipe, child),
    )
    if child is not None and child.process is None:
        return msgspec.structs.replace(row, waits_for=child.recipe.zygote)
    if child is None or child.process is None:
        return row
    return msgspec.structs.replace(
        row,
        pid=child.process.pid,
        beat_age_s=None if child.beat is None else now - child.beat_at,
        lag_s=None if child.beat is None else child.beat.lag_s,
    )


def _actors(recipe: Recipe, child: Child | None) -> tuple[ActorStatus, ...]:
    if recipe.node is None or recipe.node.standby:
        return ()
    found = []
    for actor in recipe.node.actors:
        name = f"{actor.role}/{actor.instance}"
        meta = None if child is None else child.meta.get(name)
        said = Published() if meta is None else published(meta)
        beat = None if child is None else child.beat
        found.append(
            ActorStatus(
                role=actor.role,
                instance=actor.instance,
                incarnation=None if child is None else child.incarnations.get(name),
                url=said.url,
                model=said.model,
                gauges={} if beat is None else beat.gauges.get(name, {}),
                troubles=() if beat is None else tuple(beat.troubles.get(name, ())),
            )
        )
    return tuple(found)
