"""A stage for the pure tree: a clock that is set by hand, and actors that follow a script.

It executes actions as a real shell would, but on paper, and it holds the tree to its word on every
action: see `Stage._perform`.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict, deque
from typing import Literal

import msgspec

from supervisor.tree import (
    KILLED,
    SHUTDOWN,
    Action,
    Backoff,
    Boot,
    CancelTimer,
    ChildSpec,
    ChildStatus,
    Command,
    Done,
    Drain,
    Drained,
    Event,
    Exited,
    Gone,
    Ignored,
    Kill,
    Kind,
    Promoted,
    Ready,
    Reason,
    Refusal,
    Refused,
    Reply,
    Report,
    ReportKind,
    Restart,
    SetTimer,
    Shutdown,
    Start,
    State,
    Stop,
    SupervisorSpec,
    Timer,
    Tree,
)

AT_ONCE = Backoff(initial_s=0, jitter=0)
"""OTP's way: no delay between tries."""
BOOM = Reason(Kind.ABNORMAL, "boom")

Opening = Literal["ready", "ignore", "hang"] | Reason
"""How a run begins; a Reason is its end before it is ready."""


class Script(msgspec.Struct, kw_only=True):
    """How a child behaves, whatever its run."""

    starts: list[Opening] = msgspec.field(default_factory=lambda: ["ready"])
    """One for each run; the last is for all that follow."""
    on_stop: Reason | None = SHUTDOWN
    """How it ends when asked to stop; None: it does not listen."""
    stop_takes_s: float = 0
    drains: bool = True
    """Whether it says when it has drained."""
    info: object = None


def child(
    name: str,
    restart: Restart = Restart.PERMANENT,
    *,
    significant: bool = False,
    shutdown_s: float | None = 5.0,
    brutal_kill: bool = False,
    drain_s: float | None = None,
    start_deadline_s: float | None = None,
    backoff: Backoff = AT_ONCE,
    max_failures: int | None = None,
    aside: bool = False,
) -> ChildSpec:
    """A child that is restarted without delay, as in OTP."""
    return ChildSpec(
        name,
        restart,
        significant=significant,
        shutdown_s=shutdown_s,
        brutal_kill=brutal_kill,
        drain_s=drain_s,
        start_deadline_s=start_deadline_s,
        backoff=backoff,
        max_failures=max_failures,
        aside=aside,
    )


