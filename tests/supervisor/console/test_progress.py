from __future__ import annotations

import io
import shlex

import msgspec

from supervisor import events
from supervisor.console.paint import Paint
from supervisor.console.progress import CLEAR_LINE, Terminal, where_to_send


def shown(*told: events.Event) -> list[str]:
    """The lines that stay on the screen."""
    screen = io.StringIO()
    terminal = Terminal(screen, Paint(colours=False))
    for event in told:
        terminal(event)
    return [
        line.rpartition(CLEAR_LINE)[2] for line in screen.getvalue().removesuffix("\n").split("\n")
    ]


STARTING = events.ChildStarting(id="hello/0", run=1, pid=7)
READY = events.ChildReady(id="hello/0", run=1, took_s=0.5)
SERVING = events.Serving(took_s=1.25)


def ended(*, expected: bool) -> events.ChildEnded:
    return events.ChildEnded(
        id="hello/0",
        run=1,
        reason="killed by SIGSEGV",
        expected=expected,
        log="/l",
        tail=("a", "boom"),
    )


def test_a_child_that_comes_up_leaves_one_line() -> None:
    assert [line.split() for line in shown(STARTING, READY)] == [
        ["✓", "hello/0", "ready", "0.50", "s"]
    ]


def test_once_it_serves_only_what_is_notable_is_said() -> None:
    again = events.ChildReady(id="hello/0", run=2, took_s=0.3, down_s=0.4)

    lines = shown(STARTING, READY, SERVING, ended(expected=False), STARTING, again)

    assert lines[1] == "ready in 1.25 s"
    assert [line.split(maxsplit=2)[2] for line in lines[3:]] == [
        "killed by SIGSEGV",
        "ready again after 0.40 s",
    ]


def test_a_failed_start_is_explained_by_the_end_of_its_log() -> None:
    assert shown(STARTING, ended(expected=False))[-1].strip() == "boom"


def test_the_end_names_the_child_and_its_log() -> None:
    stopped = events.Stopped(exit_code=1, reason="hello/0 failed", child="hello/0", log="/l")

    lines = shown(stopped)

    assert lines == ["gave up: hello/0 failed", "  log of hello/0: /l"]


def test_stopping_shows_who_has_stopped() -> None:
    lines = shown(SERVING, events.Stopping(), ended(expected=True), events.Stopped(
        exit_code=0, reason="shutdown"
    ))  # fmt: skip

    assert lines[-2].split() == ["-", "hello/0", "stopped"]
    assert lines[-1] == "stopped"


def test_the_command_to_copy_is_one_that_a_shell_and_a_server_understand() -> None:
    serving = events.Serving(took_s=1, urls=("http://127.0.0.1:80/v1",), models=("it's",))

    [command] = [line for line in where_to_send(serving) if line.startswith("try: ")]

    words = shlex.split(command.removeprefix("try: "))
    assert words[:3] == ["curl", "-N", "http://127.0.0.1:80/v1/chat/completions"]
    assert msgspec.json.decode(words[-1])["model"] == "it's"


def test_a_change_is_told_from_its_difference_to_its_end() -> None:
    difference = ("~ a/0  drain: 1.0 -> 2.0  (no restart)",)
    lines = shown(
        events.ChangeStarted(what="reload f.yaml", steps=1, difference=difference),
        events.ChangeStep(what="reload f.yaml: adopt", step=1, steps=1),
        events.ChangeDone(what="reload f.yaml", took_s=0.5),
        events.ChangeFailed(what="scale a to 2", reason="no", taken_back=True),
    )

    assert lines[:2] == ["reload f.yaml", f"  {difference[0]}"]
    assert lines[2].startswith("reload f.yaml: done in ")
    assert lines[3] == "scale a to 2: failed: no"
