"""From two looks at a supervisor to what an operator reads: shares and rates. Pure.

A status holds counters only, so that any number of readers may look at their own pace. Rates are
taken over the time between the two heartbeats that brought the numbers, not between the looks: a
look may have seen one beat or three. What cannot be known is None and never 0: a counter that has
started anew, a first look, no beat in between.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from supervisor.calls import ActorStatus, ChildRow, Status

TOKENS = "tokens"
REQUESTS = "requests"
COUNTERS = (TOKENS, REQUESTS)
"""The gauges that only grow during an actor's life; all others are levels."""


class ActorOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One actor."""

    name: str
    incarnation: int | None
    mailbox: float | None
    """Messages that wait."""
    running: float | None
    """Sequences in the engine's batch."""
    waiting: float | None
    """Sequences that wait for their turn."""
    kv_used: float | None
    """The share of its KV blocks, 0 to 1."""
    open: float | None
    """Requests in hand."""
    tokens_per_s: float | None
    requests_per_s: float | None
    other: dict[str, float]
    """What an actor of one's own tells beside these."""


class NodeOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One process or inner supervisor."""

    id: str
    supervisor: str
    is_supervisor: bool
    state: str
    standby: bool
    """Whether it is an understudy."""
    restarts: int
    cpu_percent: float | None
    """100 is one core."""
    memory_bytes: int | None
    lag_s: float | None
    actors: tuple[ActorOverview, ...]


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Over the whole tree; a sum of what is known."""

    running: int
    """Processes that are up; understudies count apart."""
    processes: int
    standing_by: int
    """Understudies that are loaded."""
    understudies: int
    restarts: int
    cpu_percent: float | None
    memory_bytes: int
    tokens_per_s: float | None
    requests_per_s: float | None
    open: float


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """A supervisor and everything below it, at one moment."""

    namespace: str
    state: str
    totals: Totals
    nodes: tuple[NodeOverview, ...]
    """The root first, children in start order after their supervisor."""


def overview(previous: Status | None, current: Status) -> Overview:
    """What has happened between two looks at the same supervisor; `previous` None or of another
    supervisor: nothing is known of rates."""
    if previous is not None and (previous.pid, previous.since) != (current.pid, current.since):
        previous = None
    before = {} if previous is None else {row.id: row for row in previous.children}
    then = 0.0 if previous is None else previous.clock_s
    nodes = tuple(_node(before.get(row.id), row, then, current.clock_s) for row in current.children)
    return Overview(
        namespace=current.namespace, state=current.state, totals=_totals(nodes), nodes=nodes
    )


def cpu_percent(before: ChildRow | None, now: ChildRow, elapsed_s: float) -> float | None:
    """The share of a core that a child has used in between, in percent."""
    if before is None or before.run != now.run or before.pid != now.pid or elapsed_s <= 0:
        return None
    if before.cpu_s is None or now.cpu_s is None or now.cpu_s < before.cpu_s:
        return None
    return 100 * (now.cpu_s - before.cpu_s) / elapsed_s


def rate(
    counter: str, before: ActorStatus | None, now: ActorStatus, elapsed_s: float
) -> float | None:
    """How fast a counter of one life of an actor grows, per second."""
    if before is None or before.incarnation != now.incarnation or elapsed_s <= 0:
        return None
    first, last = before.gauges.get(counter), now.gauges.get(counter)
    if first is None or last is None or last < first:
        return None
    return (last - first) / elapsed_s


def _node(before: ChildRow | None, now: ChildRow, then_s: float, now_s: float) -> NodeOverview:
    actors_before = {} if before is None else {actor.name: actor for actor in before.actors}
    beats_apart_s = _beat_at(now, now_s) - (0.0 if before is None else _beat_at(before, then_s))
    return NodeOverview(
        id=now.id,
        supervisor=now.supervisor,
        is_supervisor=now.is_supervisor,
        state=now.state,
        standby=now.standby,
        restarts=now.restarts,
        cpu_percent=cpu_percent(before, now, now_s - then_s),
        memory_bytes=now.memory_bytes,
        lag_s=now.lag_s,
        actors=tuple(
            _actor(actors_before.get(actor.name), actor, beats_apart_s) for actor in now.actors
        ),
    )


def _beat_at(row: ChildRow, clock_s: float) -> float:
    return clock_s - (row.beat_age_s or 0.0)


def _actor(before: ActorStatus | None, now: ActorStatus, elapsed_s: float) -> ActorOverview:
    gauges = dict(now.gauges)
    for counter in COUNTERS:
        gauges.pop(counter, None)
    return ActorOverview(
        name=now.name,
        incarnation=now.incarnation,
        mailbox=gauges.pop("mailbox", None),
        running=gauges.pop("running", None),
        waiting=gauges.pop("waiting", None),
        kv_used=gauges.pop("kv_used", None),
        open=gauges.pop("open", None),
        tokens_per_s=rate(TOKENS, before, now, elapsed_s),
        requests_per_s=rate(REQUESTS, before, now, elapsed_s),
        other=gauges,
    )


def _totals(nodes: Iterable[NodeOverview]) -> Totals:
    processes = [node for node in nodes if not node.is_supervisor and not node.standby]
    understudies = [node for node in nodes if node.standby]
    actors = [actor for node in processes for actor in node.actors]
    return Totals(
        running=sum(node.state == "running" for node in processes),
        processes=len(processes),
        standing_by=sum(node.state == "running" for node in understudies),
        understudies=len(understudies),
        restarts=sum(node.restarts for node in nodes),
        cpu_percent=_sum_known(node.cpu_percent for node in nodes),
        memory_bytes=sum(node.memory_bytes or 0 for node in nodes),
        tokens_per_s=_sum_known(actor.tokens_per_s for actor in actors),
        requests_per_s=_sum_known(actor.requests_per_s for actor in actors),
        open=sum(actor.open or 0.0 for actor in actors),
    )


def _sum_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
