"""`supervise top`: looks again and again, and draws what has changed."""

from __future__ import annotations

import select
import shutil
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import msgspec

from supervisor.calls import Status
from supervisor.cli.arguments import Options
from supervisor.cli.ask import Unreachable, ask_events, ask_status, not_running
from supervisor.cli.targets import NoTargetError, choose
from supervisor.console.paint import Paint, wants_colours
from supervisor.console.screen import Screen
from supervisor.console.text import clip
from supervisor.console.top import EVENTS_SHOWN, last_skip, render_top
from supervisor.events import AnyEvent
from supervisor.overview import Overview, overview

LOOK_TIMEOUT_S = 2.0
"""Keys are not read meanwhile, so a supervisor that hangs must not take long to be found out."""
RATE_SPAN_S = 0.9
"""Rates are taken over at least this long: heartbeats come twice a second, and a rate over one of
them jumps."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `top --json`."""

    at: float
    """Seconds since 1970."""
    overview: Overview


def top(options: Options, environ: Mapping[str, str]) -> int:
    """Show a frame an interval until `q` or Ctrl-C; one frame when not on a terminal."""
    try:
        look = Looker(choose(options, environ).socket)
        if options.as_json:
            return _print_lines(look, options.interval_s)
        paint = Paint(colours=wants_colours(sys.stdout, environ))
        if sys.stdin.isatty() and sys.stdout.isatty():
            return _show(look, options.interval_s, paint)
        return _print_frame(look, options.interval_s, paint)
    except (NoTargetError, Unreachable) as error:
        return not_running(error)


class Looker:
    """Remembers as many looks as the rates need."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._looks: deque[Status] = deque()

    def look(self) -> None:
        """Take a new look. Raises Unreachable."""
        self._looks.append(ask_status(self._socket, LOOK_TIMEOUT_S))
        while len(self._looks) > 2 and self._span_from(1) >= RATE_SPAN_S:
            self._looks.popleft()

    def _span_from(self, index: int) -> float:
        return self._looks[-1].clock_s - self._looks[index].clock_s

    @property
    def current(self) -> Status:
        return self._looks[-1]

    @property
    def previous(self) -> Status | None:
        """The newest look that is old enough for a rate, or the oldest there is."""
        return self._looks[0] if len(self._looks) > 1 else None

    def events(self) -> tuple[AnyEvent, ...]:
        """The newest, oldest first. Raises Unreachable."""
        return ask_events(self._socket, EVENTS_SHOWN, LOOK_TIMEOUT_S)


def _print_lines(look: Looker, interval_s: float) -> int:
    look.look()
    while True:
        _pause(interval_s)
        look.look()
        line = Line(at=time.time(), overview=overview(look.previous, look.current))
        print(msgspec.json.encode(line).decode(), flush=True)


def _print_frame(look: Looker, interval_s: float, paint: Paint) -> int:
    look.look()
    _pause(interval_s)
    look.look()
    width = shutil.get_terminal_size((120, 0)).columns
    frame = render_top(
        look.previous,
        look.current,
        look.events(),
        now=time.time(),
        width=width,
        height=None,
        paint=paint,
    )
    print("\n".join(line.rstrip() for line in frame))
    return 0


def _show(look: Looker, interval_s: float, paint: Paint) -> int:
    skip, away, due = 0, "", 0.0
    happened: tuple[AnyEvent, ...] = ()
    look.look()
    try:
        with Screen(sys.stdin, sys.stdout) as screen:
            while True:
                if time.monotonic() >= due:
                    due = time.monotonic() + interval_s
                    try:
                        look.look()
                        happened, away = look.events(), ""
                    except Unreachable as error:
                        # It may be on its way back; what was seen last stays readable.
                        away = str(error)
                width, height = screen.size
                skip = min(skip, last_skip(look.current, len(happened), height))
                frame = render_top(
                    look.previous,
                    look.current,
                    happened,
                    now=time.time(),
                    width=width,
                    height=height,
                    paint=paint,
                    skip=skip,
                )
                if away:
                    frame[0] = paint("red", clip(away, width))
                screen.draw(frame)
                for key in screen.wait(due - time.monotonic()):
                    if key == "quit":
                        return 0
                    skip = max(0, skip + (1 if key == "down" else -1))
    except KeyboardInterrupt:
        return 0


def _pause(seconds: float) -> None:
    # The interval of a measurement, not a wait for something that could tell us.
    select.select([], [], [], seconds)
