"""The supervisor tree as one value: events in, actions out."""

from __future__ import annotations

from supervisor.tree.commands import Commands
from supervisor.tree.lifecycle import Lifecycle
from supervisor.tree.nodes import Node, Purpose, Supervisor, Worker, status
from supervisor.tree.protocol import (
    Action,
    Boot,
    ChildStatus,
    Counts,
    Drained,
    Event,
    Exited,
    Ignored,
    Promoted,
    Ready,
    Shutdown,
    State,
    Timer,
)
from supervisor.tree.reason import SHUTDOWN
from supervisor.tree.spec import Spec, SupervisorSpec
from supervisor.tree.validate import check


class UnknownIdError(LookupError):
    """No child or supervisor of this id is in the tree."""

    def __init__(self, spec_id: str) -> None:
        super().__init__(f"no child or supervisor {spec_id!r}")
        self.id = spec_id


class Tree:
    """A tree of supervisors and the children they keep running.

    Pure: no clock, no process, no await. The same spec, seed and events give the same actions.
    `step` costs O(1) for the end or start of one child, and O(children of its supervisor) where
    siblings are restarted with it.

    Raises a `SpecError` when the spec cannot be run.
    """

    def __init__(self, spec: SupervisorSpec, *, seed: int = 0) -> None:
        check(spec)
        self._life = Lifecycle(spec, seed)
        self._commands = Commands(self._life)

    # --- the machine ----------------------------------------------------------------------------

    def step(self, event: Event, now: float) -> list[Action]:
        """Take in one event; return what has to be done about it, in order.

        `now` is in seconds on any clock that never goes back. Once the tree is `gone`, commands
        are refused and everything else is ignored.
        """
        life = self._life
        life.now = now
        match event:
            case Exited() | Ready() | Ignored() | Drained() | Promoted():
                worker = life.nodes.get(event.id)
                # A run that is over, or was never started, has nothing more to say.
                if isinstance(worker, Worker) and worker.live and worker.run == event.run:
                    self._hear(worker, event)
            case Timer(key):
                if node := life.timers.pop(key, None):
                    node.timer = None
                    self._timer(node)
            case Boot(patient, resumed):
                if life.root.state is State.WAITING and not life.gone:
                    life.patient, life.resumed = patient or resumed, resumed
                    life.start(life.root)
            case Shutdown(reason, force):
                life.shut_down(reason, force=force)
            case _:
                self._commands.execute(event)
        life.settle()
        actions, life.actions = life.actions, []
        return actions

    def _hear(self, worker: Worker, event: Exited | Ready | Ignored | Drained | Promoted) -> None:
        life = self._life
        match event, worker.state:
            case Exited(), _:
                life.over(worker, event.reason)
            case Promoted(), State.STARTING | State.RUNNING if worker.purpose is None:
                life.hand_over(worker)
            case Promoted(), _:
                life.over(worker, SHUTDOWN)
            case Ready(), State.STARTING if worker.purpose is None:
                life.up(worker, event.info)
            case Ignored(), State.STARTING:
                life.stop(worker, worker.purpose or Purpose.IGNORE)
            case Drained(), State.DRAINING:
                life.stop_politely(worker)

    def _timer(self, node: Node) -> None:
        """A node has at most one timer; its state says what it was for."""
        life = self._life
        match node.state:
            case State.STARTING:
                assert isinstance(node, Worker), "supervisors have no deadline"
                node.purpose = node.purpose or Purpose.DEADLINE
                life.kill(node)
            case State.DRAINING:
                assert isinstance(node, Worker), "supervisors do not drain"
                life.stop_politely(node)
            case State.STOPPING:
                if isinstance(node, Supervisor):
                    life.force(node)
                else:
                    life.kill(node)
            case State.RESTARTING:
                life.retry(node)
            case _:
                raise AssertionError(f"no timer is set in state {node.state}")

    # --- inspection -----------------------------------------------------------------------------

    @property
    def spec(self) -> SupervisorSpec:
        """The root's spec with all changes by `Reconfigure` and `Scale`."""
        return self._life.root.spec

    @property
    def gone(self) -> bool:
        """Whether the tree has ended; nothing but refusals will follow."""
        return self._life.gone

    def status(self) -> list[ChildStatus]:
        """Every child and supervisor, the root first, children in start order after their
        supervisor."""
        found: list[ChildStatus] = []
        stack: list[Node] = [self._life.root]
        while stack:
            node = stack.pop()
            found.append(status(node))
            if isinstance(node, Supervisor):
                stack.extend(reversed(node.children.values()))
        return found

    def which_child(self, spec_id: str) -> ChildStatus:
        """One child or supervisor. Raises UnknownIdError."""
        return status(self._node(spec_id))

    def which_children(self, supervisor: str) -> list[ChildStatus]:
        """The children of a supervisor in start order. Raises UnknownIdError."""
        return [status(node) for node in self._supervisor(supervisor).children.values()]

    def count_children(self, supervisor: str) -> Counts:
        """The children of a supervisor, counted. Raises UnknownIdError."""
        sup = self._supervisor(supervisor)
        nodes = sup.children.values()
        supervisors = sum(isinstance(node, Supervisor) for node in nodes)
        return Counts(
            specs=1 if sup.spec.dynamic else len(nodes),
            active=sum(node.live for node in nodes),
            supervisors=supervisors,
            workers=len(nodes) - supervisors,
        )

    def child_spec(self, spec_id: str) -> Spec:
        """The spec with all defaults filled in. Raises UnknownIdError."""
        return self._node(spec_id).spec

    def _node(self, spec_id: str) -> Node:
        node = self._life.nodes.get(spec_id)
        if node is None:
            raise UnknownIdError(spec_id)
        return node

    def _supervisor(self, spec_id: str) -> Supervisor:
        node = self._node(spec_id)
        if not isinstance(node, Supervisor):
            raise UnknownIdError(spec_id)
        return node
