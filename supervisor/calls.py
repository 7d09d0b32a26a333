"""What the command line and a supervisor say to each other: JSON lines over its Unix socket.

One call a connection, its first line; one answer, or for `Events` one line an event until either
end closes. Nodes use the same socket: their first line is a `Hello` (`actors.runtime.link`), told
apart by its `note` where a call has its `call`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from actors.messages.names import Kind
from supervisor.change.items import Item

HISTORY_LIMIT = 500
"""Events that a supervisor remembers."""


class Call(msgspec.Struct, frozen=True, tag=True, tag_field="call", kw_only=True):
    """Base of what can be asked of a supervisor."""


class GetStatus(Call, frozen=True):
    """Answered by `Status`."""


class GetMetrics(Call, frozen=True):
    """Answered by `MetricsText`."""


class Down(Call, frozen=True):
    """Stop everything. Answered by `Accepted` at once; the process ending is the rest."""

    force: bool = False
    """Kill instead of asking to stop."""
    drain: bool = True
    """Let work in progress finish before asking to stop."""


class Restart(Call, frozen=True):
    """Stop a child, or all replicas of an entry, and start it again. Answered by `Accepted` when
    it is ready, or `Denied`."""

    id: str
    rolling: bool = False
    """One at a time, each ready before the next, with a stand-in where it would be missed."""


class DrainChild(Call, frozen=True):
    """Drain and stop a child, and keep it stopped. Answered by `Accepted` when it has ended."""

    id: str


class SetLogLevel(Call, frozen=True):
    """Have processes write down events from a level on, until they end. Answered by `Accepted` when
    they have been told, or `Denied`."""

    id: str
    """A child, an entry with all its replicas, an actor, or `all`."""
    level: Literal["debug", "info", "warning", "error"]


class Scale(Call, frozen=True):
    """Have so many replicas of an entry. Answered by `Accepted` when new ones are ready and old
    ones gone, or by `Denied`; then everything is as before."""

    name: str
    replicas: int


class Apply(Call, frozen=True):
    """Have what this topology says. Answered like `Scale`; with `dry_run` by a `Proposal`."""

    path: str
    """Absolute; where the text comes from."""
    text: str
    sets: tuple[str, ...] = ()
    port: int | None = None
    namespace: str | None = None
    dry_run: bool = False


class ListModels(Call, frozen=True):
    """Answered by `ModelNames`, or `Denied`."""


class AddModel(Call, frozen=True):
    """Let clients say `name` for the model `target`, in requests of one kind. Answered by
    `Accepted` when it is written down, or `Denied`; ingresses learn of it within milliseconds."""

    kind: Kind
    name: str
    target: str
    replace: bool = False
    """Whatever it stands for now."""


class RemoveModel(Call, frozen=True):
    """Take `AddModel` back. Answered by `Accepted`, or `Denied`."""

    kind: Kind
    name: str


class Events(Call, frozen=True):
    """Tell what happens (`supervisor.events`). First an `Accepted`."""

    recent: int = 0
    """How many of those that have happened to begin with; as many as are remembered."""
    follow: bool = True
    """Go on with what happens from now on."""


ModelsCall = ListModels | AddModel | RemoveModel
Question = GetStatus | GetMetrics | Restart | DrainChild | SetLogLevel | Scale | Apply | ModelsCall
"""What has one answer, when it is done."""
AnyCall = Question | Down | Events


class Answer(msgspec.Struct, frozen=True, tag=True, tag_field="answer", kw_only=True):
    """Base of what comes back."""


class Accepted(Answer, frozen=True):
    pass


class Denied(Answer, frozen=True):
    why: str


class Proposal(Answer, frozen=True):
    """What applying a topology would change."""

    changes: tuple[Item, ...]
    lines: tuple[str, ...]
    """The same for people."""


class ActorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One actor of a node."""

    role: str
    instance: int
    incarnation: int | None
    """Of the life that is ready now; None when none is."""
    url: str | None = None
    """Where it takes requests from outside, if it publishes that."""
    model: str | None = None
    gauges: dict[str, float] = {}
    """What it told with the last heartbeat: counters and levels, see `supervisor.overview`."""
    troubles: tuple[str, ...] = ()
    """What it told then that an operator ought to know of."""

    @property
    def name(self) -> str:
        return f"{self.role}/{self.instance}"


