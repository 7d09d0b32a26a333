"""The books of a tree: its nodes with their states, timers and tickets, and what is to be done."""

from __future__ import annotations

from supervisor.tree.nodes import Node, Origin, Supervisor, Ticket, Worker, keeps_spec, respec
from supervisor.tree.protocol import (
    Action,
    CancelTimer,
    Done,
    Refusal,
    Refused,
    Reply,
    Report,
    ReportKind,
    SetTimer,
    State,
)
from supervisor.tree.reason import Reason
from supervisor.tree.spec import ChildSpec, Spec, SupervisorSpec


class Books:
    """What is known of all nodes of a tree, changed together within one step at a time.

    Nothing is decided here: whoever changes something that a supervisor waits for puts it on the
    agenda (`wake`).
    """

    def __init__(self, spec: SupervisorSpec) -> None:
        self.now = 0.0
        self.actions: list[Action] = []
        self.nodes: dict[str, Node] = {}
        self.timers: dict[str, Node] = {}
        self._timers_set = 0
        self._agenda: dict[str, Supervisor] = {}
        self.root = self._build_supervisor(spec, None)

    # --- nodes ----------------------------------------------------------------------------------

    def build(self, spec: Spec, parent: Supervisor) -> Node:
        """Add a node, with all below it, as the last child of `parent`."""
        node: Node
        if isinstance(spec, ChildSpec):
            node = Worker(spec, parent, self.now)
            self.nodes[spec.id] = node
        else:
            node = self._build_supervisor(spec, parent)
        parent.children[spec.id] = node
        return node

    def _build_supervisor(self, spec: SupervisorSpec, parent: Supervisor | None) -> Supervisor:
        node = Supervisor(spec, parent, self.now)
        self.nodes[spec.id] = node
        for child in spec.initial():
            self.build(child, node)
        return node

    def forget(self, node: Node) -> None:
        """Remove a node that is down, with all below it."""
        assert not node.live, "a process would be left behind"
        self._rest(node)
        self._to(node, State.STOPPED)
        self.refuse_start(node, Refusal.INTERRUPTED)
        if isinstance(node, Supervisor):
            for child in list(node.children.values()):
                self.forget(child)
        del self.nodes[node.id]
        if node.parent is not None:
            del node.parent.children[node.id]

    def _populate(self, sup: Supervisor) -> None:
        """Make the children those of the spec again, as a new life of the supervisor begins with.

        Nodes that stay keep their history for the status; everything else is forgotten.
        """
        wanted = {spec.id: spec for spec in sup.spec.initial()}
        for node in list(sup.children.values()):
            spec = wanted.get(node.id)
            if not respec(node, spec):
                self.forget(node)
                continue
            node.origin, node.ready_at, node.failures = Origin.INITIAL, None, 0
            self._to(node, State.WAITING)
        kept, sup.children = sup.children, {}
        for spec_id, spec in wanted.items():
            if spec_id in kept:
                sup.children[spec_id] = kept[spec_id]
            else:
                self.build(spec, sup)

    def _to(self, node: Node, state: State) -> None:
        node.state = state
        node.since = self.now

    # --- who waits ------------------------------------------------------------------------------

    def wake(self, sup: Supervisor) -> None:
        """Look at the plan of this supervisor before the step is over."""
        self._agenda[sup.id] = sup

    def _settled(self, node: Node) -> None:
        """The step that somebody waited for is over."""
        if node.parent is not None:
            node.parent.busy.discard(node.id)
            node.parent.mending.discard(node.id)
            self.wake(node.parent)

    def _rest(self, node: Node) -> None:
        """Let nobody wait for the next try of a node that is down."""
        self._cancel_timer(node)
        if node.parent is not None and node.parent.gate is node:
            node.parent.gate = None
        self._settled(node)

    def retire(self, node: Node) -> None:
        """Give up every intention to start a node that is down."""
        self._rest(node)
        if node.due:
            self._to(node, State.STOPPED)
        self.refuse_start(node, Refusal.INTERRUPTED)

    def down(self, node: Node) -> None:
        """Terminate a node that has no process."""
        self.retire(node)
        if node.state is State.FAILED:
            self._to(node, State.STOPPED)
        if not keeps_spec(node):
            self.forget(node)

    def answer(self, ticket: Ticket, result: Done | Refused) -> None:
        """Settle one of the children a command waits for; reply when it was the last."""
        ticket.left -= 1
        if isinstance(result, Refused) and ticket.refused is None:
            ticket.refused = result
        if ticket.left == 0:
            # A command for several children is answered in the name of their supervisor.
            done = result if result.id == ticket.id else Done(ticket.id)
            self.actions.append(Reply(ticket.ref, ticket.refused or done))

    def refuse_start(self, node: Node, why: Refusal, reason: Reason | None = None) -> None:
        """Tell those who wait for the node to be up that it will not be."""
        tickets, node.on_start = node.on_start, []
        for ticket in tickets:
            self.answer(ticket, Refused(why, node.id, reason=reason))

    # --- what is to be done ---------------------------------------------------------------------

    def _set_timer(self, node: Node, what: str, at: float) -> None:
        self._cancel_timer(node)
        self._timers_set += 1
        key = f"{what}:{node.id}:{self._timers_set}"
        node.timer = key
        self.timers[key] = node
        self.actions.append(SetTimer(key, at))

    def _cancel_timer(self, node: Node) -> None:
        node.next_retry = None
        if node.timer is not None:
            del self.timers[node.timer]
            self.actions.append(CancelTimer(node.timer))
            node.timer = None

    def _report(self, kind: ReportKind, node: Node, reason: Reason | None) -> None:
        parent = node.parent.id if node.parent else ""
        external = kind is ReportKind.PROGRESS and node.origin in {Origin.ADDED, Origin.MANUAL}
        self.actions.append(Report(kind, node.id, parent, node.run, reason, external=external))
