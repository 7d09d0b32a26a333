"""The mutable state behind each id: what `Lifecycle` knows of a worker or a supervisor."""

from __future__ import annotations

import enum
from collections import Counter, deque

from supervisor.tree.intensity import RestartWindow
from supervisor.tree.protocol import ChildStatus, Ref, Refused, State
from supervisor.tree.reason import SHUTDOWN, Reason
from supervisor.tree.spec import ChildSpec, Restart, Spec, SupervisorSpec

LIVE = frozenset({State.STARTING, State.RUNNING, State.DRAINING, State.STOPPING})
"""There is a process, or a subtree that is not wholly down."""
DUE = frozenset({State.WAITING, State.RESTARTING})
"""Down, and meant to come up without being told."""


class Purpose(enum.Enum):
    """Why a node is being stopped, or soon will be: decides what follows its end."""

    SWEEP = enum.auto()
    """A sibling's restart or the supervisor's own end: what follows is the supervisor's."""
    TERMINATE = enum.auto()
    RESTART = enum.auto()
    DEADLINE = enum.auto()
    IGNORE = enum.auto()
    FAILED_START = enum.auto()
    """A supervisor that ends because a child of its could not start."""


class Origin(enum.Enum):
    """Who wanted the start that is going on: decides what follows its failure."""

    INITIAL = enum.auto()
    """The supervisor's own start fails."""
    ADDED = enum.auto()
    """StartChild or Scale: the child is forgotten."""
    MANUAL = enum.auto()
    """RestartChild: the child stays stopped."""
    AUTOMATIC = enum.auto()
    """It is tried again."""


class Ticket:
    """A command that waits for one child or several; answered when the last of them is settled."""

    __slots__ = ("id", "left", "ref", "refused")

    def __init__(self, ref: Ref, spec_id: str, left: int = 1) -> None:
        self.ref = ref
        self.id = spec_id
        self.left = left
        self.refused: Refused | None = None
        """The first refusal among several children."""


class _Common:
    """What a worker and a supervisor have alike: their life as somebody's child."""

    def __init__(self, parent: Supervisor | None, since: float) -> None:
        self.parent = parent
        self.state = State.WAITING
        self.since = since
        self.origin = Origin.INITIAL
        self.purpose: Purpose | None = None
        self.run = 0
        self.ready_at: float | None = None
        """When this run, or the last one, became ready; None when it never did."""
        self.restarts = 0
        self.failures = 0
        self.last_exit: Reason | None = None
        self.timer: str | None = None
        """The one timer a node can have; the state says what it is for."""
        self.next_retry: float | None = None
        self.on_start: list[Ticket] = []
        self.on_stop: list[Ticket] = []

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def due(self) -> bool:
        return self.state in DUE


class Worker(_Common):
    """A process."""

    def __init__(self, spec: ChildSpec, parent: Supervisor, since: float) -> None:
        super().__init__(parent, since)
        self.spec = spec
        self.killed = False

    @property
    def id(self) -> str:
        return self.spec.id


class Supervisor(_Common):
    """An inner node and its plan.

    A plan is what the supervisor still has to do in order: first `to_stop` from its end, then
    `to_start` from its front. `busy` are the children whose step of the plan is under way: at
    most one, or any number when the supervisor is dynamic.
    """

    def __init__(self, spec: SupervisorSpec, parent: Supervisor | None, since: float) -> None:
        super().__init__(parent, since)
        self.spec = spec
        self.children: dict[str, Node] = {}
        """In start order."""
        self.window = RestartWindow()
        self.to_stop: list[Node] = []
        self.to_start: deque[Node] = deque()
        self.busy: set[str] = set()
        self.gate: Node | None = None
        """The child whose back-off a group restart waits for."""
        self.mending: set[str] = set()
        """Children that are brought up one by one, outside the plan."""
        self.end = SHUTDOWN
        self.exit_code = 0
        self.forced = False
        self.finale: Reason | None = None
        """An automatic shutdown that waits until the start is over."""
        self.stop_errors: Counter[tuple[str, Reason]] = Counter()

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def up(self) -> bool:
        """Whether its children may be managed."""
        return self.state in {State.STARTING, State.RUNNING}

    @property
    def planning(self) -> bool:
        """Whether a plan is under way."""
        return bool(self.to_stop or self.to_start or self.busy or self.gate)


Node = Worker | Supervisor


def aside(node: Node) -> bool:
    """Whether the node is outside its siblings' order."""
    return isinstance(node, Worker) and node.spec.aside


def keeps_spec(node: Node) -> bool:
    """Whether the node stays in the tree when it is down."""
    dynamic = node.parent is not None and node.parent.spec.dynamic
    return not dynamic and node.spec.restart != Restart.TEMPORARY


def respec(node: Node, spec: Spec | None) -> bool:
    """Give the node a new spec of its own sort; False when this is none."""
    if isinstance(node, Worker) and isinstance(spec, ChildSpec):
        node.spec = spec
        return True
    if isinstance(node, Supervisor) and isinstance(spec, SupervisorSpec):
        node.spec = spec
        return True
    return False


def stable(node: Node, now: float) -> bool:
    """Whether the run that just ended was long enough to forget the failures before it."""
    return node.ready_at is not None and now - node.ready_at >= node.spec.backoff.reset_after_s


def status(node: Node) -> ChildStatus:
    """The node as the outside may see it."""
    return ChildStatus(
        id=node.id,
        supervisor=node.parent.id if node.parent else "",
        is_supervisor=isinstance(node, Supervisor),
        state=node.state,
        run=node.run,
        restarts=node.restarts,
        failures=node.failures,
        last_exit=node.last_exit,
        since=node.since,
        next_retry=node.next_retry,
    )
