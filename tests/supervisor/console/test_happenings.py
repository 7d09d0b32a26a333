from __future__ import annotations

import time
from typing import get_args

import pytest

from supervisor import events
from supervisor.console.happenings import shown_event
from supervisor.console.paint import Paint
from supervisor.console.text import painted

AT = 1_700_000_000.0


def shown(event: events.Event) -> str:
    return painted(shown_event(event), Paint(colours=False))


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (
            events.ChildStarting(at=AT, id="w/0", run=1, pid=7),
            "w/0                    starting, pid 7",
        ),
        (
            events.ChildReady(at=AT, id="w/0", run=2, took_s=0.2, down_s=0.25),
            "w/0                    ready again, was down for 0.25 s",
        ),
        (
            events.ChildEnded(
                at=AT, id="w/0", run=1, reason="killed by SIGKILL", expected=False, log=""
            ),
            "w/0                    ended: killed by SIGKILL",
        ),
        (events.Stopped(at=AT, exit_code=0, reason="x"), "supervisor             stopped"),
    ],
)
def test_an_event_is_told_with_its_time_and_its_child(event: events.Event, told: str) -> None:
    clock = time.strftime("%H:%M:%S", time.localtime(AT))

    assert shown(event) == f"{clock}  {told}"


def test_what_a_child_said_cannot_command_the_terminal() -> None:
    reason = "exit code 1: \x1b[2J\x1b]0;owned\x07"

    told = shown(events.ChildEnded(id="w/0", run=1, reason=reason, expected=False, log=""))

    assert told.isprintable()


def test_every_event_can_be_read_by_the_command_line() -> None:
    assert set(get_args(events.AnyEvent)) == set(events.Event.__subclasses__())
