"""Management of a live tree: each command is refused at once, or answered when it is done."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from msgspec.structs import replace

from supervisor.tree.errors import DuplicateId, SpecError
from supervisor.tree.lifecycle import Lifecycle
from supervisor.tree.nodes import Node, Origin, Purpose, Supervisor, Ticket, Worker, respec
from supervisor.tree.protocol import (
    Command,
    DeleteChild,
    Done,
    Reconfigure,
    Refusal,
    Refused,
    Reply,
    RestartChild,
    Scale,
    StartChild,
    State,
    TerminateChild,
)
from supervisor.tree.spec import ChildSpec, Spec, Strategy, SupervisorSpec
from supervisor.tree.validate import check, check_child, template_of, walk


class RefusedError(Exception):
    """Ends a command; becomes its reply."""

    def __init__(self, why: Refusal, spec_id: str, detail: str = "") -> None:
        super().__init__(why, spec_id, detail)
        self.refused = Refused(why, spec_id, detail)


class Commands:
    """Carries out commands on the nodes of a `Lifecycle`."""

    def __init__(self, life: Lifecycle) -> None:
        self._life = life
        self._owners: dict[str, str] = {}
        """Supervisor of each id that a restart can bring back, also of those not there now."""
        self._templates: dict[str, str] = {}
        """Supervisor of each template."""
        self._index()

    def execute(self, command: Command) -> None:
        """Begin to carry out a command. Its reply is among the actions of this step or a later
        one."""
        if self._life.gone:
            late = Refused(Refusal.SUPERVISOR_DOWN, self._life.root.id)
            self._life.actions.append(Reply(command.ref, late))
            return
        try:
            match command:
                case StartChild():
                    self._start_child(command)
                case TerminateChild():
                    self._terminate_child(command)
                case RestartChild():
                    self._restart_child(command)
                case DeleteChild():
                    self._delete_child(command)
                case Scale():
                    self._scale(command)
                case Reconfigure():
                    self._reconfigure(command)
        except RefusedError as error:
            self._life.actions.append(Reply(command.ref, error.refused))

    def _done(self, command: Command, spec_id: str) -> None:
        self._life.actions.append(Reply(command.ref, Done(spec_id)))

    # --- look-up --------------------------------------------------------------------------------

    def _child(self, spec_id: str) -> tuple[Node, Supervisor]:
        node = self._life.nodes.get(spec_id)
        if node is None:
            raise RefusedError(Refusal.NOT_FOUND, spec_id)
        if node.parent is None:
            raise RefusedError(Refusal.NOT_FOUND, spec_id, "the root is nobody's child")
        return node, node.parent

    def _supervisor(self, spec_id: str) -> Supervisor:
        node = self._life.nodes.get(spec_id)
        if node is None:
            raise RefusedError(Refusal.NOT_FOUND, spec_id)
        if not isinstance(node, Supervisor):
            raise RefusedError(Refusal.NOT_A_SUPERVISOR, spec_id)
        return node

    def _index(self) -> None:
        self._owners = {
            child.id: spec.id
            for spec in walk(self._life.root.spec)
            if isinstance(spec, SupervisorSpec)
            for child in spec.children
        }
        self._templates = {
            spec.template.id: spec.id
            for spec in (
                *walk(self._life.root.spec),
                *(node.spec for node in self._life.nodes.values()),
            )
            if isinstance(spec, SupervisorSpec) and spec.template is not None
        }

    # --- StartChild -----------------------------------------------------------------------------

    def _start_child(self, command: StartChild) -> None:
        sup = self._supervisor(command.supervisor)
        if not sup.up:
            raise RefusedError(Refusal.SUPERVISOR_DOWN, sup.id)
        if sup.spec.dynamic:
            if command.spec is not None:
                raise RefusedError(Refusal.SIMPLE_ONE_FOR_ONE, sup.id, "it has its own template")
            spec: Spec = next(_instances(sup))
        elif command.spec is None:
            raise RefusedError(Refusal.INVALID_SPEC, sup.id, "a spec is needed")
        else:
            spec = command.spec
            self._check_new(spec, sup)
        self._add(spec, sup, Ticket(command.ref, spec.id))
        if isinstance(spec, SupervisorSpec):
            self._index()

    def _add(self, spec: Spec, sup: Supervisor, ticket: Ticket) -> None:
        node = self._life.build(spec, sup)
        node.origin = Origin.ADDED
        node.on_start.append(ticket)
        in_order = sup.spec.strategy in {Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE}
        starting = sup.state is State.STARTING and not sup.spec.dynamic
        if starting or (in_order and sup.planning):
            sup.to_start.append(node)
            self._life.wake(sup)
        else:
            self._life.mend(node)

    def _check_new(self, spec: Spec, sup: Supervisor) -> None:
        try:
            check_child(spec, sup.spec.auto_shutdown)
            present = sup.children.get(spec.id)
            if present is not None:
                why = Refusal.ALREADY_STARTED if present.live else Refusal.ALREADY_PRESENT
                raise RefusedError(why, spec.id)
            self._check_ids(spec, sup.id)
        except SpecError as error:
            raise RefusedError(Refusal.INVALID_SPEC, str(error.id), str(error)) from error

    def _check_ids(self, root: Spec, above: str) -> None:
        """Raise DuplicateId when an id is in use elsewhere in the tree, or could be again once
        some supervisor restarts. `above` is the supervisor that is to have `root`."""
        inside = {above, *(part.id for part in walk(root))}
        places = [(root, above)]
        while places:
            spec, parent = places.pop()
            node = self._life.nodes.get(spec.id)
            if (
                (node is not None and (node.parent.id if node.parent else "") != parent)
                or self._owners.get(spec.id, above) not in inside
                or template_of(spec.id) in self._templates
            ):
                raise DuplicateId(spec.id, spec.id)
            if isinstance(spec, SupervisorSpec):
                places.extend((child, spec.id) for child in spec.children)
                if spec.template is not None:
                    self._check_template(spec.template.id, spec.id)

    def _check_template(self, template: str, supervisor: str) -> None:
        owner = self._templates.get(template)
        if owner == supervisor:
            return
        taken = (spec_id for ids in (self._life.nodes, self._owners) for spec_id in ids)
        if owner is not None or any(template_of(spec_id) == template for spec_id in taken):
            raise DuplicateId(template, template)

    # --- TerminateChild, RestartChild, DeleteChild ----------------------------------------------

    def _terminate_child(self, command: TerminateChild) -> None:
        if command.id not in self._life.nodes and template_of(command.id) in self._templates:
            # An instance that is no more: it is as terminated as can be.
            self._done(command, command.id)
            return
        node, _ = self._child(command.id)
        self._terminate(node, Ticket(command.ref, node.id))

    def _terminate(self, node: Node, ticket: Ticket) -> None:
        life = self._life
        sup = node.parent
        assert sup is not None, "the root is ended by Shutdown"
        if node.live:
            node.on_stop.append(ticket)
            if sup.state is not State.STOPPING:
                life.stop(node, Purpose.TERMINATE)
            return
        life.down(node)
        life.answer(ticket, Done(node.id))

    def _restart_child(self, command: RestartChild) -> None:
        life = self._life
        node, sup = self._child(command.id)
        if sup.spec.dynamic and not command.force:
            raise RefusedError(Refusal.SIMPLE_ONE_FOR_ONE, node.id)
        if not sup.up:
            raise RefusedError(Refusal.SUPERVISOR_DOWN, sup.id)
        if not command.force and (node.live or node.due):
            raise RefusedError(Refusal.RUNNING if node.live else Refusal.RESTARTING, node.id)
        node.on_start.append(Ticket(command.ref, node.id))
        if node.live:
            # A group restart that will stop it brings it up again, too.
            if node.purpose is not Purpose.SWEEP:
                life.stop(node, Purpose.RESTART)
        elif node.state is State.RESTARTING:
            if node.timer is not None:
                life.retry(node)
        elif node.state is not State.WAITING:
            node.failures = 0
            node.origin = Origin.MANUAL
            life.mend(node)

    def _delete_child(self, command: DeleteChild) -> None:
        node, sup = self._child(command.id)
        if sup.spec.dynamic:
            raise RefusedError(Refusal.SIMPLE_ONE_FOR_ONE, node.id)
        if node.live or node.due:
            raise RefusedError(Refusal.RUNNING if node.live else Refusal.RESTARTING, node.id)
        self._life.forget(node)
        self._done(command, node.id)

    # --- Scale ----------------------------------------------------------------------------------

    def _scale(self, command: Scale) -> None:
        sup = self._supervisor(command.supervisor)
        if not sup.spec.dynamic:
            raise RefusedError(Refusal.NOT_DYNAMIC, sup.id)
        if command.count < 0:
            raise RefusedError(Refusal.INVALID_SPEC, sup.id, "expected a count of 0 or more")
        if self._life.root.state is State.STOPPING:
            raise RefusedError(Refusal.SUPERVISOR_DOWN, sup.id)
        self._respec(sup, replace(sup.spec, count=command.count))
        surplus = len(sup.children) - command.count
        if not sup.up or surplus == 0:
            self._done(command, sup.id)
            return
        ticket = Ticket(command.ref, sup.id, left=abs(surplus))
        if surplus > 0:
            by_index = sorted(
                sup.children.values(), key=lambda node: int(node.id.rpartition("/")[2])
            )
            for node in by_index[-surplus:]:
                self._terminate(node, ticket)
        for spec in list(itertools.islice(_instances(sup), max(0, -surplus))):
            self._add(spec, sup, ticket)

    # --- Reconfigure ----------------------------------------------------------------------------

    def _reconfigure(self, command: Reconfigure) -> None:
        sup = self._supervisor(command.spec.id)
        try:
            self._check_change(sup, command.spec)
        except SpecError as error:
            raise RefusedError(Refusal.INVALID_SPEC, str(error.id), str(error)) from error
        self._apply(sup, command.spec)
        self._respec(sup, command.spec)
        self._index()
        self._done(command, sup.id)

    def _check_change(self, sup: Supervisor, spec: SupervisorSpec) -> None:
        if sup.parent is None:
            check(spec)
        else:
            check_child(spec, sup.parent.spec.auto_shutdown)
        self._check_ids(spec, sup.parent.id if sup.parent else "")
        for part in walk(spec):
            node = self._life.nodes.get(part.id)
            if node is not None and _sort(part) != _sort(node.spec):
                detail = f"{part.id} cannot become {_sort(part)}, it is {_sort(node.spec)}"
                raise RefusedError(Refusal.INVALID_SPEC, part.id, detail)

    def _apply(self, sup: Supervisor, spec: SupervisorSpec) -> None:
        sup.spec = spec
        if spec.dynamic:
            for node in sup.children.values():
                assert isinstance(node, Worker), "instances are processes"
                assert spec.template is not None, "a checked dynamic supervisor has a template"
                node.spec = replace(spec.template, id=node.id)
            return
        before, sup.children = sup.children, {}
        for child in spec.children:
            if child.id not in before:
                self._life.retire(self._life.build(child, sup))
                continue
            node = sup.children[child.id] = before.pop(child.id)
            if isinstance(node, Supervisor) and isinstance(child, SupervisorSpec):
                self._apply(node, child)
            else:
                respec(node, child)
        sup.children.update(before)

    def _respec(self, sup: Supervisor, spec: SupervisorSpec) -> None:
        """Make the change last: the supervisors above restart this one from their own spec."""
        sup.spec = spec
        above = sup.parent
        while above is not None:
            children = tuple(
                spec if child.id == spec.id else child for child in above.spec.children
            )
            spec = above.spec = replace(above.spec, children=children)
            above = above.parent


def _sort(spec: Spec) -> str:
    """What a live reconfiguration cannot change."""
    if isinstance(spec, ChildSpec):
        return "a process"
    if spec.template is not None:
        return f"a dynamic supervisor of {spec.template.id}"
    return "a supervisor"


def _instances(sup: Supervisor) -> Iterator[ChildSpec]:
    """Instances that are not there yet, lowest number first."""
    template = sup.spec.template
    assert template is not None, "only a dynamic supervisor has instances"
    for index in itertools.count():
        if f"{template.id}/{index}" not in sup.children:
            yield sup.spec.instance(index)
