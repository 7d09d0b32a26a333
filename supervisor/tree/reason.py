"""Why a child ended, or why it is asked to end."""

from __future__ import annotations

import enum

import msgspec


class Kind(enum.StrEnum):
    """What sort of end it was. The sort alone decides whether a transient child is restarted."""

    NORMAL = "normal"
    """It finished: exit code 0 without having been asked to stop."""
    SHUTDOWN = "shutdown"
    """It was asked to stop, or asked to leave of its own accord, and did so in order."""
    KILLED = "killed"
    """SIGKILL, whoever sent it. A report tells ours from others': see `ReportKind`."""
    ABNORMAL = "abnormal"
    """Any other exit code or signal, a lost heartbeat, a broken protocol."""
    UNAVAILABLE = "unavailable"
    """It could not do without something that is not there and that it is not to blame for: NATS or
    etcd. Before it was ready, that is no failure that counts."""
    REFUSED = "refused"
    """As `UNAVAILABLE`, but what it needs is there and does not let it in. That can come right for
    a tree that has been up, whose servers were changed, and not for one that never was."""
    START_FAILED = "start_failed"
    """It ended, or was ended at its deadline, before it was ready."""


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """An end and its history: a supervisor's reason carries that of the child that caused it."""

    kind: Kind
    detail: str = ""
    """For people: "exit code 3", "not ready within 30 s"."""
    child: str = ""
    """The child meant by `cause`, when this is the reason of a supervisor."""
    cause: Reason | None = None

    @property
    def expected(self) -> bool:
        """Whether a transient child with this reason has done its work and stays down."""
        return self.kind in {Kind.NORMAL, Kind.SHUTDOWN}

    @property
    def origin(self) -> Reason:
        """The first reason of the chain: what really happened, however deep in the tree."""
        reason = self
        while reason.cause is not None:
            reason = reason.cause
        return reason

    def __str__(self) -> str:
        text = f"{self.kind.value} ({self.detail})" if self.detail else self.kind.value
        if self.cause is None:
            return text
        return f"{text} <- {self.child}: {self.cause}" if self.child else f"{text} <- {self.cause}"


NORMAL = Reason(Kind.NORMAL)
SHUTDOWN = Reason(Kind.SHUTDOWN)
KILLED = Reason(Kind.KILLED)

MAX_INTENSITY = "reached_max_restart_intensity"
AUTO_SHUTDOWN = "auto_shutdown"
FAILED_TO_START = "failed_to_start_child"
