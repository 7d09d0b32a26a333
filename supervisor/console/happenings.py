"""An event as one line for people."""

from __future__ import annotations

import time

from supervisor import events
from supervisor.console.paint import shown_duration
from supervisor.console.text import Line, printable
from supervisor.ids import is_understudy

_NAME_WIDTH = 21
"""Enough for `generation/standby/0`."""
_BY_SUPERVISOR = "supervisor"


def shown_event(event: events.Event) -> Line:
    """When, who, what: `12:30:01  context/0       ended: killed by SIGKILL`."""
    who, colour, what = _told(event)
    at = time.strftime("%H:%M:%S", time.localtime(event.at))
    return (
        ("dim", f"{at}  "),
        ("", f"{printable(who):<{_NAME_WIDTH}}  "),
        (colour, printable(what)),
    )


def _told(event: events.Event) -> tuple[str, str, str]:
    match event:
        case events.ChildStarting(id=child, pid=pid):
            return child, "", f"starting, pid {pid}"
        case events.ChildAdopted(id=child, pid=pid):
            return child, "", f"taken over, pid {pid}"
        case events.ChildPromoted(id=child, understudy=understudy, pid=pid):
            return child, "cyan", f"{understudy} steps in, pid {pid}"
        case events.ChildReady(id=child):
            return child, *_told_ready(event)
        case events.ChildEnded(id=child, expected=True):
            return child, "", "stopped"
        case events.ChildEnded(id=child, reason=reason):
            return child, "red", f"ended: {reason}"
        case events.ChildNotReady(id=child, reason=reason):
            return child, "red", f"was not ready in time: {reason}"
        case events.ChildGivenUp(id=child, reason=reason):
            return child, "red", f"given up: {reason}"
        case _:
            return _BY_SUPERVISOR, *_told_of_all(event)


def _told_ready(event: events.ChildReady) -> tuple[str, str]:
    if is_understudy(event.id):
        return "cyan", f"standing by, {shown_duration(event.took_s)} after its start"
    if event.down_s is None:
        return "green", f"ready, {shown_duration(event.took_s)} after its start"
    return "green", f"ready again, was down for {shown_duration(event.down_s)}"


def _told_of_all(event: events.Event) -> tuple[str, str]:
    match event:
        case events.Serving(took_s=took_s):
            return "green", f"everything is up after {shown_duration(took_s)}"
        case events.Stopping(force=force):
            return "yellow", "killing everything" if force else "stopping"
        case events.Stopped(exit_code=0):
            return "", "stopped"
        case events.Stopped(reason=reason):
            return "red", f"gave up: {reason}"
        case events.ChangeStarted(what=what):
            return "yellow", f"begins to {what}"
        case events.ChangeStep(what=what, step=step, steps=steps):
            return "", f"{what}: step {step} of {steps}"
        case events.ChangeDone(what=what, took_s=took_s):
            return "green", f"{what}: done after {shown_duration(took_s)}"
        case events.ChangeFailed(what=what, reason=reason, taken_back=taken_back):
            return "red", f"{what}: failed{' and was taken back' if taken_back else ''}: {reason}"
        case _:
            # A kind that came later than this function is better told badly than not at all.
            return "", type(event).__name__
