"""Dispatch. Each command is imported when it is called, so that `--help` answers at once."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from types import MappingProxyType

from supervisor.cli.arguments import parse
from supervisor.cli.commands import LOG_LEVELS, NAMES_COMMAND

LOG_VARIABLE = "UNDERSTUDY_LOG_LEVEL"
EXIT_USAGE = 2
EXIT_NOT_RUNNING = 3
EXIT_INTERRUPTED = 130

_ROOMS = MappingProxyType(
    {
        "up": "up",
        "check": "files",
        "certificates": "certificates",
        "chat": "chat",
        "doctor": "doctor",
        "schema": "files",
        "version": "files",
        "status": "ask",
        "down": "ask",
        "restart": "ask",
        "ranks": "ranks",
        "route": "route",
        "scale": "change",
        "drain": "change",
        "log-level": "change",
        "apply": "change",
        "events": "ask",
        "metrics": "ask",
        "keys": "keys",
        "models": "models",
        "logs": "logs",
        "top": "top",
        "completion": "completion",
        NAMES_COMMAND: "names",
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code.

    0 done, 1 the tree gave up or a call was refused, 2 wrong usage or topology, 3 no supervisor
    runs, 130 interrupted before anything was started.
    """
    options = parse(sys.argv[1:] if arguments is None else list(arguments))
    environ = dict(os.environ)
    if options.state_dir is not None:
        environ["UNDERSTUDY_STATE_DIR"] = os.path.abspath(options.state_dir)  # noqa: PTH100 - text
    if options.log_level is None:
        named = environ.get(LOG_VARIABLE)
        if named and named.lower() not in LOG_LEVELS:
            listed = ", ".join(LOG_LEVELS)
            print(f"supervise: {LOG_VARIABLE}: expected one of {listed}", file=sys.stderr)
            return EXIT_USAGE
        options.log_level = named.lower() if named else None
    room = importlib.import_module(f"supervisor.cli.{_ROOMS[options.command]}")
    try:
        code: int = getattr(room, options.command.replace("-", "_"))(options, environ)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `supervise status | head`: nobody reads the rest, which is no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code
