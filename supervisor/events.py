"""What happens under a supervisor, as told to consoles and to `events` calls: one JSON a line."""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True, tag=True, tag_field="event", kw_only=True):
    """Base of everything that is told."""


class ChildStarting(Event, frozen=True):
    """A process was spawned."""

    id: str
    run: int
    pid: int


class ChildReady(Event, frozen=True):
    """A child can do its work."""

    id: str
    run: int
    took_s: float
    """Since it was spawned."""
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
