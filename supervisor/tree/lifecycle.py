"""How nodes start, end and come back: the rules of OTP's supervisor.erl, without a process.

Nothing here calls back into a parent while the parent's plan is being worked on: whoever changes
something that a plan waits for puts the supervisor on the agenda (`wake`), and `settle` works the
agenda off. So the stack stays flat however long the tree is.
"""

from __future__ import annotations

from random import Random

from supervisor.tree.nodes import (
    Node,
    Origin,
    Purpose,
    Supervisor,
    Worker,
    aside,
    keeps_spec,
    stable,
)
from supervisor.tree.plans import Outcome, Plans
from supervisor.tree.protocol import Done, Gone, Refusal, Report, ReportKind, State
from supervisor.tree.reason import (
    AUTO_SHUTDOWN,
    FAILED_TO_START,
    KILLED,
    MAX_INTENSITY,
    Kind,
    Reason,
)
from supervisor.tree.spec import AutoShutdown, Restart, Strategy, SupervisorSpec


class Lifecycle(Plans):
    """All nodes of a tree, and what follows when one is up, is over or has failed. Used by `Tree`
    within one step at a time."""

    def __init__(self, spec: SupervisorSpec, seed: int) -> None:
        super().__init__(spec)
        self.gone = False
        self.patient = False
        """Whether something may serve that must not end because the plane is away."""
        self.resumed = False
        """Whether this tree, or the one it goes on for, has been up."""
        self._random = Random(seed)

    def settle(self) -> None:
        """Carry all plans as far as they go without another event."""
        while self._agenda:
            sup = self._agenda.pop(next(iter(self._agenda)))
            match self._advance(sup) if sup.live else None:
                case Outcome.UP:
                    self.up(sup)
                case Outcome.DOWN:
                    self._finish(sup)

    def up(self, node: Node, info: object = None) -> None:
        """The node is ready."""
        self._cancel_timer(node)
        self._to(node, State.RUNNING)
        node.ready_at = self.now
        if node is self.root:
            self.patient = self.resumed = True
        self._report(ReportKind.PROGRESS, node, None)
        node.origin = Origin.AUTOMATIC
        tickets, node.on_start = node.on_start, []
        for ticket in tickets:
            self.answer(ticket, Done(node.id, node.run, info))
        self._settled(node)
        if isinstance(node, Supervisor) and node.finale is not None:
            self._end(node, node.finale, exit_code=_exit_code(node.finale.cause))

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

    # --- coming back ----------------------------------------------------------------------------

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
        kind = reason.origin.kind
        away = self.patient and kind is Kind.UNAVAILABLE
        return away or (self.resumed and kind is Kind.REFUSED)

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

    # --- giving up ------------------------------------------------------------------------------

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


def _in_group(node: Node, sup: Supervisor) -> bool:
    """Whether its siblings are restarted with it."""
    return not aside(node) and sup.spec.strategy in {Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE}


def _exit_code(reason: Reason | None) -> int:
    return 0 if reason is None or reason.expected else 1


def _in_order(node: Node, reason: Reason) -> bool:
    """Whether an end is what the order to stop asked for, and not worth a report."""
    if reason.kind is Kind.SHUTDOWN:
        return True
    if reason.kind is Kind.KILLED:
        return node.spec.brutal_kill
    return reason.kind is Kind.NORMAL and node.spec.restart != Restart.PERMANENT
