"""What the command line and a supervisor say to each other: JSON lines over its Unix socket.

One call a connection, its first line; one answer, or for `Events` one line an event until either
end closes. Nodes use the same socket: their first line is a `Hello` (`actors.runtime.link`), told
apart by its `note` where a call has its `call`.
"""

from __future__ import annotations

import msgspec


class Call(msgspec.Struct, frozen=True, tag=True, tag_field="call", kw_only=True):
    """Base of what can be asked of a supervisor."""


class GetStatus(Call, frozen=True):
    """Answered by `Status`."""


class Down(Call, frozen=True):
    """Stop everything. Answered by `Accepted` at once; the process ending is the rest."""

    force: bool = False
    """Kill instead of asking to stop."""


class Restart(Call, frozen=True):
    """Stop a child and start it again. Answered by `Accepted` when it is ready, or `Denied`."""

    id: str


class Events(Call, frozen=True):
    """Tell everything that happens from now on (`supervisor.events`). First an `Accepted`."""


AnyCall = GetStatus | Down | Restart | Events


class Answer(msgspec.Struct, frozen=True, tag=True, tag_field="answer", kw_only=True):
    """Base of what comes back."""


class Accepted(Answer, frozen=True):
    pass


class Denied(Answer, frozen=True):
    why: str


class ActorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One actor of a node."""

    role: str
    instance: int
    incarnation: int | None
    """Of the life that is ready now; None when none is."""
    url: str | None = None
    """Where it takes requests from outside, if it publishes that."""
    model: str | None = None

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
    next_retry_s: float | None = None
    """From now."""
    beat_age_s: float | None = None
    """Since the node's last heartbeat."""
    lag_s: float | None = None
    """How late its event loop was then."""
    log: str | None = None
    actors: tuple[ActorStatus, ...] = ()


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


AnyAnswer = Accepted | Denied | Status
