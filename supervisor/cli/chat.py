"""`supervise chat [FILE]`: from a topology to a prompt in the terminal over one of its engines.

What talks is `actors.chat`, in this process's place: a supervisor imports no engine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import msgspec

from supervisor.cli.arguments import Options
from supervisor.cli.files import read_checked
from supervisor.cli.main import EXIT_USAGE
from supervisor.topology import ActorInstance, Topology

DEFAULT_FILE = Path("topologies/disagg.yaml")


def chat(options: Options, environ: Mapping[str, str]) -> int:
    """Talk; on success this does not return."""
    if options.file is None:
        options.file = DEFAULT_FILE
    reading = read_checked(options, environ)
    if reading is None:
        return EXIT_USAGE
    worker = find_worker(reading.topology)
    if worker is None:
        print(f"{options.file}: no entry has an engine to talk to", file=sys.stderr)
        return EXIT_USAGE
    arguments = (
        *(sys.executable, "-P", "-m", "actors.chat"),
        msgspec.json.encode(worker.options).decode(),
        str(reading.topology.base_dir),
    )
    sys.stdout.flush()
    return _become(arguments, environ)


def _become(arguments: tuple[str, ...], environ: Mapping[str, str]) -> NoReturn:
    os.execve(arguments[0], arguments, dict(environ))  # noqa: S606 - no shell is wanted


def find_worker(topology: Topology) -> ActorInstance | None:
    """The first actor of the file that has an engine."""
    for instance in topology.node_instances():
        for actor in instance.actors:
            if "engine" in actor.options:
                return actor
    return None
