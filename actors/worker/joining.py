"""A leading rank that is told by its supervisor which node it is.

The other end is `supervisor.launchers.world`. Both speak lines of JSON: the rank says which server
it leads and what process it is, and waits; the order is to become a node, as a fork of a zygote
does.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.runtime import process
from actors.runtime.pids import process_started
from actors.runtime.zygote import Fork

if TYPE_CHECKING:
    from actors.worker.__main__ import Place

Lead: TypeAlias = Callable[["Place"], int]


class Here(msgspec.Struct, frozen=True, tag=True):
    """What a leader says of itself."""

    server: int
    pid: int
    pid_started: int


def lead(path: Path, server: int) -> int:
    """Wait for the order to be a node, and be it; the exit code. Without an order, none comes any
    more, and there is nothing to do."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(str(path))
        pid = os.getpid()
        here = Here(server, pid, process_started(pid))
        stream.sendall(msgspec.json.encode(here) + b"\n")
        with stream.makefile("rb") as lines:
            line = lines.readline()
    if not line:
        return 0
    order = msgspec.json.decode(line, type=Fork)
    os.environ.update(order.env)
    os.chdir(order.cwd)
    log = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(log, descriptor)
    os.close(log)
    return process.main([order.spec])
