"""Starting and stopping the children of a supervisor in their order.

Every supervisor of OTP is a process that blocks while it starts or stops a child. Here all of them
share one machine, so what OTP does in one blocking call is a plan (`Supervisor.to_stop`, then
`to_start`) that goes on with each event. Two things follow that OTP does not have. A start in
progress can be interrupted, by a stop as well as by the crash of an earlier sibling, which OTP
would leave in the mailbox until the start is over; that matters when a start takes minutes. And
under one_for_one, children that crashed come back side by side instead of one after the other.
"""

from __future__ import annotations

import enum
from collections import deque

from supervisor.tree.books import Books
from supervisor.tree.intensity import RestartWindow
from supervisor.tree.nodes import Node, Origin, Purpose, Supervisor, Worker, aside
from supervisor.tree.protocol import Drain, Kill, Start, State, Stop
from supervisor.tree.reason import SHUTDOWN
from supervisor.tree.spec import Restart, Strategy, SupervisorSpec


class Outcome(enum.Enum):
    """What a supervisor's plan has come to."""

    UP = enum.auto()
    """Every child has been started."""
    DOWN = enum.auto()
    """The last child is down."""


class Plans(Books):
    """The plans of all supervisors, and the orders to processes that carry them out."""

    def __init__(self, spec: SupervisorSpec) -> None:
        super().__init__(spec)
        self._runs = 0

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

    def _start_in_turn(self, node: Node, sup: Supervisor) -> None:
        if not aside(node):
            sup.busy.add(node.id)
        elif node.origin is Origin.INITIAL:
            # Nobody's start depends on it: if it fails, it is tried again.
            node.origin = Origin.AUTOMATIC
        self.start(node)

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

    # --- plans ----------------------------------------------------------------------------------

    def _advance(self, sup: Supervisor) -> Outcome | None:
        """Carry a plan as far as it goes without another event; say what that came to, if it is
        over."""
        dynamic = sup.spec.dynamic
        while sup.to_stop and (dynamic or not sup.busy):
            node = sup.to_stop.pop()
            if node.live:
                sup.busy.add(node.id)
                self.stop(node, node.purpose or Purpose.SWEEP)
        if sup.busy:
            return None
        if sup.state is State.STOPPING:
            return Outcome.DOWN
        if sup.gate is not None or (sup.state is State.STARTING and sup.mending):
            return None
        while sup.to_start and (dynamic or not sup.busy):
            node = sup.to_start.popleft()
            if node.due:
                self._start_in_turn(node, sup)
        return Outcome.UP if sup.state is State.STARTING and not sup.busy else None

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


def _in_plan(sup: Supervisor) -> list[Node]:
    """The children in the order of a plan: those that stand aside are started last and stopped
    first."""
    return sorted(sup.children.values(), key=aside)
