"""What a tree is made of: one spec for each child and one for each supervisor.

Specs are plain data and unchecked; `validate.check` says whether one can be run, and `Tree` calls
it. The defaults are those of OTP, except for the back-off, which OTP does not have.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec


class Restart(enum.StrEnum):
    """Which of its own ends a child comes back from."""

    PERMANENT = "permanent"
    """Always, also after a normal end."""
    TRANSIENT = "transient"
    """After an unexpected end only; otherwise it stays in the tree, stopped."""
    TEMPORARY = "temporary"
    """Never; its spec is forgotten when it ends, whatever ended it."""


class Strategy(enum.StrEnum):
    """Who is restarted together with a child that ended."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"
    """The child and those after it in start order."""
    SIMPLE_ONE_FOR_ONE = "simple_one_for_one"
    """Instances of one template: no order between them, started and stopped all at once."""


class AutoShutdown(enum.StrEnum):
    """Which ends of significant children end their supervisor."""

    NEVER = "never"
    ANY_SIGNIFICANT = "any_significant"
    ALL_SIGNIFICANT = "all_significant"
    """When the last one that was up, or on its way, has ended."""


class Backoff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long to wait before a restart; all in seconds.

    The first restart after a stable run waits `first_s`; the n-th failure in a row after it waits
    min(`max_s`, `initial_s` * `factor`**(n-1)). Jitter only shortens a delay, so `max_s` is a
    promise.
    """

    first_s: float = 0.0
    initial_s: float = 0.5
    factor: float = 2.0
    max_s: float = 30.0
    jitter: float = 0.2
    """Each delay is multiplied by a random number in (1 - jitter, 1]."""
    reset_after_s: float = 60.0
    """A run that was ready for at least so long was stable: the count of failures starts anew."""

    def delay(self, failures: int, draw: float) -> float:
        """Seconds before the restart that follows the `failures`-th failure in a row (from 1).

        `draw` is uniform in [0, 1).
        """
        if failures <= 1:
            return self.first_s
        # Repeated doubling would overflow a float long before a patient child recovers.
        exponent = min(failures - 2, 64)
        return min(self.max_s, self.initial_s * self.factor**exponent) * (1 - self.jitter * draw)


class ChildSpec(msgspec.Struct, frozen=True, tag="child", forbid_unknown_fields=True):
    """A leaf: one process."""

    id: str
    """Unique in the whole tree."""
    restart: Restart = Restart.PERMANENT
    significant: bool = False
    """Its end may end its supervisor, see `AutoShutdown`. Not for permanent children."""
    shutdown_s: float | None = 5.0
    """From the polite stop to the kill. None: wait for ever."""
    brutal_kill: bool = False
    """Stop by killing at once; `drain_s` and `shutdown_s` do not apply."""
    drain_s: float | None = None
    """At most so long may a ready child finish its work before the polite stop. None: no drain."""
    start_deadline_s: float | None = None
    """Not ready after so long: killed, and the start has failed. None: wait for ever."""
    backoff: Backoff = Backoff()
    max_failures: int | None = None
    """After so many failures in a row the child is given up and its siblings live on. Such a
    child does not count against its supervisor's intensity. None: as in OTP, only the intensity
    limits restarts."""
    aside: bool = False
    """Outside its siblings' order: started when they are up, waited for by nobody, stopped before
    them; left alone by their restarts and cause of none; its failures count against nobody."""
    data: Any = None
    """How to start it; for whoever executes the actions, never read here."""


class SupervisorSpec(msgspec.Struct, frozen=True, tag="supervisor", forbid_unknown_fields=True):
    """An inner node. It is no process: it has started when its children have, and has ended when
    the last of them has."""

    id: str
    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: int = 1
    """Restarts allowed within `period_s`; one more ends the supervisor."""
    period_s: float = 5.0
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER
    children: tuple[ChildSpec | SupervisorSpec, ...] = ()
    """In start order. Empty with simple_one_for_one."""
    template: ChildSpec | None = None
    """simple_one_for_one only: instance k has the id `<template.id>/<k>`, k from 0."""
    count: int = 0
    """simple_one_for_one only: how many instances to start with."""
    restart: Restart = Restart.PERMANENT
    significant: bool = False
    shutdown_s: float | None = None
    """When it is over, every process below that still runs is killed. None: wait for ever."""
    brutal_kill: bool = False
    backoff: Backoff = Backoff()
    max_failures: int | None = None

    @property
    def dynamic(self) -> bool:
        """Whether its children are instances of a template."""
        return self.strategy == Strategy.SIMPLE_ONE_FOR_ONE

    def initial(self) -> tuple[ChildSpec | SupervisorSpec, ...]:
        """The children it starts with, instances of the template included."""
        if not self.dynamic:
            return self.children
        return tuple(self.instance(k) for k in range(self.count))

    def instance(self, index: int) -> ChildSpec:
        """The template with the id of one instance."""
        assert self.template is not None, "a checked dynamic supervisor has a template"
        return msgspec.structs.replace(self.template, id=f"{self.template.id}/{index}")


Spec = ChildSpec | SupervisorSpec
