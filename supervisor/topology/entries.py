"""Reads the entries of `children`: nodes of one actor, nodes of many, and inner supervisors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from actors.runtime.options import nearest
from supervisor.topology.collector import Collector
from supervisor.topology.disaggregation import DUTIES, Disaggregation, read_disaggregation
from supervisor.topology.errors import TopologyError
from supervisor.topology.forms import (
    ENTRY_FORMS,
    ActorForm,
    GroupForm,
    LabelForm,
    NodeForm,
    ServersForm,
    SingleForm,
    SupervisorForm,
    Where,
)
from supervisor.topology.labels import chosen
from supervisor.topology.model import Actor, Child, Node, Policy, Supervision, Supervisor
from supervisor.topology.places import Path as DocumentPath
from supervisor.topology.roles import BUILT_IN, UnknownActorError, resolve_actor
from supervisor.topology.routing import Wish
from supervisor.topology.servers import CannotSplitError, worker_options


class Placed(NamedTuple):
    """A child, its path in the document, and the same for its own children."""

    path: DocumentPath
    child: Child
    below: list[Placed]


class EntryReader:
    """Reads entries of any depth. What cannot be read becomes a problem and is left out."""

    def __init__(
        self, collector: Collector, base_dir: Path, labels: Mapping[str, frozenset[str]]
    ) -> None:
        """`labels`: of each machine."""
        self._collector = collector
        self._labels = labels
        self._base_dir = base_dir
        self.wishes: list[Wish] = []
        """What the files read so far want of the router."""

    def read(
        self, entries: object, path: DocumentPath, machines: tuple[str, ...] = ()
    ) -> list[Placed]:
        """The children at `path`; `machines`: for those that do not say themselves. That they are
        a list of mappings is checked by the caller."""
        if not isinstance(entries, list):
            return []
        return [
            placed
            for index, entry in enumerate(entries)
            if isinstance(entry, dict)
            for placed in self._entry(entry, (*path, index), machines)
        ]

    def _entry(
        self, entry: dict[str, Any], path: DocumentPath, machines: tuple[str, ...]
    ) -> list[Placed]:
        kinds = [key for key in ENTRY_FORMS if key in entry]
        if len(kinds) != 1:
            self._refuse_kinds(entry, kinds, path)
            return []
        form = self._collector.decode(entry, ENTRY_FORMS[kinds[0]], path)
        if form is not None:
            machines = self._machines(form.node, path) or machines
        below = self.read(entry.get("children"), (*path, "children"), machines)
        node: Node | None = None
        match form:
            case SingleForm():
                node = self._single(form, path)
            case GroupForm():
                node = self._group(form, path)
            case ServersForm():
                return [
                    placed._replace(child=replace(placed.child, machines=machines))
                    for placed in self._servers(form, path)
                ]
            case SupervisorForm():
                supervisor = replace(_supervisor(form, below), machines=machines)
                return [Placed(path, supervisor, below)]
        return [] if node is None else [Placed(path, replace(node, machines=machines), [])]

    def _machines(self, where: Where, path: DocumentPath) -> tuple[str, ...]:
        found = chosen(where, self._labels)
        if isinstance(where, LabelForm) and not found:
            known = sorted(frozenset().union(*self._labels.values()))
            wanted = where.label if isinstance(where.label, str) else " and ".join(where.label)
            message = (
                f"expected labels that one of nodes has ({', '.join(known) or 'none has any'})"
            )
            self._collector.add((*path, "node", "label"), f"{message}; found '{wanted}'")
        return found

    def _servers(self, form: ServersForm, path: DocumentPath) -> list[Placed]:
        """Workers for the servers of a file of TensorRT-LLM's: one node for each duty."""
        where = (*path, "disaggregated_config")
        if form.replicas != 1 or form.first_instance:
            key = "replicas" if form.replicas != 1 else "first_instance"
            message = f"expected no {key} here: num_instances in the file says how many there are"
            self._collector.add((*path, key), message, at_key=True)
        try:
            found = read_disaggregation(self._base_dir / form.disaggregated_config)
            self.wishes.append(Wish(where, found))
            return [Placed(path, node, []) for node in self._of_duties(form, found, path)]
        except TopologyError as error:
            self._collector.problems += error.problems
        except CannotSplitError as error:
            self._collector.add(where, str(error))
        return []

    def _of_duties(
        self, form: ServersForm, found: Disaggregation, path: DocumentPath
    ) -> Iterator[Node]:
        for duty in DUTIES:
            servers = found.of(duty)
            if not servers:
                continue
            options, gpus = worker_options(form.options or {}, servers[0])
            actor = Actor(role=duty, class_path=BUILT_IN[duty], options=options, path=path)
            name = f"{form.name}-{duty}" if form.name else duty
            node = self._node(form, name, (actor,))
            yield replace(
                node,
                replicas=len(servers),
                gpus=gpus if form.gpus is None else form.gpus,
            )

    def _refuse_kinds(self, entry: dict[str, Any], kinds: list[str], path: DocumentPath) -> None:
        listed = ", ".join(ENTRY_FORMS)
        if kinds:
            message = f"expected only one of {listed}; found {' and '.join(kinds)}"
            self._collector.add((*path, kinds[1]), message, at_key=True)
            return
        for key in entry:
            if (meant := nearest(key, ENTRY_FORMS)) is not None:
                message = f"expected one of {listed}; found '{key}'"
                self._collector.add((*path, key), message, meant, at_key=True)
                return
        self._collector.add(path, f"expected one of {listed}; found none of them")

    def _single(self, form: SingleForm, path: DocumentPath) -> Node | None:
        actor = self._actor(form, form.role, form.name, path)
        if actor is None:
            return None
        return self._node(form, form.name or actor.role, (actor,))

    def _group(self, form: GroupForm, path: DocumentPath) -> Node | None:
        actors = [
            self._actor(actor, actor.role, None, (*path, "actors", index))
            for index, actor in enumerate(form.actors)
        ]
        complete = tuple(actor for actor in actors if actor is not None)
        return self._node(form, form.name, complete) if len(complete) == len(actors) else None

    def _actor(
        self,
        form: SingleForm | ActorForm,
        role: str | None,
        entry_name: str | None,
        path: DocumentPath,
    ) -> Actor | None:
        try:
            class_path, built_in = resolve_actor(form.actor)
        except UnknownActorError as error:
            self._collector.add((*path, "actor"), str(error), error.suggestion)
            return None
        role = role or built_in or entry_name
        if role is None:
            key = "name" if isinstance(form, SingleForm) else "role"
            message = f"expected a {key} for {class_path}, as no built-in role gives one"
            self._collector.add((*path, "actor"), f"{message}; found none")
            return None
        return Actor(role=role, class_path=class_path, options=form.options or {}, path=path)

    def _node(self, form: NodeForm, name: str, actors: tuple[Actor, ...]) -> Node:
        policy = {field: getattr(form, field) for field in Policy.__struct_fields__}
        return Node(
            **policy,
            name=name,
            actors=actors,
            env={variable: str(value) for variable, value in form.env.items()},
            cwd=str(self._base_dir / form.cwd),
        )


def _supervisor(form: SupervisorForm, below: list[Placed]) -> Supervisor:
    supervision = {field: getattr(form, field) for field in Supervision.__struct_fields__}
    return Supervisor(
        name=form.name,
        restart=form.restart,
        significant=form.significant,
        supervision=Supervision(**supervision),
        children=tuple(placed.child for placed in below),
    )
