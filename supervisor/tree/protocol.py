"""What goes into the tree and what comes out: events, commands, actions.

Whoever executes the actions owes the tree two things: every `Start` is answered by exactly one
`Exited` or `Promoted` of that run, sooner or later; and every `SetTimer` by one `Timer` at or
after its time, unless cancelled. Everything else may be late, repeated or lost.
"""

from __future__ import annotations

import enum

import msgspec

from supervisor.tree.reason import SHUTDOWN, Reason
from supervisor.tree.spec import ChildSpec, Spec, SupervisorSpec

Ref = int | str
"""A caller's name for its command; comes back in the `Reply` and means nothing to the tree."""


# --- events -------------------------------------------------------------------------------------


class Boot(msgspec.Struct, frozen=True, tag=True):
    """Start the tree. The second one does nothing.

    `patient`: an earlier tree's children may run already and serve, or what they need may be about
    to be started elsewhere. A child that is `UNAVAILABLE` is then tried again until it is not, as
    always once the tree has been up; otherwise the start fails, and whoever ordered it sees why.
    `resumed`: the former of the two, and `patient` whatever that says. Only then is one that was
    `REFUSED` tried again, too.
    """

    patient: bool = False
    resumed: bool = False


class Shutdown(msgspec.Struct, frozen=True, tag=True):
    """Stop everything in reverse order, then be gone.

    With `force` (perhaps after a patient one) every process is killed at once instead.
    """

    reason: Reason = SHUTDOWN
    force: bool = False


class Ready(msgspec.Struct, frozen=True, tag=True):
    """A child says that it can do its work. Of a run that is over or unknown: ignored."""

    id: str
    run: int
    info: object = None
    """Handed on in the `Reply` to the command that started it."""


class Ignored(msgspec.Struct, frozen=True, tag=True):
    """A starting child says that there is nothing for it to do, and leaves. It is not a failure;
    the child is settled once its `Exited` has come."""

    id: str
    run: int


class Drained(msgspec.Struct, frozen=True, tag=True):
    """A draining child has finished its work before its time: go on to the polite stop."""

    id: str
    run: int


class Exited(msgspec.Struct, frozen=True, tag=True):
    """The process of a run is no more; before `Ready` it means that the start failed."""

    id: str
    run: int
    reason: Reason


class Promoted(msgspec.Struct, frozen=True, tag=True):
    """The process of a run lives on as another child's. The run is over, and nobody is to blame: a
    child that was up, or on its way, has its place filled again after `backoff.first_s`."""

    id: str
    run: int


class Timer(msgspec.Struct, frozen=True, tag=True):
    """The time of a `SetTimer` has come. Keys that are no longer awaited are ignored."""

    key: str


# --- commands: each is answered by exactly one Reply ----------------------------------------------


class StartChild(msgspec.Struct, frozen=True, tag=True):
    """Add a child after all others and start it; answered when it is ready.

    The child is forgotten when its supervisor restarts. `spec` is None for a dynamic supervisor,
    which adds an instance of its template. A child that cannot start is not kept.
    """

    ref: Ref
    supervisor: str
    spec: Spec | None = None


class TerminateChild(msgspec.Struct, frozen=True, tag=True):
    """Stop a child and keep it stopped; done at once when it already is. Temporary children and
    instances of a template are forgotten."""

    ref: Ref
    id: str


class RestartChild(msgspec.Struct, frozen=True, tag=True):
    """Start a stopped or failed child by hand; not counted as a restart. If that fails it stays
    stopped.

    With `force` a running child is stopped first, and one that waits for its next try is tried
    now; a forced restart that fails is retried like one after a crash.
    """

    ref: Ref
    id: str
    force: bool = False


class DeleteChild(msgspec.Struct, frozen=True, tag=True):
    """Forget a stopped child. One that is in the spec of its supervisor is back after the
    supervisor's next restart."""

    ref: Ref
    id: str


class Scale(msgspec.Struct, frozen=True, tag=True):
    """Have `count` instances under a dynamic supervisor, now and after its restarts.

    Those with the highest numbers go. Answered when all new ones are ready and all old ones gone.
    """

    ref: Ref
    supervisor: str
    count: int


class Reconfigure(msgspec.Struct, frozen=True, tag=True):
    """Replace the spec of the supervisor `spec.id` and of the supervisors below it.

    All or nothing, and nothing is started or stopped by it: known children keep running and use
    their new spec from the next start or stop on, new ones are added stopped, missing ones stay
    until their supervisor restarts. A dynamic supervisor stays one and keeps its template's id.
    """

    ref: Ref
    spec: SupervisorSpec


Command = StartChild | TerminateChild | RestartChild | DeleteChild | Scale | Reconfigure
Event = Boot | Shutdown | Ready | Ignored | Drained | Exited | Promoted | Timer | Command


# --- results of commands --------------------------------------------------------------------------


