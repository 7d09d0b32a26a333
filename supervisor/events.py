"""What happens under a supervisor, as told to consoles and to `events` calls: one JSON a line."""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True, tag=True, tag_field="event", kw_only=True):
    """Base of everything that is told."""

    at: float = 0.0
    """Seconds since 1970; put in by the supervisor when it tells."""


class ChildStarting(Event, frozen=True):
    """A process was spawned."""

    id: str
    run: int
    pid: int


class ChildAdopted(Event, frozen=True):
    """A process that an earlier supervisor had started was taken over."""

    id: str
    run: int
    pid: int


class ChildPromoted(Event, frozen=True):
    """An understudy takes the place of a child that fell."""

    id: str
    run: int
    pid: int
    understudy: str
    """What it was until now."""


class ChildReady(Event, frozen=True):
    """A child can do its work."""

    id: str
    run: int
    took_s: float
    """Since it was spawned, or promoted."""
    down_s: float | None = None
    """Since its predecessor ended; None for the first of its name."""


class ChildEnded(Event, frozen=True):
    """A process is no more."""

    id: str
    run: int
    reason: str
    expected: bool
    """Whether it did as told, was killed by us, or had done its work."""
    log: str
    tail: tuple[str, ...] = ()
    """The last lines of its log, when it was not expected."""
    cause: str = ""
    """The sort of end, in one word: see `understudy_child_restarts_total`."""


class ChildNotReady(Event, frozen=True):
    """A child was killed as it was not ready within its deadline; its `ChildEnded` came before."""

    id: str
    reason: str
    log: str


class ChildGivenUp(Event, frozen=True):
    """A child failed too often, and the others go on without it."""

    id: str
    reason: str


class Serving(Event, frozen=True):
    """Every child is up for the first time."""

    took_s: float
    urls: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    web: str | None = None
    """The address of the supervisor's page, if it serves one."""


class Stopping(Event, frozen=True):
    """The end has been ordered."""

    force: bool = False


class Stopped(Event, frozen=True):
    """Everything has ended; the last event."""

    exit_code: int
    reason: str
    child: str = ""
    """Whose failure it was, if it was one."""
    log: str = ""


class ChangeStarted(Event, frozen=True):
    """A change of the running tree has begun."""

    what: str
    """Such as `scale context to 3`."""
    steps: int
    difference: tuple[str, ...] = ()
    """Lines for people; empty for a rolling restart."""


class ChangeStep(Event, frozen=True):
    """A step of a change is about to be taken."""

    what: str
    step: int
    """From 1."""
    steps: int


class ChangeDone(Event, frozen=True):
    """Everything is as it was asked for."""

    what: str
    took_s: float


class ChangeFailed(Event, frozen=True):
    """A change could not be carried out."""

    what: str
    reason: str
    taken_back: bool
    """Whether everything is as it was before."""


AnyEvent = (
    ChildStarting
    | ChildAdopted
    | ChildPromoted
    | ChildReady
    | ChildEnded
    | ChildNotReady
    | ChildGivenUp
    | Serving
    | Stopping
    | Stopped
    | ChangeStarted
    | ChangeStep
    | ChangeDone
    | ChangeFailed
)
