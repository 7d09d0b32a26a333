"""What a topology file says, once read: the structs the rest of the supervisor builds on.

    Topology
    ├── nats: Service, etcd: Service
    ├── supervision: Supervision
    └── children: Node | Supervisor ...
                  │      └── supervision, children: Node | Supervisor ...
                  └── actors: Actor ...      one OS process hosts them, times `replicas`

Everything here is frozen, checked and complete: defaults filled in, `${VAR}` replaced, durations in
seconds, file paths absolute. Only `Actor.options` stays plain data, because the supervisor never
imports the class that knows its type.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from actors.runtime.tracing import TracingSettings
from supervisor.topology.places import Path as DocumentPath

MAX_REPLICAS = 1024
"""Of one entry; a limit against slips such as `replicas: 80800`."""

MAX_STANDBY = 64

HEARTBEAT_EVERY_S = 0.25
"""How often a node says that it lives."""

Seconds: TypeAlias = Annotated[
    float, msgspec.Meta(ge=0, extra={"form": "duration"}, extra_json_schema={"format": "duration"})
]
"""A float of seconds; the file may say "300ms", "5s", "2m", "1h" or a number."""

PositiveSeconds: TypeAlias = Annotated[
    float, msgspec.Meta(gt=0, extra={"form": "duration"}, extra_json_schema={"format": "duration"})
]

ShutdownSeconds: TypeAlias = Annotated[
    float, msgspec.Meta(ge=0, extra={"form": "shutdown"}, extra_json_schema={"format": "shutdown"})
]
"""Like `Seconds`; the file may also say `infinity` (inf) or `brutal_kill` (0)."""

Port: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=65535)]

Bytes: TypeAlias = Annotated[
    int, msgspec.Meta(ge=0, extra={"form": "bytes"}, extra_json_schema={"format": "bytes"})
]
"""The file may say 512MiB, 8GiB or a number."""

Cpus: TypeAlias = Annotated[
    tuple[int, ...], msgspec.Meta(extra={"form": "cpus"}, extra_json_schema={"format": "cpus"})
]
"""In order, each once; the file may also say 0-3,8."""


class Strategy(enum.StrEnum):
    """Which children are restarted when one falls, as in OTP."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


class Restart(enum.StrEnum):
    """Whether a child that ended is started again, as in OTP."""

    PERMANENT = "permanent"
    """Always."""
    TRANSIENT = "transient"
    """Only after an abnormal end."""
    TEMPORARY = "temporary"
    """Never."""


class AutoShutdown(enum.StrEnum):
    """Whether a supervisor ends by itself when significant children have ended, as in OTP."""

    NEVER = "never"
    ANY_SIGNIFICANT = "any_significant"
    ALL_SIGNIFICANT = "all_significant"


