"""What a changing tree is made of, and what each step makes of it. Pure.

A stage knows more than a spec does. A child may run with an older spec than its supervisor holds;
one may be present and stopped, because somebody stopped it; one may run beside the spec, as the
stand-in for another that is being replaced.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec
from msgspec.structs import replace

from supervisor.recipe import Recipe
from supervisor.tree import ChildSpec, Spec, SupervisorSpec


class Adopt(msgspec.Struct, frozen=True, tag=True):
    """Let every supervisor have its new spec. Nothing is started or stopped by it: children go
    on with what they were started with, new ones are there and stopped."""

    spec: SupervisorSpec


class Bring(msgspec.Struct, frozen=True, tag=True):
    """Start what is there and stopped: a process, or a supervisor with all below it."""

    id: str


class StandIn(msgspec.Struct, frozen=True, tag=True):
    """Start another instance of a role, so that the one that has it can be replaced."""

    supervisor: str
    spec: ChildSpec


class Replace(msgspec.Struct, frozen=True, tag=True):
    """Drain and stop a process, and start it with the spec it has now."""

    id: str


class Dismiss(msgspec.Struct, frozen=True, tag=True):
    """Drain and stop a process or a supervisor with all below it, and forget it."""

    id: str


Step = Adopt | Bring | StandIn | Replace | Dismiss


class Place(msgspec.Struct, frozen=True):
    """Where something is in the tree."""

    supervisor: str
    """Empty for the root."""
    is_supervisor: bool


class Stage(msgspec.Struct, frozen=True):
    """A tree in the middle of a change."""

    adopted: SupervisorSpec
    """What the supervisors hold."""
    present: Mapping[str, Place]
    """Everything that is there, stopped or not, a supervisor before what is below it."""
    running: Mapping[str, ChildSpec]
    """Every process, by id, with what it was started with; one on its way up counts."""

    @classmethod
    def of(cls, spec: SupervisorSpec, stopped: Collection[str] = ()) -> Stage:
        """A tree at rest. `stopped`: processes and supervisors that are there and do not run."""
        running = {leaf.id: leaf for leaf in up_leaves(spec, frozenset(stopped))}
        return cls(spec, places(spec), running)

    def after(self, step: Step) -> Stage:
        """The stage once the step is done."""
        match step:
            case Adopt(spec):
                # What the new spec has not is still there, behind what it has.
                new = places(spec)
                left = {id_: at for id_, at in self.present.items() if id_ not in new}
                return replace(self, adopted=spec, present={**new, **left})
            case Bring(id_):
                started = {leaf.id: leaf for leaf in leaves(find(self.adopted, id_))}
                return replace(self, running={**self.running, **started})
            case StandIn(supervisor, spec):
                return replace(
                    self,
                    present={**self.present, spec.id: Place(supervisor, is_supervisor=False)},
                    running={**self.running, spec.id: spec},
                )
            case Replace(id_):
                spec_now = find(self.adopted, id_)
                assert isinstance(spec_now, ChildSpec), "only processes are replaced"
                return replace(self, running={**self.running, id_: spec_now})
            case Dismiss(id_):
                gone = {id_, *self.below(id_)}
                return replace(
                    self,
                    present={k: v for k, v in self.present.items() if k not in gone},
                    running={k: v for k, v in self.running.items() if k not in gone},
                )

    def below(self, supervisor: str) -> Iterator[str]:
        """Everything under a supervisor, at any depth."""
        for id_, place in self.present.items():
            if place.supervisor == supervisor:
                yield id_
                yield from self.below(id_)

    def roles_without(self, id_: str) -> frozenset[str]:
        """The roles that some process other than this one plays."""
        return frozenset(
            role for other, spec in self.running.items() if other != id_ for role in roles(spec)
        )


def leaves(spec: Spec) -> Iterator[ChildSpec]:
    """The processes of a spec, in start order."""
    return up_leaves(spec, frozenset())


def up_leaves(spec: Spec, stopped: frozenset[str]) -> Iterator[ChildSpec]:
    """The same without those that are stopped or below something that is."""
    if spec.id in stopped:
        return
    if isinstance(spec, ChildSpec):
        yield spec
        return
    for child in spec.initial():
        yield from up_leaves(child, stopped)


def places(spec: SupervisorSpec, supervisor: str = "") -> dict[str, Place]:
    """Where everything in a spec is, in start order, a supervisor before what is below it."""
    found = {spec.id: Place(supervisor, is_supervisor=True)}
    for child in spec.initial():
        if isinstance(child, SupervisorSpec):
            found |= places(child, spec.id)
        else:
            found[child.id] = Place(spec.id, is_supervisor=False)
    return found


def find(spec: Spec, id_: str) -> Spec:
    """The part of a spec with this id. Raises KeyError."""
    pending: list[Spec] = [spec]
    while pending:
        part = pending.pop()
        if part.id == id_:
            return part
        if isinstance(part, SupervisorSpec):
            pending.extend(part.initial())
    raise KeyError(id_)


def recipe(spec: ChildSpec) -> Recipe:
    """How a process is started."""
    assert isinstance(spec.data, Recipe), "a plan's leaves have recipes"
    return spec.data


def roles(spec: ChildSpec) -> frozenset[str]:
    """The roles a process plays; a server plays none, and neither does an understudy."""
    node = recipe(spec).node
    if node is None or node.standby:
        return frozenset()
    return frozenset(actor.role for actor in node.actors)


def same_process(one: ChildSpec, other: ChildSpec) -> bool:
    """Whether a process started with one spec is what the other asks for: limits of time and
    restart rules are the supervisor's own, and change without a new process."""
    return replace(recipe(one), surge=False) == replace(recipe(other), surge=False)
