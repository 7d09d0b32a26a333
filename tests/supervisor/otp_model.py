"""A second opinion on the tree: OTP's rules written down the way OTP runs them.

Here a call blocks until all that follows from it is done, as in supervisor.erl, and a child is up
or down at once. It is meant to be read beside the Erlang documentation, not beside our tree, and
shares nothing with it but the specs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from supervisor.tree import (
    AutoShutdown,
    ChildSpec,
    Restart,
    Spec,
    Strategy,
    SupervisorSpec,
)


class Actor:
    """A process or a supervisor, as its supervisor sees it."""

    def __init__(self, spec: Spec, parent: Actor | None) -> None:
        self.spec = spec
        self.parent = parent
        self.up = False
        self.children: list[Actor] = []
        self.restarts: list[float] = []

    @property
    def sup(self) -> SupervisorSpec:
        assert isinstance(self.spec, SupervisorSpec)
        return self.spec

    @property
    def boss(self) -> Actor:
        assert self.parent is not None
        return self.parent

    @property
    def temporary(self) -> bool:
        """Whether its supervisor forgets it when it is down."""
        return self.spec.restart == Restart.TEMPORARY or self.boss.sup.dynamic

    def walk(self) -> Iterator[Actor]:
        yield self
        for child in self.children:
            yield from child.walk()


class OtpModel:
    """Runs events to their end and writes down every start and stop, in order."""

    def __init__(self, spec: SupervisorSpec) -> None:
        self.now = 0.0
        self.trace: list[tuple[str, str]] = []
        self.failing: Counter[str] = Counter()
        """How many of its next starts will fail, by id."""
        self.root = Actor(spec, None)

    def find(self, name: str) -> Actor:
        return next(actor for actor in self.root.walk() if actor.spec.id == name)

    # --- what a supervisor does -----------------------------------------------------------------

    def start(self, actor: Actor) -> bool:
        if isinstance(actor.spec, ChildSpec):
            self.trace.append(("start", actor.spec.id))
            actor.up = self.failing[actor.spec.id] == 0
            self.failing[actor.spec.id] -= not actor.up
            return actor.up
        actor.children = [Actor(spec, actor) for spec in actor.spec.initial()]
        actor.restarts = []
        if actor.spec.dynamic:
            return self.start_instances(actor)
        for child in actor.children:
            if not self.start(child):
                self.stop_children(actor)
                return False
        actor.up = True
        return True

    def start_instances(self, actor: Actor) -> bool:
        """There is no order among instances: all are begun before the first one fails, and then
        all others are stopped, be they up or not yet."""
        for child in actor.children:
            self.start(child)
        failed = next((child for child in actor.children if not child.up), None)
        if failed is not None:
            for child in actor.children:
                child.up = child is not failed
            self.stop_children(actor)
        actor.up = failed is None
        return actor.up

    def stop(self, actor: Actor) -> None:
        if isinstance(actor.spec, ChildSpec):
            self.trace.append(("stop", actor.spec.id))
        else:
            self.stop_children(actor)
        actor.up = False

    def stop_children(self, actor: Actor) -> None:
        for child in reversed(actor.children):
            if child.up:
                self.stop(child)
        actor.children = [child for child in actor.children if not child.temporary]

    def handle_exit(self, actor: Actor, *, expected: bool) -> None:
        actor.up = False
        restart = actor.spec.restart
        if restart == Restart.PERMANENT or (restart == Restart.TRANSIENT and not expected):
            self.restart(actor)
            return
        if actor.temporary:
            actor.boss.children.remove(actor)
        self.check_significant(actor)

    def restart(self, actor: Actor) -> None:
        sup = actor.boss
        failed: Actor | None = actor
        while failed is not None:
            window = [time for time in sup.restarts if time >= self.now - sup.sup.period_s]
            if len(window) >= sup.sup.intensity:
                self.end(sup)
                return
            sup.restarts = [*window, self.now]
            failed = self.try_restart(sup, failed)

    def try_restart(self, sup: Actor, failed: Actor) -> Actor | None:
        """One try; the child that could not be started, if any."""
        match sup.sup.strategy:
            case Strategy.ONE_FOR_ALL:
                group = list(sup.children)
            case Strategy.REST_FOR_ONE:
                group = sup.children[sup.children.index(failed) :]
            case _:
                group = [failed]
        for child in reversed(group):
            if child.up:
                self.stop(child)
            if child.temporary and len(group) > 1:
                sup.children.remove(child)
        return next(
            (child for child in group if child in sup.children and not self.start(child)), None
        )

    def check_significant(self, actor: Actor) -> None:
        sup = actor.boss
        mode = sup.sup.auto_shutdown
        left = any(child.spec.significant and child.up for child in sup.children)
        if not actor.spec.significant or mode == AutoShutdown.NEVER:
            return
        if mode == AutoShutdown.ANY_SIGNIFICANT or not left:
            self.end(sup)

    def end(self, sup: Actor) -> None:
        """The supervisor ends itself, with reason shutdown."""
        self.stop_children(sup)
        sup.up = False
        if sup.parent is not None:
            self.handle_exit(sup, expected=True)

    # --- commands -------------------------------------------------------------------------------

    def terminate(self, actor: Actor) -> None:
        if actor.up:
            self.stop(actor)
        if actor.temporary:
            actor.boss.children.remove(actor)

    def add(self, sup: Actor, spec: Spec) -> None:
        child = Actor(spec, sup)
        if self.start(child):
            sup.children.append(child)

    def delete(self, actor: Actor) -> None:
        actor.boss.children.remove(actor)
