"""Gathers what nodes count, and adds what only their supervisor knows.

A node is asked when somebody wants to read, and not before. One that does not answer in time (it
is starting, frozen, or of a release that does not know the question) is left out and said to be
silent: better a gap in a graph than a number of some other moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence

from actors.runtime.link import Link, Measure, Measured
from actors.runtime.metrics import Family, Metrics, render
from actors.runtime.metrics.vitals import ProcessVitals, tell_build
from supervisor import events, tree
from supervisor.usage import Usage

ANSWER_TIMEOUT_S = 2.5
"""Less than the 10 s that Prometheus gives a scrape."""
UNASKED = ("killed", "abnormal", "watchdog")
"""Ends that every child may meet. They are said to have come 0 times before the first: of a series
that begins at 1 Prometheus sees no increase."""


class Asking:
    """Questions to one node, over its link."""

    def __init__(self) -> None:
        self._asked = 0
        self._parts: dict[int, list[Family]] = {}
        self._waiting: dict[int, asyncio.Future[tuple[Family, ...]]] = {}

    async def ask(self, link: Link) -> tuple[Family, ...] | None:
        """All it counts; None when it does not say in time."""
        self._asked += 1
        number = self._asked
        answer: asyncio.Future[tuple[Family, ...]] = asyncio.get_running_loop().create_future()
        self._waiting[number], self._parts[number] = answer, []
        link.say(Measure(number))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._waiting[number], self._parts[number]

    def hear(self, note: Measured) -> None:
        """Part of an answer; one that nobody waits for any more is dropped."""
        if note.number not in self._waiting:
            return
        parts = self._parts[note.number]
        parts += note.families
        answer = self._waiting[note.number]
        if note.last and not answer.done():
            answer.set_result(tuple(parts))


class Gathered:
    """What the supervisor itself counts. Give `tell` every event."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        tell_build(self.metrics)
        ProcessVitals(self.metrics)
        self._ended: dict[str, str] = {}
        self._restarts = self.metrics.counter(
            "understudy_child_restarts_total",
            "Starts of a child whose process had ended, by how it had: killed (by a signal 9), "
            "abnormal (another signal or exit code), watchdog (it was silent or stuck), "
            "start_failed, normal, shutdown.",
            ("child", "reason"),
        )
        self._down = self.metrics.histogram(
            "understudy_child_downtime_seconds",
            "From a child's end to its successor's being ready.",
            ("child",),
        )
        self._given_up = self.metrics.counter(
            "understudy_children_given_up_total", "Children that failed too often.", ("child",)
        )
        self._changes = self.metrics.counter(
            "understudy_changes_total",
            "Changes of the running tree, by outcome: done, failed.",
            ("outcome",),
        )
        self._up = self.metrics.gauge(
            "understudy_child_up",
            "1 for a child that is ready, 0 for one that ought to be and is not.",
            ("child",),
        )
        self._life = self.metrics.gauge(
            "understudy_child_uptime_seconds", "Since the child became ready.", ("child",)
        )
        self._cpu = self.metrics.counter(
            "understudy_child_cpu_seconds_total",
            "CPU time of a child's process group, helpers included.",
            ("child",),
        )
        self._memory = self.metrics.gauge(
            "understudy_child_memory_bytes",
            "Resident memory of a child's process group; what forks share counts in each.",
            ("child",),
        )
        self._beat = self.metrics.gauge(
            "understudy_child_heartbeat_age_seconds", "Since a node was last heard.", ("child",)
        )
        self._silent = self.metrics.gauge(
            "understudy_child_silent",
            "1 for a running node that did not say in time what it counts.",
            ("child",),
        )

    def tell(self, event: events.Event) -> None:
        match event:
            case events.ChildEnded(id=name, cause=cause):
                self._ended[name] = cause
            case events.ChildStarting(id=name) if name in self._ended:
                self._restarts.labels(name, self._ended.pop(name)).add()
            case events.ChildReady(id=name, down_s=down_s) if down_s is not None:
                self._down.labels(name).observe(down_s)
            case events.ChildGivenUp(id=name):
                self._given_up.labels(name).add()
            case events.ChangeDone():
                self._changes.labels("done").add()
            case events.ChangeFailed():
                self._changes.labels("failed").add()
            case _:
                pass

    def look(
        self,
        nodes: Iterable[tree.ChildStatus],
        used: Mapping[str, Usage],
        beats: Mapping[str, float],
        silent: Collection[str],
        now: float,
    ) -> None:
        """Take in how things stand; by child: what it uses, and how long ago it was heard."""
        for family in (self._up, self._life, self._cpu, self._memory, self._beat, self._silent):
            family.forget()
        for node in nodes:
            if node.is_supervisor:
                continue
            self._given_up.labels(node.id)
            for reason in UNASKED:
                self._restarts.labels(node.id, reason)
            up = node.state is tree.State.RUNNING
            self._up.labels(node.id).set(up)
            if up:
                self._life.labels(node.id).set(now - node.since)
        for name, usage in used.items():
            self._cpu.labels(name).mirror(usage.cpu_s)
            self._memory.labels(name).set(usage.memory_bytes)
        for name, age_s in beats.items():
            self._beat.labels(name).set(age_s)
            self._silent.labels(name).set(name in silent)


def document(own: Gathered, namespace: str, answers: Sequence[tuple[str, Iterable[Family]]]) -> str:
    """One page for Prometheus, of the supervisor and of all nodes that have answered."""
    sources = [([("node", "supervisor"), ("namespace", namespace)], own.metrics.collect())]
    for name, families in answers:
        sources.append(([("node", name), ("namespace", namespace)], tuple(families)))
    return render(sources)
