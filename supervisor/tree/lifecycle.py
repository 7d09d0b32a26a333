"""How nodes start, end and come back: the rules of OTP's supervisor.erl, without a process.

Every supervisor of OTP is a process that blocks while it starts or stops a child. Here all of them
share one machine, so what OTP does in one blocking call is a plan (`Supervisor.to_stop`, then
`to_start`) that goes on with each event. Two things follow that OTP does not have. A start in
progress can be interrupted, by a stop as well as by the crash of an earlier sibling, which OTP
would leave in the mailbox until the start is over; that matters when a start takes minutes. And
under one_for_one, children that crashed come back side by side instead of one after the other.

Nothing here calls back into a parent while the parent's plan is being worked on: whoever changes
something that a plan waits for puts the supervisor on the agenda (`wake`), and `settle` works the
agenda off. So the stack stays flat however long the tree is.
"""

from __future__ import annotations

from collections import deque
from random import Random

from supervisor.tree.intensity import RestartWindow
from supervisor.tree.nodes import (
    Node,
    Origin,
    Purpose,
    Supervisor,
    Ticket,
    Worker,
    aside,
    keeps_spec,
    respec,
    stable,
)
from supervisor.tree.protocol import (
    Action,
    CancelTimer,
    Done,
    Drain,
    Gone,
    Kill,
    Refusal,
    Refused,
    Reply,
    Report,
    ReportKind,
    SetTimer,
    Start,
    State,
    Stop,
)
from supervisor.tree.reason import (
    AUTO_SHUTDOWN,
    FAILED_TO_START,
    KILLED,
    MAX_INTENSITY,
    SHUTDOWN,
    Kind,
    Reason,
)
from supervisor.tree.spec import AutoShutdown, ChildSpec, Restart, Spec, Strategy, SupervisorSpec