class Stage:
    """A tree and its actors."""

    def __init__(self, spec: SupervisorSpec, **scripts: Script) -> None:
        self.tree = Tree(spec)
        self.now = 100.0
        self.scripts: defaultdict[str, Script] = defaultdict(Script, scripts)
        self.live: dict[str, int] = {}
        """Runs that have a process."""
        self.log: list[Action] = []
        self.gone: Gone | None = None
        self.broken = False
        """Whether the tree broke down, or its word, in the last event."""
        self.replies: dict[int | str, Done | Refused] = {}
        self._last_run = 0
        self._killed: set[int] = set()
        self._keys_seen: set[str] = set()
        self._starts: defaultdict[str, int] = defaultdict(int)
        self._timers: dict[str, float] = {}
        self._later: list[tuple[float, int, Event]] = []
        self._inbox: deque[Event] = deque()
        self._count = itertools.count()

    # --- driving --------------------------------------------------------------------------------

    def boot(self) -> Stage:
        """Start the tree and let everything happen that happens at once."""
        self.send(Boot())
        return self

    def send(self, event: Event) -> list[Action]:
        """Give the tree an event and everything that follows from it at once."""
        mark = len(self.log)
        self._inbox.append(event)
        self.broken = True
        while self._inbox:
            event = self._inbox.popleft()
            if isinstance(event, Exited | Promoted):
                if self.live.get(event.id) != event.run:
                    continue
                del self.live[event.id]
            for action in self.tree.step(event, self.now):
                self._perform(action)
        self.broken = False
        return self.log[mark:]

    def call(self, command: Command) -> Done | Refused | None:
        """Give a command; its result, or None while it is not answered."""
        self.send(command)
        return self.replies.get(command.ref)

    def die(self, name: str, reason: Reason = BOOM) -> list[Action]:
        """Let a child end by itself."""
        return self.send(Exited(name, self.live[name], reason))

    def promote(self, name: str) -> list[Action]:
        """Let a child's process become another child's."""
        return self.send(Promoted(name, self.live[name]))

    def ready(self, name: str) -> list[Action]:
        """Let a child that was left hanging be ready."""
        return self.send(Ready(name, self.live[name]))

    def shut_down(self, *, force: bool = False) -> list[Action]:
        return self.send(Shutdown(force=force))

    def advance(self, seconds: float = 0.0) -> None:
        """Let time pass: everything due until then happens at its time, in order."""
        until = self.now + seconds
        while True:
            due = [(at, 0, key) for key, at in self._timers.items()]
            if self._later:
                due.append((self._later[0][0], -1, ""))
            if not due or min(due)[0] > until:
                break
            at, _, key = min(due)
            self.now = max(self.now, at)
            if key:
                del self._timers[key]
                self.send(Timer(key))
            else:
                self.send(heapq.heappop(self._later)[2])
        self.now = until

    # --- acting ---------------------------------------------------------------------------------

    def _perform(self, action: Action) -> None:
        """Do what the tree says, and refuse what it must never say."""
        late = isinstance(action, Reply) and isinstance(action.result, Refused)
        assert self.gone is None or late, "an action after the end"
        self.log.append(action)
        match action:
            case Start(name, run):
                assert name not in self.live, "two live runs of one id"
                assert run > self._last_run, "runs grow"
                self._last_run = run
                self.live[name] = run
                self._open(name, run)
            case Drain() | Stop() | Kill():
                assert self.live[action.id] == action.run, "an order to a run that is over"
                self._order(action)
            case SetTimer(key, at):
                assert key not in self._keys_seen, "a timer's key used twice"
                assert at >= self.now, "a timer in the past"
                self._keys_seen.add(key)
                self._timers[key] = at
            case CancelTimer(key):
                del self._timers[key]
            case Reply(ref, result):
                assert ref not in self.replies, "a command answered twice"
                self.replies[ref] = result
            case Gone():
                assert not self.live, "gone with a process left behind"
                assert not self._timers, "gone with a timer left behind"
                self.gone = action

    def _order(self, action: Drain | Stop | Kill) -> None:
        script = self.scripts[action.id]
        match action:
            case Drain(name, run):
                if script.drains:
                    self._inbox.append(Drained(name, run))
            case Stop(name, run):
                if script.on_stop is not None:
                    self._exit(name, run, script.on_stop, script.stop_takes_s)
            case Kill(name, run):
                assert run not in self._killed, "a kill twice"
                self._killed.add(run)
                self._exit(name, run, KILLED, 0)

    def _open(self, name: str, run: int) -> None:
        script = self.scripts[name]
        opening = script.starts[min(self._starts[name], len(script.starts) - 1)]
        self._starts[name] += 1
        match opening:
            case "ready":
                self._inbox.append(Ready(name, run, script.info))
            case "ignore":
                self._inbox.append(Ignored(name, run))
            case Reason():
                self._inbox.append(Exited(name, run, opening))
            case "hang":
                pass

    def _exit(self, name: str, run: int, reason: Reason, after_s: float) -> None:
        event = Exited(name, run, reason)
        if after_s:
            heapq.heappush(self._later, (self.now + after_s, next(self._count), event))
        else:
            self._inbox.append(event)

    # --- looking --------------------------------------------------------------------------------

    def ended(self) -> bool:
        """Whether the tree is gone."""
        return self.gone is not None

    def child(self, name: str) -> ChildStatus:
        return self.tree.which_child(name)

    def state(self, name: str) -> State:
        return self.tree.which_child(name).state

    def runs(self, *names: str) -> tuple[int, ...]:
        """The live runs of these children; 0 for one that has none."""
        return tuple(self.live.get(name, 0) for name in names)

    def names(self, supervisor: str) -> list[str]:
        return [status.id for status in self.tree.which_children(supervisor)]

    def reports(self, kind: ReportKind) -> list[Report]:
        return [action for action in self.log if isinstance(action, Report) and action.kind is kind]


def started(actions: list[Action]) -> list[str]:
    """Ids in the order of their Start."""
    return [action.id for action in actions if isinstance(action, Start)]


def stopped(actions: list[Action]) -> list[str]:
    """Ids in the order of their Stop or Kill."""
    return [action.id for action in actions if isinstance(action, (Stop, Kill))]


def refusal(result: Done | Refused | None) -> Refusal:
    """Why a command was refused; fails when it was not."""
    assert isinstance(result, Refused), result
    return result.why