class Done(msgspec.Struct, frozen=True, tag=True):
    """The command was carried out."""

    id: str
    """The child, or the supervisor for `Scale` and `Reconfigure`."""
    run: int | None = None
    """The run that is ready now; None when none is (stopped, or the child ignored its start)."""
    info: object = None


class Refusal(enum.StrEnum):
    """Why a command was not carried out. Nothing has changed, except where it says so."""

    NOT_FOUND = "not_found"
    NOT_A_SUPERVISOR = "not_a_supervisor"
    NOT_DYNAMIC = "not_dynamic"
    SIMPLE_ONE_FOR_ONE = "simple_one_for_one"
    """Not for instances of a template."""
    SUPERVISOR_DOWN = "supervisor_down"
    """The supervisor is stopped, stopping or waiting to be restarted."""
    ALREADY_STARTED = "already_started"
    ALREADY_PRESENT = "already_present"
    RUNNING = "running"
    RESTARTING = "restarting"
    INVALID_SPEC = "invalid_spec"
    START_FAILED = "start_failed"
    """The child could not be started; `reason` tells why."""
    INTERRUPTED = "interrupted"
    """Another command or the supervisor's end came in between."""


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The command was not carried out, or not wholly."""

    why: Refusal
    id: str
    detail: str = ""
    reason: Reason | None = None


# --- actions ------------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True, tag=True):
    """Start a process for this run. Runs grow over the whole tree and are never used twice."""

    id: str
    run: int
    spec: ChildSpec


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Tell the child to take no new work and finish what it has."""

    id: str
    run: int


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Ask the process to end (SIGTERM)."""

    id: str
    run: int


class Kill(msgspec.Struct, frozen=True, tag=True):
    """End the process (SIGKILL). At most one for each run."""

    id: str
    run: int


class SetTimer(msgspec.Struct, frozen=True, tag=True):
    """Send `Timer(key)` at `at`, on the clock that gives `now`. Keys are never used twice."""

    key: str
    at: float


class CancelTimer(msgspec.Struct, frozen=True, tag=True):
    """`Timer(key)` is no longer needed."""

    key: str


class ReportKind(enum.StrEnum):
    """What is reported, after the error contexts of OTP's supervisor reports."""

    PROGRESS = "progress"
    """A child, or a supervisor with all its children, is up."""
    START_ERROR = "start_error"
    CHILD_TERMINATED = "child_terminated"
    """It ended unasked."""
    SHUTDOWN_ERROR = "shutdown_error"
    """It was asked to end, or about to be, and ended in another way; `killed`: by us, too late."""
    SHUTDOWN = "shutdown"
    """A supervisor ends itself; the reason's detail says why."""
    GAVE_UP = "gave_up"
    """A child reached its own limit of failures; its siblings live on."""


class Report(msgspec.Struct, frozen=True, tag=True):
    """For logs and metrics; changes nothing."""

    kind: ReportKind
    id: str
    supervisor: str
    """Of the child; the empty text for the root."""
    run: int = 0
    reason: Reason | None = None
    count: int = 1
    """How many instances of a template ended alike, when their supervisor stopped them all."""
    external: bool = False
    """Progress of a start that was asked for by a command: less worth telling."""


class Reply(msgspec.Struct, frozen=True, tag=True):
    """The answer to the command with this `ref`."""

    ref: Ref
    result: Done | Refused


class Gone(msgspec.Struct, frozen=True, tag=True):
    """The root has ended and no process is left. The last action, but for the replies that refuse
    commands which come too late.

    `exit_code` is for the operating system: 0 when the tree was asked to stop, or its significant
    children finished well; 1 when it could not start, gave up, or a significant child failed.
    """

    reason: Reason
    exit_code: int


Action = Start | Drain | Stop | Kill | SetTimer | CancelTimer | Report | Reply | Gone


# --- inspection ---------------------------------------------------------------------------------


class State(enum.StrEnum):
    """Where a child or supervisor is in its life."""

    WAITING = "waiting"
    """Will be started when its turn comes."""
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    """Down, and will be tried again."""
    STOPPED = "stopped"
    FAILED = "failed"
    """Down, and given up."""


class ChildStatus(msgspec.Struct, frozen=True):
    """One child or supervisor as it is now. Times are on the clock that gives `now`."""

    id: str
    supervisor: str
    is_supervisor: bool
    state: State
    run: int
    """0 before the first start."""
    restarts: int
    """How often it was restarted on its own account, since the tree was made."""
    failures: int
    """In a row, up to now."""
    last_exit: Reason | None
    since: float
    """When it came into this state."""
    next_retry: float | None


class Counts(msgspec.Struct, frozen=True):
    """Children of one supervisor, counted."""

    specs: int
    """1 for a dynamic supervisor: its template."""
    active: int
    """With a process, or a supervisor's subtree, that is starting, up, or on its way down."""
    supervisors: int
    workers: int
