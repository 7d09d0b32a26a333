"""The real tree with well-behaved processes: every start succeeds, every drain ends by leaving."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable

from supervisor import tree
from supervisor.change.stage import Adopt, Bring, Dismiss, Replace, StandIn, Step, roles
from supervisor.tree import ChildSpec, SupervisorSpec


class Theatre:
    """Runs a spec; what runs, and who plays which role, is known at every moment."""

    def __init__(self, spec: SupervisorSpec, watch: Callable[[Theatre], None]) -> None:
        """`watch` is called after every event, from when everything is up."""
        self.tree = tree.Tree(spec)
        self.running: dict[str, ChildSpec] = {}
        """With the spec each was started with; those that can do their work."""
        self._starting: dict[str, ChildSpec] = {}
        self._events: deque[tree.Event] = deque()
        self._replies: list[tree.Reply] = []
        self._watch: Callable[[Theatre], None] = lambda _: None
        self._feed(tree.Boot())
        self._watch = watch

    @property
    def players(self) -> Counter[str]:
        """How many processes play each role now."""
        return Counter(role for spec in self.running.values() for role in roles(spec))

    def take(self, steps: Iterable[Step]) -> None:
        """Carry the steps out; fail when the tree refuses one."""
        for step in steps:
            for command in _commands(step):
                self._feed(command)
                reply = self._replies.pop()
                assert isinstance(reply.result, tree.Done), (step, reply)

    def _feed(self, event: tree.Event) -> None:
        self._events.append(event)
        while self._events:
            for action in self.tree.step(self._events.popleft(), 0.0):
                self._act(action)
            self._watch(self)

    def _act(self, action: tree.Action) -> None:
        match action:
            case tree.Start(id_, run, spec):
                self._starting[id_] = spec
                self._events.append(tree.Ready(id_, run))
            case tree.Drain(id_, run) | tree.Stop(id_, run) | tree.Kill(id_, run):
                self.running.pop(id_, None)
                self._events.append(tree.Exited(id_, run, tree.SHUTDOWN))
            case tree.Report(tree.ReportKind.PROGRESS, id_) if id_ in self._starting:
                self.running[id_] = self._starting.pop(id_)
            case tree.Reply():
                self._replies.append(action)
            case _:
                pass


def _commands(step: Step) -> list[tree.Command]:
    match step:
        case Adopt(spec):
            return [tree.Reconfigure(1, spec)]
        case Bring(id_):
            return [tree.RestartChild(1, id_)]
        case StandIn(supervisor, spec):
            return [tree.StartChild(1, supervisor, spec)]
        case Replace(id_):
            return [tree.RestartChild(1, id_, force=True)]
        case Dismiss(id_):
            return [tree.TerminateChild(1, id_), tree.DeleteChild(1, id_)]