class Supervision(msgspec.Struct, frozen=True, kw_only=True):
    """How one supervisor treats its children."""

    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: Annotated[int, msgspec.Meta(ge=0)] = 10
    """Restarts allowed within `period_s`; one more and the supervisor gives up."""
    period_s: PositiveSeconds = msgspec.field(default=60.0, name="period")
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait before a restart: not at all after a stable run, then `initial_s` and
    `factor` times more with each failure in a row, at most `max_s`."""

    initial_s: Seconds = msgspec.field(default=0.2, name="initial")
    max_s: Seconds = msgspec.field(default=10.0, name="max")
    factor: Annotated[float, msgspec.Meta(ge=1)] = 2.0
    jitter: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    """The share of the delay that is random."""
    reset_after_s: Seconds = msgspec.field(default=5.0, name="reset_after")
    """A run that was ready for this long was stable."""

    def __post_init__(self) -> None:
        if self.max_s < self.initial_s:
            raise ValueError("expected max to be at least initial")


class Watchdog(msgspec.Struct, frozen=True, kw_only=True):
    """When a ready node has failed although its process lives."""

    heartbeat_s: PositiveSeconds = msgspec.field(default=1.5, name="heartbeat")
    """Nothing was heard of its event loop for this long."""
    progress_s: PositiveSeconds = msgspec.field(default=1.25, name="progress")
    """It had work and did not get on for this long, nor asked for more patience."""

    def __post_init__(self) -> None:
        if min(self.heartbeat_s, self.progress_s) < 2 * HEARTBEAT_EVERY_S:
            # A single beat that comes late must not be a failure.
            raise ValueError(f"expected at least {2 * HEARTBEAT_EVERY_S:g} s, two heartbeats")


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How one process is started, restarted and stopped; what `Node` and its file forms share."""

    replicas: Annotated[int, msgspec.Meta(ge=0, le=MAX_REPLICAS)] = 1
    first_instance: Annotated[int, msgspec.Meta(ge=0)] = 0
    """The number of the first replica. Lets two entries share a role: `context/0` pinned to one
    GPU by the `env` of one entry, `context/1` to another by the next."""
    standby: Annotated[int, msgspec.Meta(ge=0, le=MAX_STANDBY)] = 0
    """Loaded understudies for the replicas: one takes the place of a replica that falls."""
    restart: Restart = Restart.PERMANENT
    significant: bool = False
    start_deadline_s: Seconds = msgspec.field(default=120.0, name="start_deadline")
    """From spawn to ready; past it the start has failed."""
    drain_s: Seconds = msgspec.field(default=10.0, name="drain")
    """How long a stop lets work in progress finish before it asks the process to end. A node that
    has nothing in hand leaves at once; 0 does not ask."""
    shutdown_s: ShutdownSeconds = msgspec.field(default=5.0, name="shutdown")
    """From asking the process to end to killing it. 0 kills at once (`brutal_kill`); inf never."""
    backoff: Backoff = Backoff()
    launcher: Literal["local", "mpi", "trtllm-llmapi-launch"] | None = None
    """`mpi` starts it under mpirun, in as many ranks as its engine is split over. None: so if that
    is more than one. `trtllm-llmapi-launch`, for TensorRT-LLM: under mpirun and that script."""
    world: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_-]{0,62}$")] | None = None
    """Entries with the same name here share one mpirun, contexts first; each has one of its own
    where there is none. A node that falls comes back in an mpirun of its own either way."""
    fork: bool = True
    """Start by forking a process that has the imports done, where that is possible. Say false for
    code of your own that cannot be forked after being imported."""
    watchdog: Watchdog | Literal["off"] = Watchdog()
    max_failures: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Consecutive failures after which this child alone is given up. None: never, failures count
    towards the supervisor's intensity and escalate, as in OTP."""
    surge: bool | None = None
    """Whether a stand-in may run beside a process that is being replaced. None: unless it holds
    what two cannot share, GPUs, or is an ingress on `port: 0`, whose stand-in nobody would find."""
    nice: Annotated[int, msgspec.Meta(ge=-20, le=19)] | None = None
    """Scheduling priority, 19 the lowest; below the supervisor's own needs a privilege."""
    cpus: Cpus | None = None
    """The processors it may run on. None: those of the supervisor."""
    memory_bytes: Bytes | None = msgspec.field(default=None, name="memory")
    """How much it may allocate, see `supervisor.resources`. None: no limit of ours."""
    gpus: Annotated[int, msgspec.Meta(ge=0, le=64)] | None = None
    """How many of the host's GPUs are its alone. 0: it sees none; None: it sees all."""
    open_files: Annotated[int, msgspec.Meta(ge=64)] | None = None
    """File descriptors. None: as many as the system lets it have."""


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """One actor of a node."""

    role: str
    """The first half of its address."""
    class_path: str
    """`package.module:Class`."""
    options: dict[str, Any] = {}
    """As the file says them, not yet checked against the class's Options."""
    path: DocumentPath = ()
    """Where the file says it, for messages."""


