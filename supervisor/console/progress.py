"""What `supervise up` says while it runs: a line a child on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import json
import logging
import re
import shlex
from typing import TextIO

import msgspec
import structlog

from supervisor import events
from supervisor.console.paint import Paint, shown_duration
from supervisor.ids import is_understudy

log = structlog.get_logger("supervisor")

CLEAR_LINE = "\r\x1b[K"
_EXPLAINED_LINES = 5
"""Of a failed child's log."""


class Terminal:
    """Lines for people: each child as it comes up, then only what is notable."""

    def __init__(self, stream: TextIO, paint: Paint) -> None:
        self._stream = stream
        self._paint = paint
        self._serving = False
        self._stopping = False
        self._pending = False
        """Whether the last line stands unfinished, to be overwritten."""

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.ChildStarting() | events.ChildAdopted():
                self._starting(event)
            case events.ChildReady():
                self._ready(event)
            case events.ChildEnded():
                self._ended(event)
            case events.ChildNotReady(id=child, reason=reason):
                self._line(f"  {self._paint('red', '✗')} {child:<20} {reason}")
            case events.ChildGivenUp(id=child, reason=reason):
                self._line(f"  {self._paint('red', '✗')} {child:<20} given up: {reason}")
            case events.Serving():
                self._serve(event)
            case events.Stopping(force=force):
                self._stopping = True
                self._line("killing everything" if force else "stopping; Ctrl-C again to kill")
            case events.Stopped():
                for line in last_words(event):
                    self._line(self._paint("red", line) if event.exit_code else line)
            case _:
                self._rarer(event)

    def _rarer(self, event: events.Event) -> None:
        match event:
            case events.ChildPromoted(id=child, understudy=understudy):
                self._line(f"  {self._paint('cyan', '↑')} {child:<20} {understudy} steps in")
            case events.ChangeStarted(what=what, difference=difference):
                for line in (what, *(f"  {line}" for line in difference)):
                    self._line(line)
            case events.ChangeDone(what=what, took_s=took_s):
                self._line(self._paint("green", f"{what}: done in {shown_duration(took_s)}"))
            case events.ChangeFailed(what=what, reason=reason):
                self._line(self._paint("red", f"{what}: failed: {reason}"))
            case _:
                pass

    def _starting(self, event: events.ChildStarting | events.ChildAdopted) -> None:
        if not self._serving and not self._stopping:
            how = "starting" if isinstance(event, events.ChildStarting) else "taken over"
            mark, state = self._paint("yellow", "·"), self._paint("dim", how)
            self._unfinished(f"  {mark} {event.id:<20} {state}")

    def _ended(self, event: events.ChildEnded) -> None:
        if not event.expected:
            self._line(f"  {self._paint('red', '✗')} {event.id:<20} {event.reason}")
            for line in event.tail[-_EXPLAINED_LINES:] if not self._serving else ():
                self._line(self._paint("dim", f"      {line}"))
        elif self._stopping:
            self._line(self._paint("dim", f"  - {event.id:<20} stopped"))

    def _serve(self, event: events.Serving) -> None:
        self._serving = True
        self._line(self._paint("bold", f"ready in {shown_duration(event.took_s)}"))
        for line in where_to_send(event):
            self._line(f"  {line}")
        self._line(self._paint("dim", "Ctrl-C stops everything"))

    def _ready(self, event: events.ChildReady) -> None:
        paint = self._paint
        if is_understudy(event.id):
            said = "standing by"
        elif event.down_s is not None:
            said = f"ready again after {shown_duration(event.down_s)}"
        elif not self._serving:
            said = f"ready {shown_duration(event.took_s):>12}"
        else:
            said = "ready"
        self._line(f"  {paint('green', '✓')} {event.id:<20} {said}")

    def _line(self, text: str) -> None:
        self._unfinished(f"{text}\n")
        self._pending = False

    def _unfinished(self, text: str) -> None:
        self._stream.write(f"{CLEAR_LINE if self._pending else ''}{text}")
        self._stream.flush()
        self._pending = True


class Journal:
    """The same as log lines, one event each, with the event's own fields."""

    def __call__(self, event: events.Event) -> None:
        level, name = _journal_entry(event)
        fields = msgspec.structs.asdict(event)
        del fields["at"]  # a log line has its own time
        if "id" in fields:
            fields = {"child": fields.pop("id"), **fields}
        if "tail" in fields:
            fields["tail"] = fields["tail"][-_EXPLAINED_LINES:]
        shown = {
            key: round(value, 3) if isinstance(value, float) else value
            for key, value in fields.items()
            if value is not None and value != ()
        }
        log.log(level, name, **shown)


def _journal_entry(event: events.Event) -> tuple[int, str]:
    match event:
        case events.ChildEnded(expected=False):
            return logging.WARNING, "child_failed"
        case events.Stopped() if event.exit_code:
            return logging.ERROR, "gave_up"
        case events.ChildGivenUp():
            return logging.ERROR, "child_given_up"
        case events.ChildNotReady():
            return logging.WARNING, "child_not_ready"
        case events.Serving():
            return logging.INFO, "ready"
        case _:
            name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
            return logging.INFO, name


def where_to_send(event: events.Serving) -> list[str]:
    """Where requests go, and one to copy."""
    lines = [f"listening on {url}" for url in event.urls]
    lines += [f"serving model {model}" for model in event.models]
    lines += [f"page at {event.web}"] if event.web else []
    if event.urls and event.models:
        request = {
            "model": event.models[0],
            "messages": [{"role": "user", "content": "Hello!"}],
            "stream": True,
        }
        base = event.urls[0].rstrip("/").removesuffix("/v1")
        lines.append(
            f"try: curl -N {base}/v1/chat/completions "
            f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(request))}"
        )
    return lines


def last_words(event: events.Stopped) -> list[str]:
    """What is said at the very end."""
    if event.exit_code == 0:
        return ["stopped"]
    lines = [f"gave up: {event.reason}"]
    if event.log:
        lines.append(f"  log of {event.child}: {event.log}")
    return lines
