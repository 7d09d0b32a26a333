"""The supervisor tree: what is running, what is restarted, what is stopped, and in which order.

A pure state machine, `Tree.step(event, now) -> actions`, with the semantics of OTP's supervisor
and what a service of slow-starting processes needs besides: readiness before the next child,
start deadlines, back-off, a limit of failures for one child, a drain before the stop.

    spec.py, errors.py, validate.py    what a tree is made of, and what can be wrong with it
    reason.py                          why a child ended
    protocol.py                        events, commands, actions, status: the whole interface
    nodes.py, intensity.py             state
    books.py, plans.py, lifecycle.py   who there is; starting and stopping in order; what follows
    commands.py                        management of a live tree
    machine.py                         `Tree`
"""

from __future__ import annotations

from supervisor.tree.errors import SpecError
from supervisor.tree.machine import Tree, UnknownIdError
from supervisor.tree.protocol import (
    Action,
    Boot,
    CancelTimer,
    ChildStatus,
    Command,
    Counts,
    DeleteChild,
    Done,
    Drain,
    Drained,
    Event,
    Exited,
    Gone,
    Ignored,
    Kill,
    Promoted,
    Ready,
    Reconfigure,
    Ref,
    Refusal,
    Refused,
    Reply,
    Report,
    ReportKind,
    RestartChild,
    Scale,
    SetTimer,
    Shutdown,
    Start,
    StartChild,
    State,
    Stop,
    TerminateChild,
    Timer,
)
from supervisor.tree.reason import KILLED, NORMAL, SHUTDOWN, Kind, Reason
from supervisor.tree.spec import (
    AutoShutdown,
    Backoff,
    ChildSpec,
    Restart,
    Spec,
    Strategy,
    SupervisorSpec,
)
from supervisor.tree.validate import check, check_child

__all__ = (
    "KILLED",
    "NORMAL",
    "SHUTDOWN",
    "Action",
    "AutoShutdown",
    "Backoff",
    "Boot",
    "CancelTimer",
    "ChildSpec",
    "ChildStatus",
    "Command",
    "Counts",
    "DeleteChild",
    "Done",
    "Drain",
    "Drained",
    "Event",
    "Exited",
    "Gone",
    "Ignored",
    "Kill",
    "Kind",
    "Promoted",
    "Ready",
    "Reason",
    "Reconfigure",
    "Ref",
    "Refusal",
    "Refused",
    "Reply",
    "Report",
    "ReportKind",
    "Restart",
    "RestartChild",
    "Scale",
    "SetTimer",
    "Shutdown",
    "Spec",
    "SpecError",
    "Start",
    "StartChild",
    "State",
    "Stop",
    "Strategy",
    "SupervisorSpec",
    "TerminateChild",
    "Timer",
    "Tree",
    "UnknownIdError",
    "check",
    "check_child",
)