class Lifecycle:
    """All nodes of a tree and what happens to them. Used by `Tree` within one step at a time."""

    def __init__(self, spec: SupervisorSpec, seed: int) -> None:
        self.now = 0.0
        self.actions: list[Action] = []
        self.nodes: dict[str, Node] = {}
        self.timers: dict[str, Node] = {}
        self.gone = False
        self.patient = False
        """Whether something may serve that must not end because the plane is away."""
        self._runs = 0
        self._timers_set = 0
        self._random = Random(seed)
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

    # --- timers and replies ---------------------------------------------------------------------

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

    def _report(self, kind: ReportKind, node: Node, reason: Reason | None) -> None:
        parent = node.parent.id if node.parent else ""
        external = kind is ReportKind.PROGRESS and node.origin in {Origin.ADDED, Origin.MANUAL}
        self.actions.append(Report(kind, node.id, parent, node.run, reason, external=external))

    # --- starting -------------------------------------------------------------------------------

    def start(self, node: Node) -> None:
        """Begin a new run."""
        assert not node.live, "two runs of one id"
        self._cancel_timer(node)
        self._runs += 1
        node.run = self._runs
        node.purpose, node.ready_at = None, None
        self._to(node, State.STARTING)
        if isinstance(node, Worker):
            node.killed = False
            self.actions.append(Start(node.id, node.run, node.spec))
            if node.spec.start_deadline_s is not None:
                self._set_timer(node, "deadline", self.now + node.spec.start_deadline_s)
            return
        node.window = RestartWindow()
        node.end, node.exit_code, node.forced, node.finale = SHUTDOWN, 0, False, None
        self._populate(node)
        node.to_start = deque(_in_plan(node))
        self.wake(node)

    def mend(self, node: Node) -> None:
        """Begin a new run outside the plan of the node's supervisor."""
        assert node.parent is not None, "the root is started by Boot alone"
        if not aside(node):
            node.parent.mending.add(node.id)
        self.start(node)

    def up(self, node: Node, info: object = None) -> None:
        """The node is ready."""
        self._cancel_timer(node)
        self._to(node, State.RUNNING)
        node.ready_at = self.now
        self.patient = self.patient or node is self.root
        self._report(ReportKind.PROGRESS, node, None)
        node.origin = Origin.AUTOMATIC
        tickets, node.on_start = node.on_start, []
        for ticket in tickets:
            self.answer(ticket, Done(node.id, node.run, info))
        self._settled(node)
        if isinstance(node, Supervisor) and node.finale is not None:
            self._end(node, node.finale, exit_code=_exit_code(node.finale.cause))

    def _settled(self, node: Node) -> None:
        """The step that somebody waited for is over."""
        if node.parent is not None:
            node.parent.busy.discard(node.id)
            node.parent.mending.discard(node.id)
            self.wake(node.parent)

    # --- stopping -------------------------------------------------------------------------------

    def stop(self, node: Node, purpose: Purpose) -> None:
        """Begin to end a live node; one that is ending already goes on with the new purpose."""
        assert node.live, "only what lives can be stopped"
        node.purpose = purpose
        if isinstance(node, Supervisor):
            if node.state is not State.STOPPING:
                node.end = SHUTDOWN
                self._wind_down(node)
            if node.spec.brutal_kill:
                self.force(node)
            elif node.spec.shutdown_s is not None and node.timer is None:
                self._set_timer(node, "stop", self.now + node.spec.shutdown_s)
        elif node.state in {State.STARTING, State.RUNNING}:
            if node.spec.brutal_kill:
                self.kill(node)
            elif node.spec.drain_s is not None and node.state is State.RUNNING:
                self._to(node, State.DRAINING)
                self.actions.append(Drain(node.id, node.run))
                self._set_timer(node, "drain", self.now + node.spec.drain_s)
            else:
                self.stop_politely(node)

    def stop_politely(self, node: Worker) -> None:
        """SIGTERM, and SIGKILL when its time is over."""
        self._cancel_timer(node)
        self._to(node, State.STOPPING)
        self.actions.append(Stop(node.id, node.run))
        if node.spec.shutdown_s is not None:
            self._set_timer(node, "stop", self.now + node.spec.shutdown_s)

    def kill(self, node: Worker) -> None:
        """SIGKILL, once."""
        self._cancel_timer(node)
        if node.state is not State.STOPPING:
            self._to(node, State.STOPPING)
        if not node.killed:
            node.killed = True
            self.actions.append(Kill(node.id, node.run))

    def force(self, sup: Supervisor) -> None:
        """Kill every process below, all at once."""
        if not sup.live:
            return
        sup.forced = True
        self._cancel_timer(sup)
        if sup.state is not State.STOPPING:
            self._wind_down(sup)
        for child in sup.children.values():
            if isinstance(child, Supervisor):
                self.force(child)
            elif child.live:
                self.kill(child)

    def _wind_down(self, sup: Supervisor) -> None:
        """Plan the end of a supervisor: all children down, the last one first."""
        self._cancel_timer(sup)
        self._to(sup, State.STOPPING)
        self._clear_plan(sup)
        sup.mending.clear()
        for child in _in_plan(sup):
            if child.live:
                self._doom(child)
                sup.to_stop.append(child)
            else:
                self.retire(child)
        self.wake(sup)

    def _doom(self, node: Node) -> None:
        """Note that a live node will be stopped when its turn comes; if it ends before, that is
        no reason for a restart. An order to terminate stays what it is."""
        if node.purpose is not Purpose.TERMINATE:
            node.purpose = Purpose.SWEEP

    def _clear_plan(self, sup: Supervisor) -> None:
        sup.to_stop.clear()
        sup.to_start.clear()
        sup.busy.clear()
        sup.gate = None

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

    def _rest(self, node: Node) -> None:
        """Let nobody wait for the next try of a node that is down."""
        self._cancel_timer(node)
        if node.parent is not None and node.parent.gate is node:
            node.parent.gate = None
        self._settled(node)

    # --- plans ----------------------------------------------------------------------------------

    def wake(self, sup: Supervisor) -> None:
        """Look at the plan of this supervisor before the step is over."""
        self._agenda[sup.id] = sup

    def settle(self) -> None:
        """Carry all plans as far as they go without another event."""
        while self._agenda:
            sup = self._agenda.pop(next(iter(self._agenda)))
            if sup.live:
                self._advance(sup)

    def _advance(self, sup: Supervisor) -> None:
        dynamic = sup.spec.dynamic
        while sup.to_stop and (dynamic or not sup.busy):
            node = sup.to_stop.pop()
            if node.live:
                sup.busy.add(node.id)
                self.stop(node, node.purpose or Purpose.SWEEP)
        if sup.busy:
            return
        if sup.state is State.STOPPING:
            self._finish(sup)
            return
        if sup.gate is not None or (sup.state is State.STARTING and sup.mending):
            return
        while sup.to_start and (dynamic or not sup.busy):
            node = sup.to_start.popleft()
            if node.due:
                self._start_in_turn(node, sup)
        if sup.state is State.STARTING and not sup.busy:
            self.up(sup)

    def _start_in_turn(self, node: Node, sup: Supervisor) -> None:
        if not aside(node):
            sup.busy.add(node.id)
        elif node.origin is Origin.INITIAL:
            # Nobody's start depends on it: if it fails, it is tried again.
            node.origin = Origin.AUTOMATIC
        self.start(node)

    def _finish(self, sup: Supervisor) -> None:
        """The last child is down."""
        for (_, reason), count in sup.stop_errors.items():
            template = sup.spec.template
            name = template.id if template is not None else sup.id
            report = Report(ReportKind.SHUTDOWN_ERROR, name, sup.id, 0, reason, count)
            self.actions.append(report)
        sup.stop_errors.clear()
        for child in list(sup.children.values()):
            if not keeps_spec(child):
                self.forget(child)
        self.over(sup, KILLED if sup.forced and sup.parent else sup.end)

    def _sweep(self, sup: Supervisor, culprit: Node) -> None:
        """Plan a group restart: those after the culprit (or all) down, then up again in order.

        A group restart that is still going on becomes part of this one.
        """
        affected = [node for node in sup.children.values() if not aside(node)]
        if sup.spec.strategy == Strategy.REST_FOR_ONE:
            first = next(
                index
                for index, node in enumerate(affected)
                if node is culprit or node.due or node.purpose is Purpose.SWEEP
            )
            affected = affected[first:]
        self._clear_plan(sup)
        for node in affected:
            if node.state is State.FAILED or node.purpose is Purpose.TERMINATE:
                continue
            # A temporary sibling is swept away for good, unless it waits for its first start.
            returns = node.spec.restart != Restart.TEMPORARY or node.state is State.WAITING
            if node.live:
                self._doom(node)
                sup.mending.discard(node.id)
                sup.to_stop.append(node)
            elif node is not culprit and returns:
                if node.state is State.STOPPED:
                    # Whoever wanted its last start does not want this one.
                    node.origin = Origin.AUTOMATIC
                self._rest(node)
                self._to(node, State.WAITING)
            if returns:
                sup.to_start.append(node)
        sup.to_start.extend(
            node for node in sup.children.values() if aside(node) and node.state is State.WAITING
        )
        self.wake(sup)

    # --- endings --------------------------------------------------------------------------------

    def over(self, node: Node, reason: Reason) -> None:
        """A process has exited, or the last one below a supervisor."""
        self._cancel_timer(node)
        node.last_exit = reason
        purpose, node.purpose = node.purpose, None
        if node.parent is None:
            self._gone(reason)
            return
        self._settled(node)
        match purpose:
            case Purpose.DEADLINE:
                assert isinstance(node, Worker), "supervisors have no deadline"
                text = f"not ready within {node.spec.start_deadline_s} s"
                self._start_failed(node, Reason(Kind.START_FAILED, text, node.id, reason))
            case Purpose.FAILED_START:
                self._start_failed(node, reason)
            case Purpose.IGNORE:
                self._ignored(node)
            case Purpose.SWEEP | Purpose.TERMINATE | Purpose.RESTART:
                self._stopped(node, purpose, reason)
            case None if node.state is State.STARTING:
                text = "ended before it was ready"
                self._start_failed(node, Reason(Kind.START_FAILED, text, node.id, reason))
            case None:
                self._died(node, reason)

    def _gone(self, reason: Reason) -> None:
        self.gone = True
        self._to(self.root, State.STOPPED)
        self.actions.append(Gone(reason, self.root.exit_code))

    def _stopped(self, node: Node, purpose: Purpose, reason: Reason) -> None:
        """It ended on our order, or on its own when the order was due."""
        sup = node.parent
        assert sup is not None, "the root has no sibling and no master"
        if not _in_order(node, reason):
            if sup.spec.dynamic and sup.state is State.STOPPING:
                sup.stop_errors[str(reason), reason] += 1
            else:
                self._report(ReportKind.SHUTDOWN_ERROR, node, reason)
        tickets, node.on_stop = node.on_stop, []
        for ticket in tickets:
            self.answer(ticket, Done(node.id))
        if purpose is Purpose.RESTART:
            node.origin = Origin.AUTOMATIC
            node.restarts += 1
            self._to(node, State.STOPPED)
            self.mend(node)
            return
        swept = purpose is Purpose.SWEEP and sup.state is not State.STOPPING
        self._to(node, State.WAITING if swept and keeps_spec(node) else State.STOPPED)
        if not keeps_spec(node):
            self.forget(node)
        elif not swept:
            self.refuse_start(node, Refusal.INTERRUPTED)

    def _ignored(self, node: Node) -> None:
        tickets, node.on_start = node.on_start, []
        self._to(node, State.STOPPED)
        for ticket in tickets:
            self.answer(ticket, Done(node.id))
        if not keeps_spec(node):
            self.forget(node)

    def _died(self, node: Node, reason: Reason) -> None:
        """It ended by itself while it was up."""
        sup = node.parent
        assert sup is not None, "the root is gone, not dead"
        self._to(node, State.STOPPED)
        permanent = node.spec.restart == Restart.PERMANENT
        if permanent or not reason.expected:
            self._report(ReportKind.CHILD_TERMINATED, node, reason)
        if permanent or (node.spec.restart == Restart.TRANSIENT and not reason.expected):
            self._restart(node, reason, first_try=True)
            return
        if not keeps_spec(node):
            self.forget(node)
        self._check_auto_shutdown(sup, node, reason)

    def _start_failed(self, node: Node, reason: Reason) -> None:
        sup = node.parent
        assert sup is not None, "a root that cannot start is gone"
        self._to(node, State.STOPPED)
        node.last_exit = reason
        self._report(ReportKind.START_ERROR, node, reason)
        self.refuse_start(node, Refusal.START_FAILED, reason)
        match node.origin:
            case Origin.INITIAL if sup.state is State.STARTING and not self._blameless(reason):
                self._end(sup, Reason(Kind.START_FAILED, FAILED_TO_START, node.id, reason), 1)
            case Origin.ADDED:
                self.forget(node)
            case Origin.MANUAL:
                pass
            case _ if node.spec.restart == Restart.TEMPORARY:
                self.forget(node)
            case _:
                self._restart(node, reason, first_try=False)

    def _restart(self, node: Node, reason: Reason, *, first_try: bool) -> None:
        """Bring a node up again by its supervisor's strategy, unless it has failed too often.

        The first try may follow at once; a failed one is repeated by a timer, however short, so
        that commands and a shutdown get in between.
        """
        sup = node.parent
        assert sup is not None, "nobody restarts the root"
        if stable(node, self.now):
            node.failures = 0
        blameless = not first_try and self._blameless(reason)
        if not blameless:
            node.failures += 1
            if self._ends_it(node, sup, reason):
                return
        node.restarts += 1
        # One that is not counted does not follow at once, as a first failure may.
        failures = max(2, node.failures) if blameless else node.failures
        delay = node.spec.backoff.delay(failures, self._random.random())
        group = _in_group(node, sup)
        self._to(node, State.RESTARTING)
        if group and blameless:
            # It was not up, so nobody loses anything by its end; those after it wait on.
            sup.to_start.appendleft(node)
        elif group:
            self._sweep(sup, node)
        elif not aside(node):
            sup.mending.add(node.id)
        if delay > 0 or not first_try:
            self._try_at(node, self.now + delay)
            if group:
                sup.gate = node
        elif not group:
            self.start(node)

    def _ends_it(self, node: Node, sup: Supervisor, reason: Reason) -> bool:
        """Count one failure; when it is one too many, give the node up, or end its supervisor."""
        if node.spec.max_failures is not None:
            if node.failures < node.spec.max_failures:
                return False
            self._give_up(node, reason)
            return True
        if aside(node) or sup.window.admit(
            self.now, intensity=sup.spec.intensity, period_s=sup.spec.period_s
        ):
            return False
        end = Reason(Kind.SHUTDOWN, MAX_INTENSITY, node.id, reason)
        self._report(ReportKind.SHUTDOWN, sup, end)
        self._end(sup, end, 1)
        return True

    def _blameless(self, reason: Reason) -> bool:
        """Whether a failed start is to be tried again for as long as it takes."""
        return self.patient and reason.origin.kind is Kind.UNAVAILABLE

    def _try_at(self, node: Node, at: float) -> None:
        self._set_timer(node, "retry", at)
        node.next_retry = at

    def hand_over(self, node: Worker) -> None:
        """Its process has become another child's: fill the place again."""
        assert node.parent is not None, "a process has a supervisor"
        tickets, node.on_start = node.on_start, []
        for ticket in tickets:
            self.answer(ticket, Done(node.id))
        self._settled(node)
        node.failures = 0
        node.origin = Origin.AUTOMATIC
        self._to(node, State.RESTARTING)
        if not aside(node):
            node.parent.mending.add(node.id)
        self._try_at(node, self.now + node.spec.backoff.first_s)

    def retry(self, node: Node) -> None:
        """The time for the next try has come."""
        self._cancel_timer(node)
        sup = node.parent
        assert sup is not None, "nobody restarts the root"
        if sup.gate is node:
            sup.gate = None
            self.wake(sup)
        else:
            self.mend(node)

    def _give_up(self, node: Node, reason: Reason) -> None:
        self._to(node, State.FAILED)
        self._report(ReportKind.GAVE_UP, node, reason)
        assert node.parent is not None, "the root has no limit of its own"
        self._check_auto_shutdown(node.parent, node, reason)

    def _check_auto_shutdown(self, sup: Supervisor, node: Node, reason: Reason) -> None:
        mode = sup.spec.auto_shutdown
        if not node.spec.significant or mode == AutoShutdown.NEVER:
            return
        if mode == AutoShutdown.ALL_SIGNIFICANT and any(
            child.spec.significant and (child.live or child.due) for child in sup.children.values()
        ):
            return
        end = Reason(Kind.SHUTDOWN, AUTO_SHUTDOWN, node.id, reason)
        self._report(ReportKind.SHUTDOWN, sup, end)
        if sup.state is State.STARTING:
            # It has started once all children have; only then may it end well.
            sup.finale = end
        else:
            self._end(sup, end, _exit_code(reason))

    def _end(self, sup: Supervisor, reason: Reason, exit_code: int) -> None:
        """A supervisor ends by itself. The first reason stays."""
        if sup.state is State.STOPPING:
            return
        if sup.state is State.STARTING and sup.purpose is None:
            sup.purpose = Purpose.FAILED_START
        sup.end, sup.exit_code = reason, exit_code
        self._wind_down(sup)

    def shut_down(self, reason: Reason, *, force: bool) -> None:
        """End the root by order."""
        root = self.root
        if not root.live:
            if not self.gone:
                self._gone(reason)
            return
        self._end(root, reason, _exit_code(reason))
        if force or root.spec.brutal_kill:
            self.force(root)
        elif root.spec.shutdown_s is not None and root.timer is None:
            self._set_timer(root, "stop", self.now + root.spec.shutdown_s)


def _in_group(node: Node, sup: Supervisor) -> bool:
    """Whether its siblings are restarted with it."""
    return not aside(node) and sup.spec.strategy in {Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE}


def _in_plan(sup: Supervisor) -> list[Node]:
    """The children in the order of a plan: those that stand aside are started last and stopped
    first."""
    return sorted(sup.children.values(), key=aside)


def _exit_code(reason: Reason | None) -> int:
    return 0 if reason is None or reason.expected else 1


def _in_order(node: Node, reason: Reason) -> bool:
    """Whether an end is what the order to stop asked for, and not worth a report."""
    if reason.kind is Kind.SHUTDOWN:
        return True
    if reason.kind is Kind.KILLED:
        return node.spec.brutal_kill
    return reason.kind is Kind.NORMAL and node.spec.restart != Restart.PERMANENT
