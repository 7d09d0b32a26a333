"""Which steps lead from a stage to a spec, and in which order. Pure.

New up before old down. In order:

1. What changes its supervisor, or its kind, has to leave its old place first: the one case of old
   down before new up, together with new processes that need the GPUs of dismissed ones.
2. `Adopt`: the new spec is checked as a whole, and refused as a whole.
3. What is new is brought up, in start order.
4. What changed is replaced, in start order, one process at a time, each ready before the next.
   Where nobody else plays one of its roles, a stand-in with the new spec and a free number is
   started before, and dismissed after: clients see no gap, and a spec that cannot start is found
   out before anything old was touched. `Recipe.surge` says whether there can be a stand-in; one
   cannot share a port or a GPU. Then the role has a gap, as long as its stop and start take. Where
   a role goes from one process to another, who takes it over is replaced before who gives it up,
   or, if both do both, has a stand-in until all are replaced.
5. What is no longer wanted is dismissed, in reverse start order.

Processes that somebody has stopped stay stopped. What does not differ is not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec import structs

from supervisor.change.stage import (
    Adopt,
    Bring,
    Dismiss,
    Place,
    Replace,
    Stage,
    StandIn,
    Step,
    find,
    leaves,
    places,
    recipe,
    roles,
    same_process,
)
from supervisor.recipe import renumbered
from supervisor.tree import ChildSpec, Restart, SupervisorSpec


def rollout(stage: Stage, target: SupervisorSpec) -> list[Step]:
    """The steps from a stage to a spec; none when it is there already."""
    return _Rollout(stage).to(target)


def rolling_restart(stage: Stage, ids: Iterable[str]) -> list[Step]:
    """Replace these processes by themselves, one at a time."""
    steps = _Rollout(stage)
    for id_ in ids:
        steps.replace(id_)
    return steps.taken


class _Rollout:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.taken: list[Step] = []

    def take(self, step: Step) -> None:
        self.taken.append(step)
        self.stage = self.stage.after(step)

    def to(self, target: SupervisorSpec) -> list[Step]:
        wanted = places(target)
        done = self._done()
        self._make_way(wanted, target)
        new = [id_ for id_ in wanted if id_ not in self.stage.present and id_ not in done]
        if new or self.stage.adopted != target:
            self.take(Adopt(target))
        for id_ in _outermost(new, wanted):
            self.take(Bring(id_))
        self._replace_changed(target)
        self._dismiss(id_ for id_ in self.stage.present if id_ not in wanted)
        return self.taken

    def replace(self, id_: str) -> None:
        """Replace one process, with a stand-in where its roles need one."""
        spec = find(self.stage.adopted, id_)
        assert isinstance(spec, ChildSpec), "only processes are replaced"
        alone = not roles(spec) <= self.stage.roles_without(id_)
        if not (alone and recipe(spec).surge):
            self.take(Replace(id_))
            return
        stand_in = self._stand_in(spec)
        self.take(Replace(id_))
        self.take(Dismiss(stand_in))

    def _stand_in(self, spec: ChildSpec) -> str:
        """Start one for a process that is there; its id."""
        stand_in = renumbered(spec, self._free_number(spec))
        self.take(StandIn(self.stage.present[spec.id].supervisor, stand_in))
        return stand_in.id

    def _replace_changed(self, target: SupervisorSpec) -> None:
        running = self.stage.running
        changed = [
            leaf
            for leaf in leaves(target)
            if leaf.id in running and not same_process(running[leaf.id], leaf)
        ]
        wanted = frozenset[str]().union(*map(roles, leaves(target)))
        helping: list[str] = []
        while changed:
            leaf = next((one for one in changed if not self._given_up(one, wanted)), changed[0])
            changed.remove(leaf)
            helping.extend(self._stand_ins_of_heirs(leaf, changed, wanted))
            self.replace(leaf.id)
        for id_ in helping:
            self.take(Dismiss(id_))

    def _stand_ins_of_heirs(
        self, leaf: ChildSpec, others: Iterable[ChildSpec], wanted: frozenset[str]
    ) -> Iterator[str]:
        """Start them for those of the others that take over what this process gives up."""
        for heir in others:
            if self._given_up(leaf, wanted) & roles(heir) and recipe(heir).surge:
                yield self._stand_in(heir)

    def _given_up(self, leaf: ChildSpec, wanted: frozenset[str]) -> frozenset[str]:
        """Of the `wanted` roles those that nobody would play once this process is replaced."""
        lost = roles(self.stage.running[leaf.id]) - roles(leaf) - self.stage.roles_without(leaf.id)
        return lost & wanted

    def _done(self) -> set[str]:
        """Temporary processes that have ended and are forgotten: nothing brings them back."""
        return {
            leaf.id
            for leaf in leaves(self.stage.adopted)
            if leaf.restart is Restart.TEMPORARY and leaf.id not in self.stage.present
        }

    def _make_way(self, wanted: Mapping[str, Place], target: SupervisorSpec) -> None:
        moved = [
            id_
            for id_, place in self.stage.present.items()
            if id_ in wanted and wanted[id_] != place
        ]
        if moved:
            self._dismiss(moved)
            # Its old supervisor must not claim it any longer, or the tree would see it twice.
            self.take(Adopt(_without(self.stage.adopted, frozenset(moved))))
        if any(recipe(leaf).gpus for leaf in leaves(target) if leaf.id not in self.stage.present):
            self._dismiss(
                id_
                for id_, spec in self.stage.running.items()
                if id_ not in wanted and recipe(spec).gpus
            )

    def _dismiss(self, ids: Iterable[str]) -> None:
        for id_ in reversed(_outermost(ids, self.stage.present)):
            self.take(Dismiss(id_))

    def _free_number(self, spec: ChildSpec) -> int:
        """Above every instance number of the process's name and roles, stopped ones and those of
        other nodes included."""
        name, played = spec.id.rpartition("/")[0], roles(spec)
        used = [
            int(number)
            for id_ in self.stage.present
            for owner, _, number in [id_.rpartition("/")]
            if owner == name and number.isdecimal()
        ]
        for leaf in (*self.stage.running.values(), *leaves(self.stage.adopted)):
            node = recipe(leaf).node
            used += [a.instance for a in node.actors if a.role in played] if node else []
        return max(max(used, default=-1) + 1, recipe(spec).stand_ins_from)


def _without(spec: SupervisorSpec, ids: frozenset[str]) -> SupervisorSpec:
    kept = (child for child in spec.children if child.id not in ids)
    return structs.replace(
        spec,
        children=tuple(
            _without(child, ids) if isinstance(child, SupervisorSpec) else child for child in kept
        ),
    )


def _outermost(ids: Iterable[str], within: Mapping[str, Place]) -> list[str]:
    """Those that are not below another of them, in the order given."""
    chosen = list(ids)
    among = set(chosen)

    def covered(id_: str) -> bool:
        above = within[id_].supervisor
        while above:
            if above in among:
                return True
            above = within[above].supervisor
        return False

    return [id_ for id_ in chosen if not covered(id_)]