class ChildRow(msgspec.Struct, frozen=True, kw_only=True):
    """One process or inner supervisor."""

    id: str
    supervisor: str
    """Its parent; empty for the root."""
    is_supervisor: bool
    state: str
    run: int
    pid: int | None = None
    restarts: int
    uptime_s: float | None = None
    """Since it became ready; None when it is not."""
    last_exit: str | None = None
    ended_ago_s: float | None = None
    """Since it last ended unasked."""
    tail: tuple[str, ...] = ()
    """The last lines of the run that ended so."""
    next_retry_s: float | None = None
    """From now."""
    beat_age_s: float | None = None
    """Since the node's last heartbeat."""
    lag_s: float | None = None
    """How late its event loop was then."""
    cpu_s: float | None = None
    """Used by its session; the root has the supervisor's own."""
    memory_bytes: int | None = None
    """Resident, of its session; the root has the supervisor's own."""
    log: str | None = None
    waits_for: str | None = None
    """The zygote that has not forked it yet."""
    ranks: int | None = None
    """Processes under mpirun that it is made of; None where mpirun has no part in it."""
    standby: bool = False
    """Whether it is an understudy: loaded when it is `running`, and without actors of its own."""
    actors: tuple[ActorStatus, ...] = ()


class RegisteredActor(msgspec.Struct, frozen=True, kw_only=True):
    """An actor as the registry has it, on whichever node."""

    role: str
    instance: int
    state: str
    host: str
    """The node of the topology it lives on."""
    incarnation: int
    process: str
    pid: int
    model: str | None = None
    """What it serves."""


class Status(Answer, frozen=True):
    """A supervisor and everything below it."""

    namespace: str
    topology: str
    pid: int
    since: float
    """Seconds since 1970."""
    state: str
    """Of the root."""
    nats: tuple[str, ...]
    etcd: tuple[str, ...]
    urls: tuple[str, ...]
    models: tuple[str, ...]
    children: tuple[ChildRow, ...]
    """The root first, children in start order after their supervisor."""
    clock_s: float = 0.0
    """When this was, on a clock of the supervisor that never jumps: the difference of two is the
    time between them."""
    web: str | None = None
    """The address of its page, if it serves one."""
    node: str | None = None
    """Of a topology of several nodes: the one whose supervisor this is."""
    registered: tuple[RegisteredActor, ...] = ()
    """Of a topology of several nodes: every actor of every node, by node and name."""
    registry: str = ""
    """Whether that is `current`, or what was known when the registry was `lost`; `unreached` until
    it was reached for the first time."""
    nodes: tuple[str, ...] = ()
    """Of a topology of several nodes: all of them."""
    silent: tuple[str, ...] = ()
    """Those that processes here hear nothing of."""


class MetricsText(Answer, frozen=True):
    """What everybody counts, in Prometheus's text format."""

    text: str


class ModelName(msgspec.Struct, frozen=True, kw_only=True):
    """One name that clients may ask for."""

    name: str
    kinds: tuple[Kind, ...]
    """The requests that may say it."""
    target: str | None = None
    """Of an alias, the model it stands for; None where workers declare the name themselves."""
    workers: tuple[str, ...] = ()
    """Who declares it."""
    served: bool
    """Whether there are workers of it, ready or not."""


class ModelNames(Answer, frozen=True):
    """Every name, by name and kind."""

    names: tuple[ModelName, ...]


AnyAnswer = Accepted | Denied | Proposal | Status | MetricsText | ModelNames