class Node(Policy, frozen=True, kw_only=True, tag="node"):
    """A leaf of the tree: an OS process that hosts actors, `replicas` times."""

    name: str
    actors: tuple[Actor, ...]
    env: dict[str, str] = {}
    """Added to the supervisor's own environment."""
    cwd: str
    """Absolute."""
    machines: tuple[str, ...] = ()
    """Of `Topology.machines`, those the replicas are dealt over in turn. Empty: nobody said."""
    turn: int = 0
    turns: int = 1
    """Of the replicas, those whose turn it is: every `turns`-th, beginning with `turn`."""

    def instances(self) -> Iterator[NodeInstance]:
        """One for each replica whose turn it is, numbered from `first_instance`."""
        first, end = self.first_instance, self.first_instance + self.replicas
        for number in range(first + self.turn, end, self.turns):
            yield NodeInstance(
                name=f"{self.name}/{number}",
                number=number,
                node=self,
                actors=tuple(
                    ActorInstance(
                        role=actor.role,
                        instance=number,
                        class_path=actor.class_path,
                        options=actor.options,
                    )
                    for actor in self.actors
                ),
            )

    def understudies(self) -> range:
        """Their numbers; none where there is nobody to stand in for."""
        return range(self.standby if self.replicas > self.turn else 0)


class Supervisor(msgspec.Struct, frozen=True, kw_only=True, tag="supervisor"):
    """An inner supervisor. Being stopped, it has all the time its own children need."""

    name: str
    restart: Restart = Restart.PERMANENT
    significant: bool = False
    supervision: Supervision = Supervision()
    children: tuple[Node | Supervisor, ...]
    machines: tuple[str, ...] = ()
    """For all below that say nothing themselves."""


Child: TypeAlias = Node | Supervisor


class ActorInstance(msgspec.Struct, frozen=True):
    """One actor that will live: address `role/instance`."""

    role: str
    instance: int
    class_path: str
    options: dict[str, Any]


class NodeInstance(msgspec.Struct, frozen=True):
    """One process that will run. Its number is also the instance of each of its actors."""

    name: str
    """`node/number`."""
    number: int
    node: Node
    actors: tuple[ActorInstance, ...]


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Certificate files, absolute once read."""

    ca: str | None = None
    """Trusted authorities; None: the system's."""
    cert: str | None = None
    """The client's own, with its `key`."""
    key: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("expected cert and key together")


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """Where NATS or etcd is: servers of yours, or one that the supervisor starts itself."""

    urls: tuple[str, ...] = ()
    """`scheme://host:port` each, without user or password. Empty exactly when embedded."""
    port: int | None = None
    """Of the embedded server; None: any free one."""
    node: str | None = None
    """The machine on which the embedded server serves all; None: it is for one host alone."""
    listen: str | None = None
    """The address on which it does; None: loopback."""
    user: str | None = None
    password: str | None = None
    token: str | None = None
    credentials: str | None = None
    """A NATS credentials file, absolute."""
    tls: Tls | None = None
    origin: str
    """Who said so: `default`, `file`, `--set`, `NATS_SERVER` or `ETCD_ENDPOINTS`."""

    @property
    def embedded(self) -> bool:
        """Whether the supervisor starts the server."""
        return not self.urls

    def __repr__(self) -> str:
        where = ",".join(self.urls) or "embedded"
        return f"Service({where}, from {self.origin})"  # a log must never show the secrets


CERTIFICATES_OFF = "off"


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """A whole file, ready to be run."""

    path: Path
    """As given by the caller."""
    base_dir: Path
    """The file's directory, absolute; relative paths in the file start here."""
    namespace: str
    nats: Service
    etcd: Service
    supervision: Supervision
    orphan_timeout_s: float = 60.0
    """Without a supervisor for this long, nodes drain and leave."""
    node_timeout_s: float = 1.5
    """After this silence the actors of another machine are no longer counted on."""
    tracing: TracingSettings | None = None
    """None: as the OTEL_* variables say."""
    certificates: str | None = None
    """The directory, absolute, of what NATS and etcd on one of several machines are shown and
    show; `off`: they speak without TLS."""
    children: tuple[Child, ...]
    machines: dict[str, str | None] = {}
    """`nodes:` of the file: the machines, in order, and the address of each, if it has one."""
    here: str | None = None
    """The machine whose part this is; None: the whole."""

    def nodes(self) -> Iterator[Node]:
        """Every leaf, in the order in which they start."""
        return _leaves(self.children)

    def node_instances(self) -> Iterator[NodeInstance]:
        """Every process, in the order in which they start."""
        for node in self.nodes():
            yield from node.instances()


def _leaves(children: tuple[Child, ...]) -> Iterator[Node]:
    for child in children:
        if isinstance(child, Node):
            yield child
        else:
            yield from _leaves(child.children)
