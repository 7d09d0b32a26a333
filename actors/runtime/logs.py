"""Log lines: one event name and typed fields each; JSON, or colours on a terminal."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor


def configure(*, level: str = "info", stream: TextIO | None = None, **fields: str) -> None:
    """Set up structlog for this process, perhaps anew. `fields` are in every line."""
    out = stream or sys.stderr
    pretty = out.isatty()
    structlog.configure(
        processors=[
            _with(fields),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if pretty else "iso", utc=not pretty),
            *([] if pretty else [structlog.processors.format_exc_info]),
            structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            getattr(logging, level.upper(), logging.INFO)
        ),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )


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


def _with(fields: dict[str, str]) -> Processor:
    # Not by context variables: a process may get another name, and its tasks have copies of them.
    def add(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**fields, **event}

    return add
