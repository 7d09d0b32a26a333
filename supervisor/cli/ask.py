"""The commands that are answered by a running supervisor: `status`, `down`, `restart`, `events`."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from actors.runtime.pids import is_alive
from supervisor.calls import (
    HISTORY_LIMIT,
    Accepted,
    AnyAnswer,
    Call,
    Denied,
    Down,
    Events,
    GetMetrics,
    GetStatus,
    MetricsText,
    Restart,
    Status,
)
from supervisor.cli.arguments import Options
from supervisor.cli.main import EXIT_NOT_RUNNING
from supervisor.cli.targets import NoTargetError, choose
from supervisor.console.happenings import shown_event
from supervisor.console.paint import Paint, wants_colours
from supervisor.console.status import render_status
from supervisor.console.text import painted
from supervisor.events import AnyEvent
from supervisor.runstate import read_holder

EXIT_DENIED = 1
ANSWER_TIMEOUT_S = 10.0
CPU_LOOK_S = 0.25

_event_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


class Unreachable(Exception):
    """A supervisor holds the namespace but does not answer: it is just starting or ending."""


def status(options: Options, environ: Mapping[str, str]) -> int:
    """Show the tree."""
    answer = ask(options, environ, GetStatus())
    if not isinstance(answer, Status):
        return refused(answer)
    if options.as_json:
        print(msgspec.json.format(msgspec.json.encode(answer)).decode())
        return 0
    before = answer
    # The interval of a measurement: what uses how much CPU is seen between two looks.
    select.select([], [], [], CPU_LOOK_S)
    answer = ask(options, environ, GetStatus())
    if not isinstance(answer, Status):
        return refused(answer)
    paint = Paint(colours=wants_colours(sys.stdout, environ))
    text = render_status(answer, paint, time.time(), before=before, verbose=options.verbose)
    print(text)
    return 0


def restart(options: Options, environ: Mapping[str, str]) -> int:
    """Restart a child, or all replicas of an entry; return when they are ready."""
    assert options.child is not None, "the parser requires it"
    answer = ask(
        options, environ, Restart(id=options.child, rolling=options.rolling), timeout_s=None
    )
    if not isinstance(answer, Accepted):
        return refused(answer)
    print(f"{options.child} is ready again")
    return 0


def metrics(options: Options, environ: Mapping[str, str]) -> int:
    """Print what every process counts."""
    answer = ask(options, environ, GetMetrics())
    if not isinstance(answer, MetricsText):
        return refused(answer)
    print(answer.text, end="")
    return 0


def events(options: Options, environ: Mapping[str, str]) -> int:
    """Print what has happened, and with `follow` what happens until the supervisor ends."""
    paint = Paint(colours=wants_colours(sys.stdout, environ))
    try:
        with _connect(choose(options, environ).socket) as lines:
            lines.send(Events(recent=HISTORY_LIMIT, follow=options.follow), timeout_s=None)
            next(lines, None)
            for line in lines:
                if options.as_json:
                    print(line.decode(), flush=True)
                else:
                    print(painted(shown_event(_event_decoder.decode(line)), paint), flush=True)
    except (NoTargetError, Unreachable) as error:
        return not_running(error)
    return 0


def ask_status(path: Path, timeout_s: float = ANSWER_TIMEOUT_S) -> Status:
    """The status of the supervisor that listens there. Raises Unreachable."""
    answer = _call(path, GetStatus(), timeout_s)
    if not isinstance(answer, Status):
        raise Unreachable("the supervisor gave an answer of another kind")
    return answer


def ask_events(path: Path, count: int, timeout_s: float = ANSWER_TIMEOUT_S) -> tuple[AnyEvent, ...]:
    """The newest events of the supervisor that listens there, oldest first. Raises Unreachable."""
    with _connect(path) as lines:
        lines.send(Events(recent=count, follow=False), timeout_s=timeout_s)
        next(lines, None)
        return tuple(_event_decoder.decode(line) for line in lines)


def down(options: Options, environ: Mapping[str, str]) -> int:
    """Stop a supervisor; return when its process has ended."""
    try:
        layout = choose(options, environ)
    except NoTargetError as error:
        return not_running(error)
    holder = read_holder(layout.lock)
    if holder is not None and is_alive(holder.pid, holder.pid_started):
        with contextlib.suppress(ProcessLookupError), _pidfd(holder.pid) as pidfd:
            try:
                _call(
                    layout.socket,
                    Down(force=options.force, drain=not options.now),
                    ANSWER_TIMEOUT_S,
                )
            except Unreachable:
                # It does not listen before it has checked its topology, but it takes signals.
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            select.select([pidfd], [], [])
    print(f"{layout.state.name} is down")
    return 0


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def ask(
    options: Options,
    environ: Mapping[str, str],
    call: Call,
    timeout_s: float | None = ANSWER_TIMEOUT_S,
) -> AnyAnswer | Exception:
    """The answer of the supervisor that is meant, or why there is none."""
    try:
        return _call(choose(options, environ).socket, call, timeout_s)
    except (NoTargetError, Unreachable) as error:
        return error


def _call(path: Path, call: Call, timeout_s: float | None) -> AnyAnswer:
    with _connect(path) as lines:
        lines.send(call, timeout_s=timeout_s)
        line = next(lines, None)
    if line is None:
        raise Unreachable("the supervisor ended before it answered")
    answer: AnyAnswer = msgspec.json.decode(line, type=AnyAnswer)
    return answer


class _Lines(Iterator[bytes]):
    """A connection, line by line."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")

    def send(self, call: Call, *, timeout_s: float | None) -> None:
        self._connection.settimeout(timeout_s)
        self._connection.sendall(msgspec.json.encode(call) + b"\n")

    def __next__(self) -> bytes:
        try:
            line = self._file.readline()
        except ConnectionError:
            line = b""
        except TimeoutError:
            raise Unreachable("the supervisor does not answer") from None
        if not line:
            raise StopIteration
        return line.rstrip(b"\n")

    def close(self) -> None:
        self._file.close()


@contextlib.contextmanager
def _connect(path: Path) -> Iterator[_Lines]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            connection.connect(str(path))
        except OSError as error:
            raise Unreachable(
                f"the supervisor does not listen on {path} (yet, or any more): {error.strerror}"
            ) from None
        lines = _Lines(connection)
        try:
            yield lines
        finally:
            lines.close()


def refused(answer: AnyAnswer | Exception) -> int:
    """Say on standard error why it was not done; the exit code."""
    if isinstance(answer, Exception):
        return not_running(answer)
    why = answer.why if isinstance(answer, Denied) else "an answer of another kind"
    print(f"supervise: {why}", file=sys.stderr)
    return EXIT_DENIED


def not_running(error: Exception) -> int:
    """Say so on standard error; the exit code."""
    print(f"supervise: {error}", file=sys.stderr)
    return EXIT_NOT_RUNNING
