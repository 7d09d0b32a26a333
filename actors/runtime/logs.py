"""Log lines: one event name and typed fields each; JSON, or colours on a terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import TextIO

from actors.runtime.absent import absent

# With rich it would draw tracebacks, values of variables included. Importing rich takes a tenth of
# a second, in every process of ours.
with absent("rich"):
    import structlog
    from structlog.typing import EventDict, Processor

get_logger = structlog.get_logger
"""Modules that a process of ours may import first have it from here, for the sake of the above."""


class Threshold:
    """Passes over events below a level, which may change while the process runs: loggers that are
    bound already ask it like new ones. One actor may have a level of its own."""

    def __init__(self, level: str) -> None:
        self._least = _severity(level)
        self._of_actors: dict[str, int] = {}
        """By name; as many as a process has actors."""

    def set(self, level: str, actor: str | None = None) -> None:
        """For one actor; None: for the whole process, whatever was said of single actors."""
        if actor is None:
            self._least = _severity(level)
            self._of_actors.clear()
        else:
            self._of_actors[actor] = _severity(level)

    def __call__(self, _logger: object, method: str, event: EventDict) -> EventDict:
        least = self._least
        if self._of_actors:
            name = str(event.get("actor", "")).partition("#")[0]
            least = self._of_actors.get(name, least)
        if _severity(method, logging.ERROR) < least:
            raise structlog.DropEvent
        return event


class Lines:
    """A structlog logger that writes lines to a stream. One that cannot be written, as no space is
    left or nobody reads, is lost: whoever had something to say goes on with what it was doing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(line + "\n")
            self._stream.flush()

    log = debug = info = warning = error = critical = exception = msg


def configure(*, level: str = "info", stream: TextIO | None = None, **fields: str) -> None:
    """Set up structlog for this process, perhaps anew. `fields` are in every line."""
    out = stream or sys.stderr
    pretty = out.isatty()
    structlog.configure(
        processors=[
            Threshold(level),
            _with(fields),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if pretty else "iso", utc=not pretty),
            *([] if pretty else [structlog.processors.format_exc_info]),
            _console() if pretty else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: Lines(out),
        cache_logger_on_first_use=False,
    )


def _console() -> Processor:
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)


def set_level(level: str, actor: str | None = None) -> None:
    """Change what this process writes down from now on; see `Threshold.set`."""
    for processor in structlog.get_config()["processors"]:
        if isinstance(processor, Threshold):
            processor.set(level, actor)


def redirect(path: Path) -> None:
    """Append what this process writes to standard output and error to a file from now on."""
    sys.stdout.flush()
    sys.stderr.flush()
    output = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
    finally:
        os.close(output)


def _severity(name: str, unknown: int = logging.INFO) -> int:
    return logging.getLevelNamesMapping().get(name.upper(), unknown)


def _with(fields: dict[str, str]) -> Processor:
    # Not by context variables: a process may get another name, and its tasks have copies of them.
    def add(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**fields, **event}

    return add
